"""Images that tell a progress bar when they are taken."""

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from craft_onnx.cli.messages import progress


class WatchedImages(Sequence[Any]):
    """A sequence of images, taken by several threads, in one pass after another.

    Parameters
    ----------
    images : sequence
        The images, with a `shape`.
    """

    def __init__(self, images: Any) -> None:
        self.images = images
        self.shape = images.shape
        self._waiting: set[int] = set()
        self._bar: Any = None
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def watched(self, label: str) -> Iterator[None]:
        """Show a bar that moves when an image is taken for the first time within the block."""
        with progress(range(len(self)), label) as bar:
            self._bar, self._waiting = bar, set(range(len(self)))
            try:
                yield
            finally:
                self._bar = None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Any) -> Any:
        image = self.images[index]
        with self._lock:
            if self._bar is not None and index in self._waiting:
                self._waiting.remove(index)
                self._bar.update(1)
        return image

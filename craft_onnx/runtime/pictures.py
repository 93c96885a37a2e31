"""Pictures from a folder, files, a glob, NumPy files or arrays, decoded one by one to uint8 RGB."""

import errno
import operator
import os
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, overload

import numpy as np

from craft_onnx.errors import CraftWarning, InputError
from craft_onnx.runtime.lookahead import ahead
from craft_onnx.runtime.sources import Entry, entries_of

MAX_PIXELS = 100_000_000


class Pictures(Sequence[np.ndarray]):
    """Pictures that are decoded when asked for: uint8 RGB, each (H, W, 3) of its own size.

    `pictures[i]` raises InputError for a picture that cannot be read; a slice, indices or a mask give other `Pictures`.
    Iterating skips what cannot be read, with a CraftWarning.

    Attributes
    ----------
    names : list of str
        Where each picture comes from; relative to the folder, where a folder was given.
    skipped : list of (str, str)
        Name and reason of every picture that has been skipped.
    """

    def __init__(self, entries: Sequence[Entry], max_pixels: int = MAX_PIXELS) -> None:
        self.entries = list(entries)
        self.max_pixels = max_pixels
        self.skipped: list[tuple[str, str]] = []

    @property
    def names(self) -> list[str]:
        """Where each picture comes from."""
        return [entry.name for entry in self.entries]

    def __len__(self) -> int:
        return len(self.entries)

    @overload
    def __getitem__(self, key: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, key: slice | Sequence[int] | np.ndarray) -> "Pictures": ...
    def __getitem__(self, key: Any) -> "np.ndarray | Pictures":
        if isinstance(key, slice) or np.ndim(key) == 1:
            chosen = np.arange(len(self))[key if isinstance(key, slice) or len(key) else []]
            return Pictures([self.entries[i] for i in chosen], self.max_pixels)
        entry = self.entries[operator.index(key)]
        picture = self._read(entry)
        if isinstance(picture, str):
            raise _unreadable([(entry.name, picture)])
        return picture

    def __iter__(self) -> Iterator[np.ndarray]:
        return (picture for _, picture in self.readable())

    def readable(self, threads: int = 2) -> Iterator[tuple[int, np.ndarray]]:
        """Index and picture of every picture that can be read, decoded ahead in threads.

        Raises
        ------
        InputError
            If not one of them can be read, or the only one cannot.
        """
        failed = []
        for i, picture in enumerate(ahead(self._read, self.entries, threads)):
            if isinstance(picture, str):
                failed.append((self.entries[i].name, picture))
                self._skip(failed[-1:] if len(self) > 1 else [])
            else:
                yield i, picture
        if failed and len(failed) == len(self):
            raise _unreadable(failed)

    def _read(self, entry: Entry) -> np.ndarray | str:
        """The picture, or the reason why there is none."""
        try:
            return entry.read(self.max_pixels)
        except (ValueError, OSError) as error:
            return _reason(error)

    def checked(self) -> "Pictures":
        """The same pictures without those whose header says that they cannot be read, which are skipped.

        Raises
        ------
        InputError
            If that leaves none.
        """
        reasons = [_refusal(entry, self.max_pixels) for entry in self.entries]
        failed = [(name, reason) for name, reason in zip(self.names, reasons, strict=True) if reason]
        if len(failed) == len(self):
            raise _unreadable(failed)
        kept = self[[i for i, reason in enumerate(reasons) if not reason]]
        kept._skip(failed, of=len(self))
        return kept

    def _skip(self, failed: list[tuple[str, str]], of: int = 0) -> None:
        """Remember and warn, once per picture."""
        new = [pair for pair in failed if pair not in self.skipped]
        if new:
            self.skipped += new
            text = (
                f"{len(new)} of {of or len(self)} pictures {'is' if len(new) == 1 else 'are'} skipped: {_listed(new)}."
            )
            warnings.warn(text, CraftWarning, stacklevel=3)


def open_pictures(source: Any, max_pixels: int = MAX_PIXELS) -> Pictures:
    """Open pictures without decoding them; format and size are read from the headers.

    Parameters
    ----------
    source : path, str, array or a list of those
        A folder (with the folders in it, sorted; other files are ignored), a picture file, a glob pattern, a `.npy`,
        a `.npz` with one array of pictures, or uint8 arrays: (N, H, W, 3), (N, H, W) grey, or one picture (H, W, 3).
    max_pixels : int
        Limit on height * width of a picture.

    Returns
    -------
    Pictures
        Unreadable ones among several are skipped, with one CraftWarning.

    Raises
    ------
    InputError
        If there are no pictures, or none of them can be read.
    """
    return source if isinstance(source, Pictures) else Pictures(entries_of(source), max_pixels).checked()


def _refusal(entry: Entry, max_pixels: int) -> str:
    try:
        entry.check(max_pixels)
    except (ValueError, OSError) as error:
        return _reason(error)
    return ""


def _reason(error: ValueError | OSError) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)


def _listed(failed: list[tuple[str, str]], most: int = 3) -> str:
    text = "; ".join(f"{name} ({reason})" for name, reason in failed[:most])
    return text + (f" and {len(failed) - most} more" if len(failed) > most else "")


def _unreadable(failed: list[tuple[str, str]]) -> InputError:
    what = failed[0][0] if len(failed) == 1 else f"None of the {len(failed)} pictures"
    why = failed[0][1] if len(failed) == 1 else _listed(failed)
    verb = "cannot" if len(failed) == 1 else "can"
    absent = all(reason == os.strerror(errno.ENOENT) for _, reason in failed)
    remedy = "Check the path." if absent else "Give PNG, JPEG, WebP, BMP, GIF or TIFF pictures."
    return InputError(f"{what} {verb} be read: {why}.", remedy)

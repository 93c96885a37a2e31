"""Some of many images, without a copy."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Selection(Sequence[NDArray[Any]]):
    """The images at some indices, each taken when it is asked for.

    Parameters
    ----------
    images : array or sequence
        Of images of one size.
    indices : sequence of int
        Which of them, in which order.
    """

    def __init__(self, images: Any, indices: Sequence[int] | NDArray[np.integer]) -> None:
        self.images = images
        self.indices = [int(i) for i in indices]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Selection(self.images, self.indices[index])
        return self.images[self.indices[index]]

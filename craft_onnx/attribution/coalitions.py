"""Sets of segments that are shown while the others are hidden, and the target's value under each."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from craft_onnx.attribution.model import Progress
from craft_onnx.attribution.perturbation import Perturbed
from craft_onnx.attribution.segments import Labels

Array = NDArray[Any]


def coalition_values(
    look: Perturbed,
    labels: Sequence[Labels],
    coalitions: Sequence[Array],
    batch_size: int,
    progress: Progress | None = None,
) -> list[NDArray[np.float64]]:
    """The target's values where only some segments are shown.

    Parameters
    ----------
    look : Perturbed
        The inputs and what hides them.
    labels : n (H, W) int arrays
        Segments of every input.
    coalitions : n (m, K) arrays
        Which segments are shown, True or 1, and which are hidden; numbers between 0 and 1 blend.
    batch_size : int
        Copies in one run.
    progress : callable, optional
        Told (done, total), in copies, after each run.

    Returns
    -------
    n (m,) float64 arrays
    """

    def make(row: int, which: slice) -> Array:
        return np.take(coalitions[row][which], labels[row], axis=1)

    return look.values([len(some) for some in coalitions], make, batch_size, progress)


def painted(scores: Sequence[Array], labels: Sequence[Labels]) -> NDArray[np.float32]:
    """Maps (n, H, W) that show at every pixel the score of its segment, (K,) for each input."""
    return np.stack([some[where] for some, where in zip(scores, labels, strict=True)]).astype(np.float32)


def spread(scores: Sequence[Array], labels: Sequence[Labels]) -> NDArray[np.float32]:
    """Maps (n, H, W) that share the score of every segment among its pixels: they add up to the scores."""
    return painted([some / np.bincount(where.ravel()) for some, where in zip(scores, labels, strict=True)], labels)

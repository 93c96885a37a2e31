"""How near a gradient comes to the framework's, and how near it must."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
COSINE, RATIO = 0.9999, 2.0
# Errors up to here are rounding, whatever the framework's own are: a few times 2^-24, through sums and products.
ROUNDING = 1e-6
KINKED = 1e-4  # rounding alone leaves rows ten times nearer


def compared(found: Array, single: Array, wide: Array) -> dict[str, float]:
    """Cosine of a gradient with the framework's in float64; error of it, and of the framework's own in float32.

    A unit whose input is within rounding of zero may fall on the other side of its kink, in either implementation by
    chance, and changes the gradient of its row by thousands of times rounding. Such rows are counted. The cosine and
    the errors, which are medians, are over the rows where neither has one; over all where there are none.

    Parameters
    ----------
    found, single, wide : (n, ...) array
        The gradient to judge, in float32; the framework's in float32 and in float64.

    Returns
    -------
    dict of str to float
        "cosine"; "error" and "own", Euclidean distances to `wide`, relative to its length; "kinked" and "own_kinked",
        rows off by more than KINKED.
    """
    assert found.shape == wide.shape, f"shape {found.shape} instead of {wide.shape}"
    assert np.isfinite(found).all(), "not finite"
    assert wide.any(), "the framework's gradient is zero"
    found, single, wide = (one.reshape(len(one), -1).astype(np.float64) for one in (found, single, wide))
    errors = np.stack([_distances(one, wide) for one in (found, single)])
    kinked = errors > KINKED
    smooth = ~kinked.any(0) if not kinked.any(0).all() else np.full(len(wide), True)
    error, own = np.median(errors[:, smooth], axis=1)
    cosine = (found * wide)[smooth].sum() / np.linalg.norm(found[smooth]) / np.linalg.norm(wide[smooth])
    counts = kinked.sum(1)
    figures = {"cosine": cosine, "error": error, "own": own, "kinked": counts[0], "own_kinked": counts[1]}
    return {name: float(value) for name, value in figures.items()}


def _distances(found: Array, wide: Array) -> Array:
    return np.linalg.norm(found - wide, axis=1) / np.linalg.norm(wide, axis=1)


def ratio(figures: Mapping[str, float]) -> float:
    """The error as a multiple of the framework's own."""
    return figures["error"] / max(figures["own"], ROUNDING / RATIO)


def near(figures: Mapping[str, float]) -> bool:
    """Whether a gradient is as good as the framework's own."""
    few = figures["kinked"] <= 2 * figures["own_kinked"] + 3  # both are chance: some more is no worse
    return figures["cosine"] >= COSINE and ratio(figures) <= RATIO and few

"""How near a gradient comes to the framework's, and how near it must."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
COSINE, RATIO = 0.9999, 2.0
# Errors up to here are rounding, whatever the framework's own are: a few times 2^-24, through sums and products.
ROUNDING = 1e-6


def compared(found: Array, single: Array, wide: Array) -> dict[str, float]:
    """Cosine of a gradient with the framework's in float64; error of it, and of the framework's own in float32.

    Errors are medians over the rows. In a deep network with ReLUs a unit whose input is within rounding of zero may
    fall on the other side, which changes the gradient of its row by a thousandfold of rounding: for which rows that
    happens is chance, in either implementation. A wrong derivative shows in all rows.

    Parameters
    ----------
    found, single, wide : (n, ...) array
        The gradient to judge, in float32; the framework's in float32 and in float64.

    Returns
    -------
    dict of str to float
        "cosine"; "error" and "own", Euclidean distances to `wide`, relative to its length.
    """
    assert found.shape == wide.shape, f"shape {found.shape} instead of {wide.shape}"
    assert np.isfinite(found).all(), "not finite"
    assert wide.any(), "the framework's gradient is zero"
    found, single, wide = (one.reshape(len(one), -1).astype(np.float64) for one in (found, single, wide))
    error, own = (_distances(one, wide) for one in (found, single))
    cosine = (found * wide).sum() / np.linalg.norm(found) / np.linalg.norm(wide)
    return {"cosine": float(cosine), "error": float(np.median(error)), "own": float(np.median(own))}


def _distances(found: Array, wide: Array) -> Array:
    return np.linalg.norm(found - wide, axis=1) / np.linalg.norm(wide, axis=1)


def ratio(figures: Mapping[str, float]) -> float:
    """The error as a multiple of the framework's own."""
    return figures["error"] / max(figures["own"], ROUNDING / RATIO)


def near(figures: Mapping[str, float]) -> bool:
    """Whether a gradient is as good as the framework's own."""
    return figures["cosine"] >= COSINE and ratio(figures) <= RATIO

"""How alike two maps are, whatever their scale."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Floats = NDArray[np.float64]
WINDOW, SIGMA = 11, 1.5  # Gaussian window of SSIM
C1, C2 = 0.01**2, 0.03**2  # of maps in [0, 1]


def rank_correlation(a: Array, b: Array) -> Floats:
    """Spearman's rank correlation of each map of one stack with that of another.

    Parameters
    ----------
    a, b : (n, ...) arrays
        Maps; equal numbers share their mean rank.

    Returns
    -------
    (n,) array
        From -1 to 1; 0 where a map is the same everywhere.
    """
    return np.array([_correlation(_ranks(x.ravel()), _ranks(y.ravel())) for x, y in zip(a, b, strict=True)])


def structural_similarity(a: Array, b: Array) -> Floats:
    """SSIM of each map of one stack with that of another (Wang et al. 2004, IEEE TIP 13(4), section III B).

    Parameters
    ----------
    a, b : (n, H, W) arrays
        Maps; each is brought to [0, 1] first.

    Returns
    -------
    (n,) array
        Mean over the picture, 1 for equal maps.
    """
    return np.array([_ssim(_unit(x), _unit(y)) for x, y in zip(a, b, strict=True)])


def _ranks(x: Array) -> Floats:
    """Ranks from 1, ties at the mean of theirs."""
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


def _correlation(x: Floats, y: Floats) -> float:
    x, y = x - x.mean(), y - y.mean()
    norm = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / norm) if norm > 0 else 0.0


def _unit(x: Array) -> Floats:
    low, high = float(x.min()), float(x.max())
    return (x.astype(float) - low) / (high - low if high > low else 1)


def _ssim(x: Floats, y: Floats) -> float:
    mean_x, mean_y = _smooth(x), _smooth(y)
    var_x, var_y = _smooth(x * x) - mean_x**2, _smooth(y * y) - mean_y**2
    covariance = _smooth(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + C1) / (mean_x**2 + mean_y**2 + C1)
    return float((luminance * (2 * covariance + C2) / (var_x + var_y + C2)).mean())


def _smooth(x: Floats) -> Floats:
    return np.asarray(cv2.GaussianBlur(x, (WINDOW, WINDOW), SIGMA, borderType=cv2.BORDER_REFLECT))

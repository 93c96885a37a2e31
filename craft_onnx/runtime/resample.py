"""Separable resampling: every output position is a weighted sum of few input positions along one axis."""

import numpy as np


def resample(x: np.ndarray, indices: np.ndarray, weights: np.ndarray, axis: int) -> np.ndarray:
    """Weighted sums of entries along one axis.

    Parameters
    ----------
    x : ndarray
        Any shape.
    indices, weights : ndarray
        (size, taps) positions along the axis and their weights.
    axis : int
        The axis, which becomes `size` long.
    """
    shape = [1] * x.ndim
    shape[axis] = -1
    taps = range(indices.shape[1])
    return sum(np.take(x, indices[:, t], axis) * weights[:, t].astype(x.dtype).reshape(shape) for t in taps)


def linear_taps(positions: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Bilinear taps (n, 2) at positions (pixel centres at integers) on an axis of `size`; the edge is repeated."""
    below = np.floor(positions).astype(int)
    weights = np.stack([below + 1 - positions, positions - below], 1)
    return np.clip(below[:, None] + [0, 1], 0, size - 1), weights


def cubic_taps(positions: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Taps (n, 4) of Keys' cubic convolution (IEEE TASSP 29(6), 1981), a = -0.5; weights inside the axis sum to 1."""
    indices = np.floor(positions).astype(int)[:, None] + [-1, 0, 1, 2]
    weights = keys(np.abs(positions[:, None] - indices))
    weights[(indices < 0) | (indices >= size)] = 0
    return np.clip(indices, 0, size - 1), weights / weights.sum(1, keepdims=True)


def keys(distance: np.ndarray) -> np.ndarray:
    """Keys' cubic kernel with a = -0.5 at non-negative distances."""
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((2.5 - 0.5 * distance) * distance - 4) * distance + 2
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0))


def bicubic(x: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize (H, W, C) to (height, width, C) by Keys' cubic convolution, half-pixel centres, without antialias."""
    for axis in (0, 1):
        positions = (np.arange(size[axis]) + 0.5) * x.shape[axis] / size[axis] - 0.5
        x = resample(x, *cubic_taps(positions, x.shape[axis]), axis)
    return x

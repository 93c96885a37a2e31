"""Maps of a coarser raster brought to the pixels of the input."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from craft_onnx.runtime.resample import linear_taps, resample


def upsampled(maps: NDArray[Any], size: tuple[int, int]) -> NDArray[np.float32]:
    """Resize bilinearly, with half-pixel centres, as PyTorch's `interpolate` does without `align_corners`.

    Parameters
    ----------
    maps : array (n, h, w)
        Over the whole input.
    size : (int, int)
        Height and width of the input.

    Returns
    -------
    array (n, H, W) float32
    """
    maps = np.asarray(maps, np.float32)
    for axis, length in zip((1, 2), size, strict=True):
        positions = (np.arange(length) + 0.5) * maps.shape[axis] / length - 0.5
        # Before the first centre and after the last, the outermost value holds.
        positions = np.clip(positions, 0, maps.shape[axis] - 1)
        maps = resample(maps, *linear_taps(positions, maps.shape[axis]), axis)
    return maps

"""Whether maps point at a known region of the picture."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from craft_onnx.errors import InputError
from craft_onnx.runtime.batches import as_array

Array = NDArray[Any]
Floats = NDArray[np.float64]


def pointing_game(maps: Any, masks: Any, tolerance: float = 0) -> Floats:
    """Whether the maximum of each map lies in a region (Zhang et al. 2018, IJCV 126, section 4.2).

    Parameters
    ----------
    maps : (n, H, W) array
        Importance of every pixel.
    masks : (n, H, W) bool array
        The region, not empty.
    tolerance : float
        Pixels by which the maximum may miss the region; the original takes 15.

    Returns
    -------
    (n,) array
        1 for a hit and 0 for a miss; where several pixels share the maximum, the share of hits among them.

    Raises
    ------
    InputError
        If maps and masks do not fit each other, or a region is empty.
    """
    maps, masks = _checked(maps, masks)
    highest = maps == maps.max(axis=(1, 2), keepdims=True)
    return (highest & _near(masks, tolerance)).sum(axis=(1, 2)) / highest.sum(axis=(1, 2))


def energy_inside(maps: Any, masks: Any) -> Floats:
    """The share of each map's positive part that lies in a region (Wang et al. 2020, arXiv 1910.01279, section 4.3).

    Parameters
    ----------
    maps : (n, H, W) array
        Importance of every pixel.
    masks : (n, H, W) bool array
        The region, not empty.

    Returns
    -------
    (n,) array
        From 0 to 1; the region's share of the picture for a map that is the same everywhere, 0 where nothing is
        positive.

    Raises
    ------
    InputError
        If maps and masks do not fit each other, or a region is empty.
    """
    maps, masks = _checked(maps, masks)
    positive = np.maximum(maps, 0).astype(float)
    total = positive.sum(axis=(1, 2))
    return (positive * masks).sum(axis=(1, 2)) / np.where(total > 0, total, 1)


def _near(masks: NDArray[np.bool_], tolerance: float) -> NDArray[np.bool_]:
    """Pixels at most `tolerance` away from the region."""
    if tolerance <= 0:
        return masks
    outside = [cv2.distanceTransform((~one).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) for one in masks]
    return np.stack(outside) <= tolerance


def _checked(maps: Any, masks: Any) -> tuple[Array, NDArray[np.bool_]]:
    maps, masks = as_array(maps), as_array(masks)
    if maps.ndim != 3 or maps.shape != masks.shape:
        problem = f"Maps of shape {maps.shape} and masks of shape {masks.shape} do not belong together."
        raise InputError(problem, "Give both as (n, H, W).")
    if masks.dtype != bool:
        raise InputError(f"Masks of dtype {masks.dtype} are no regions.", "Give booleans: mask > 0.")
    if not masks.any(axis=(1, 2)).all():
        empty = int(masks.any(axis=(1, 2)).argmin())
        raise InputError(f"The region of picture {empty} is empty.", "Leave out pictures that do not show it.")
    return maps, masks

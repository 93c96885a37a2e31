"""Reference pictures of a concept: what its heat lies on stays bright, or is all that is shown."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from craft_onnx.errors import InputError
from craft_onnx.show.colour_maps import ColourMap
from craft_onnx.show.imgify import imgify

Box = tuple[slice, slice]


def vis_opaque_img(
    pictures: Sequence[Any] | np.ndarray,
    heatmaps: Sequence[Any] | np.ndarray,
    rf: bool = False,
    alpha: float = 0.3,
    vis_th: float = 0.2,
    crop_th: float = 0.1,
    kernel_size: int = 19,
) -> list[np.ndarray]:
    """Pictures that are dark but for where a heatmap is.

    The positive part of the heat is blurred; where it lies above `vis_th` of its maximum, the picture stays as it is.
    A heatmap without anything positive leaves all dark, and crops nothing.

    Parameters
    ----------
    pictures : sequence of (H, W, 3) uint8 RGB arrays
        Of any sizes; others go through `imgify`.
    heatmaps : sequence of (H', W') arrays
        One a picture, over the whole of it.
    rf : bool
        Crop to the box where the blurred heat lies above `crop_th` of its maximum: the receptive field, where the
        heat is that of a single neuron.
    alpha : float
        Brightness of the rest.
    vis_th, crop_th : float
        Shares of the maximum.
    kernel_size : int
        Side of the Gaussian kernel, pixels of the picture; odd.

    Returns
    -------
    list of ndarray
        (H, W, 3) uint8 RGB, of different sizes with `rf`.

    Raises
    ------
    InputError
        If the numbers of pictures and heatmaps differ, or the kernel is not odd.
    """
    drawn = []
    for picture, heat in _pairs(pictures, heatmaps):
        focus = focus_of(heat, picture.shape[:2], kernel_size)
        dimmed = np.where(focus[..., None] > vis_th, picture, np.rint(alpha * picture.astype(np.float32)))
        drawn.append(dimmed.astype(np.uint8)[box_above(focus, crop_th) if rf else ...])
    return drawn


def vis_img_heatmap(
    pictures: Sequence[Any] | np.ndarray,
    heatmaps: Sequence[Any] | np.ndarray,
    rf: bool = False,
    crop_th: float = 0.1,
    kernel_size: int = 19,
    cmap: ColourMap = "bwr",
    vmin: float | None = None,
    vmax: float | None = None,
    symmetric: bool = True,
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Pictures, and their heatmaps in colours.

    Parameters
    ----------
    pictures, heatmaps, rf, crop_th, kernel_size
        As in `vis_opaque_img`.
    cmap, vmin, vmax, symmetric
        As in `craft_onnx.show.imgify.imgify`, of the whole heatmap.

    Returns
    -------
    pictures, heatmaps : list of ndarray
        (H, W, 3) uint8 RGB, both cropped with `rf`.

    Raises
    ------
    InputError
        As `vis_opaque_img` does.
    """
    shown, coloured = [], []
    for picture, heat in _pairs(pictures, heatmaps):
        crop: Any = box_above(focus_of(heat, picture.shape[:2], kernel_size), crop_th) if rf else ...
        shown.append(picture[crop])
        coloured.append(imgify(over(heat, picture.shape[:2]), cmap, vmin, vmax, symmetric)[crop])
    return shown, coloured


def focus_of(heat: np.ndarray, size: tuple[int, int], kernel_size: int = 19) -> np.ndarray:
    """The positive heat (H', W') in the raster of a picture, blurred, (height, width) from 0 to 1; zeros where none."""
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise InputError(f"A kernel of {kernel_size} pixels has no middle.", "Give an odd number, such as 19.")
    blurred = cv2.GaussianBlur(np.maximum(over(heat, size), 0), (kernel_size, kernel_size), 0)
    most = blurred.max()
    return blurred / most if most > 0 else blurred


def box_above(focus: np.ndarray, threshold: float) -> Box:
    """Rows and columns of the least box with all that is above a threshold; everything where nothing is."""
    rows, columns = np.nonzero(focus > threshold)
    if not len(rows):
        return slice(None), slice(None)
    return slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)


def over(heat: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A map (H', W') in the raster of a picture, (height, width) float32."""
    heat = np.asarray(heat, np.float32)
    if heat.shape == size:
        return heat
    shrinks = heat.shape[0] > size[0] or heat.shape[1] > size[1]
    return cv2.resize(heat, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def _pairs(pictures: Sequence[Any] | np.ndarray, heatmaps: Sequence[Any] | np.ndarray) -> list[tuple[Any, Any]]:
    if len(pictures) != len(heatmaps):
        problem = f"{len(pictures)} pictures and {len(heatmaps)} heatmaps were given."
        raise InputError(problem, "Give one heatmap a picture.")
    return [(imgify(picture), np.asarray(heat)) for picture, heat in zip(pictures, heatmaps, strict=True)]

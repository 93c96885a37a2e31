"""Arrays as pictures: heat through a colour map, colours scaled to what can be shown; after zennit's `imgify`."""

import math
from typing import Any

import numpy as np

from craft_onnx.errors import InputError
from craft_onnx.show.colour_maps import ColourMap, palette
from craft_onnx.show.overlay import WHITE, fitted

Fill = int | tuple[int, int, int] | None


def imgify(
    image: Any,
    cmap: ColourMap = "bwr",
    vmin: float | None = None,
    vmax: float | None = None,
    symmetric: bool = False,
    level: float = 1.0,
    grid: bool | tuple[int, int] = False,
    gridfill: Fill = None,
    resize: int | None = None,
    padding: bool = False,
) -> np.ndarray:
    """An array as a picture.

    The keywords are those of `zennit.image.imgify` and `crp.image.imgify`; what comes back is an array, which
    `PIL.Image.fromarray` takes.

    Parameters
    ----------
    image : array, tensor or PIL picture
        (H, W), or with one or three channels in front or behind; with `grid`, n of them. Three channels are colours,
        one goes through the colour map. uint8 colours are shown as they are; uint8 with one channel are places in
        the colour map, unless `vmin`, `vmax` or `symmetric` is given.
    cmap : str or callable
        See `craft_onnx.show.colour_maps.palette`.
    vmin, vmax : float, optional
        Values of the first and the last colour. By default the least and the largest value of each picture, or with
        `symmetric` minus and plus its largest absolute value.
    symmetric : bool
        Zero is the middle of the colour map.
    level : float
        Above 1, large values stand out more.
    grid : bool or (int, int)
        Pictures side by side, in so many rows and columns, or about as many rows as columns.
    gridfill : int or (int, int, int), optional
        Grey or RGB, 0 to 255, of places in the grid without a picture; white by default.
    resize : int, optional
        Length of the longer side of the result, pixels; of each picture in a grid.
    padding : bool
        White is added at the shorter sides until the picture is square.

    Returns
    -------
    ndarray
        (H, W, 3) uint8 RGB.

    Raises
    ------
    InputError
        If the array has another shape or holds no number, or there is no such colour map, or the grid is too small.
    """
    array = np.asarray(image)
    if grid is False:
        return _sized(_coloured(array, cmap, vmin, vmax, symmetric, level), resize, padding)
    tiles = [imgify(one, cmap, vmin, vmax, symmetric, level, False, None, resize, padding) for one in array]
    return _gridded(tiles, grid, gridfill)


def _coloured(
    array: np.ndarray, cmap: ColourMap, vmin: float | None, vmax: float | None, symmetric: bool, level: float
) -> np.ndarray:
    array = _channels_last(array)
    scaled = vmin is not None or vmax is not None or symmetric
    as_it_is = array.dtype == np.uint8 and (array.shape[-1] == 3 or not scaled)
    index = array if as_it_is else _to_bytes(array.astype(np.float64), vmin, vmax, symmetric)
    return index.copy() if index.shape[-1] == 3 else palette(cmap, level)[index[..., 0]]


def _channels_last(array: np.ndarray) -> np.ndarray:
    """(H, W, 1) or (H, W, 3)."""
    if array.ndim == 2:
        return array[..., None]
    if array.ndim == 3 and array.shape[-1] in (1, 3):
        return array
    if array.ndim == 3 and array.shape[0] in (1, 3):
        return np.moveaxis(array, 0, -1)
    raise InputError(f"An array of shape {array.shape} is no picture.", "Give (H, W), (H, W, 3) or (3, H, W).")


def _to_bytes(array: np.ndarray, vmin: float | None, vmax: float | None, symmetric: bool) -> np.ndarray:
    """0 at `vmin` and below, 255 at `vmax` and above; half way lies 128. Where all is one value, it is the first."""
    if not array.size or not np.isfinite(array).all():
        raise InputError("The array is empty, or holds NaN or infinity.", "Look at how it was computed.")
    most = np.abs(array).max()
    low, high = (-most, most) if symmetric else (array.min(), array.max())
    low, high = (low if vmin is None else vmin), (high if vmax is None else vmax)
    share = (array - low) / (high - low) if high > low else np.full_like(array, 0.5 if symmetric else 0.0)
    return np.floor(255 * np.clip(share, 0, 1) + 0.5).astype(np.uint8)


def _sized(picture: np.ndarray, resize: int | None, padding: bool) -> np.ndarray:
    height, width = picture.shape[:2]
    side = resize or max(height, width)
    if padding:
        return fitted(picture, (side, side))
    scale = side / max(height, width)
    return picture if scale == 1 else fitted(picture, (max(1, round(scale * height)), max(1, round(scale * width))))


def _gridded(tiles: list[np.ndarray], grid: bool | tuple[int, int], fill: Fill) -> np.ndarray:
    """Tiles of one size in rows, from left to right."""
    rows, columns = (0, 0) if isinstance(grid, bool) else grid
    rows = rows or max(1, math.isqrt(len(tiles)))
    columns = columns or -(-len(tiles) // rows)
    if not tiles or rows * columns < len(tiles):
        raise InputError(f"{len(tiles)} pictures do not fit into {rows} x {columns} places.", "Give a larger grid.")
    height, width = tiles[0].shape[:2]
    sheet = np.empty((rows * height, columns * width, 3), np.uint8)
    sheet[:] = WHITE if fill is None else fill
    for i, tile in enumerate(tiles):
        top, left = i // columns * height, i % columns * width
        sheet[top : top + height, left : left + width] = tile
    return sheet

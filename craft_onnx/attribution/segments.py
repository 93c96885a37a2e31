"""Segments of pictures: regions that are removed or kept as a whole, as maps of labels 0 .. K - 1."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from craft_onnx.errors import InputError

Array = NDArray[Any]
Labels = NDArray[np.intp]
SUPERPIXELS, COMPACTNESS, ITERATIONS = 64, 10.0, 10


def segments_of(inputs: Array, segments: Any, axes: tuple[int, int, int]) -> list[Labels]:
    """Label maps of inputs.

    Parameters
    ----------
    inputs : array (n, ...)
        Preprocessed pictures.
    segments : int, (int, int), "slic" or array
        Cells of a regular grid along either side, along height and width; superpixels; or labels (H, W) for all
        inputs, or (n, H, W).
    axes : (int, int, int)
        Of the channels, the height and the width.

    Returns
    -------
    list of (H, W) int arrays
        Labels from 0 without gaps, one map for each input.

    Raises
    ------
    InputError
        If they make no sense, or do not fit.
    """
    n, size = len(inputs), (inputs.shape[axes[1]], inputs.shape[axes[2]])
    if isinstance(segments, str):
        if segments != "slic":
            raise InputError(f"There are no segments {segments!r}.", "Take a number of cells, 'slic' or label maps.")
        return [slic(np.moveaxis(x, [axis - 1 for axis in axes], (2, 0, 1))) for x in inputs]
    given = np.asarray(segments)
    if given.shape in ((), (2,)):
        rows, columns = np.broadcast_to(given, 2)
        return [grid(size, int(rows), int(columns))] * n
    if given.shape not in (size, (n, *size)):
        problem = f"Segments of shape {given.shape} do not fit {n} inputs of {size}."
        raise InputError(problem, "Give cells along height and width, or label maps (H, W) or (n, H, W).")
    return [relabelled(given)] * n if given.ndim == 2 else [relabelled(one) for one in given]


def grid(size: tuple[int, int], rows: int, columns: int) -> Labels:
    """A regular grid of rows x columns cells, as equal as whole pixels allow; labels (H, W), row by row.

    Raises
    ------
    InputError
        If there are more cells than pixels along a side, or none.
    """
    if not (1 <= rows <= size[0] and 1 <= columns <= size[1]):
        raise InputError(
            f"{rows} x {columns} cells do not fit {size[0]} x {size[1]} pixels.", "Take fewer, at least 1."
        )
    down, across = (np.arange(side) * count // side for side, count in zip(size, (rows, columns), strict=True))
    return down[:, None] * columns + across


def relabelled(labels: Array) -> Labels:
    """The same segments with labels from 0 without gaps, in the order of the old ones."""
    return np.unique(labels, return_inverse=True)[1].reshape(labels.shape)


def slic(picture: Array, count: int = SUPERPIXELS, compactness: float = COMPACTNESS) -> Labels:
    """Superpixels by k-means in colour and position (SLIC, Achanta et al. 2012, TPAMI 34(11)).

    Every pixel chooses among the nine centres around the cell of the grid that it started in.

    Parameters
    ----------
    picture : array (H, W, C)
        In any units; colours are compared in units of a percent of the range, in Lab where there are three channels.
    count : int
        Superpixels to start from, about; fragments are given to a neighbour.
    compactness : float
        Weight of position against colour.

    Returns
    -------
    (H, W) int array
        Labels; every segment is connected.
    """
    height, width, _ = picture.shape
    rows, columns = (max(1, round(side * (count / (height * width)) ** 0.5)) for side in (height, width))
    labels = grid((height, width), rows, columns)
    pace = compactness / (height * width / (rows * columns)) ** 0.5  # of position, per pixel
    places = np.moveaxis(np.mgrid[:height, :width], 0, -1) * pace
    features = np.concatenate([_colours(picture), places], axis=-1).reshape(height * width, -1)
    choices = _neighbours(labels.ravel(), rows, columns)
    nearest = labels.ravel()
    for _ in range(ITERATIONS):
        centres = segment_means(features, nearest, rows * columns)
        distances = [np.square(features - centres[one]).sum(axis=1) for one in choices]
        nearest = np.take_along_axis(choices, np.argmin(distances, axis=0)[None], axis=0)[0]
    return relabelled(connected(nearest.reshape(height, width)))


def segment_means(features: Array, labels: Labels, count: int) -> Array:
    """Means (count, f) of the features (pixels, f) over the pixels of each label; 0 for labels without any."""
    sizes = np.maximum(np.bincount(labels, minlength=count), 1)
    sums = [np.bincount(labels, weights=column, minlength=count) for column in features.T]
    return np.stack(sums, axis=1) / sizes[:, None]


def connected(labels: Labels) -> Labels:
    """The largest piece of every segment keeps its label; other pieces take that of the nearest pixel that has one."""
    kept = np.zeros(labels.shape, bool)
    for label in np.unique(labels):
        _, pieces, stats, _ = cv2.connectedComponentsWithStats((labels == label).astype(np.uint8), connectivity=4)
        kept |= pieces == 1 + stats[1:, cv2.CC_STAT_AREA].argmax()
    return _filled_from_neighbours(labels, kept)


def _filled_from_neighbours(labels: Labels, kept: NDArray[np.bool_]) -> Labels:
    """Labels that are not kept, replaced ring by ring by those of pixels beside them, so that pieces stay connected."""
    found = np.where(kept, labels, -1)
    while (found < 0).any():
        padded = np.pad(found, 1, constant_values=-1)
        beside = np.stack([padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]])
        found = np.where(found < 0, beside.max(axis=0), found)
    return found


def _colours(picture: Array) -> Array:
    """Colours in percent of the picture's range; Lab for three channels."""
    low, high = float(picture.min()), float(picture.max())
    unit = ((picture - low) / max(high - low, 1e-12)).astype(np.float32)
    return cv2.cvtColor(unit, cv2.COLOR_RGB2LAB) if picture.shape[2] == 3 else 100 * unit


def _neighbours(cells: Labels, rows: int, columns: int) -> Labels:
    """The cell of every pixel and the eight around it, (9, pixels); at the rim some are named more than once."""
    down, across = np.divmod(cells, columns)
    steps = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    beside = [np.clip(down + dy, 0, rows - 1) * columns + np.clip(across + dx, 0, columns - 1) for dy, dx in steps]
    return np.stack(beside)

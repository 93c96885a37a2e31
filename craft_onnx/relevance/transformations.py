"""Random views of a picture that is being generated: what must excite in all of them is no pattern of single pixels.

Olah, Mordvintsev and Schubert 2017, "Feature Visualization", section "The Enemy of Feature Visualization".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Array = NDArray[Any]
Size = tuple[int, int]
GREY = 0.5  # outside of the picture


@dataclass(frozen=True)
class Transformations:
    """How far the views differ, each drawn evenly.

    Attributes
    ----------
    jitter : float
        Largest shift, down and across, as a share of the shorter side.
    scale : (float, float)
        Smallest and largest magnification; below 1 grey surrounds the picture.
    rotation : float
        Largest angle, degrees.
    flip : bool
        Half of the views are mirrored.
    """

    jitter: float = 1 / 8
    scale: tuple[float, float] = (0.7, 1.3)
    rotation: float = 15.0
    flip: bool = False

    def draw(self, rng: np.random.Generator, size: Size, seen: Size) -> Array:
        """A view, as the affine map (2, 3) from rows and columns of what is seen to those of the picture."""
        jitter, angle = self.jitter * min(size), np.deg2rad(self.rotation)
        shift, turn = rng.uniform(-jitter, jitter, 2), rng.uniform(-angle, angle)
        zoom, mirror = rng.uniform(*self.scale), rng.random() < 0.5 and self.flip
        return view(size, seen, tuple(shift), turn, zoom, mirror)


def view(
    size: Size,
    seen: Size,
    shift: tuple[float, ...] = (0.0, 0.0),
    turn: float = 0.0,
    zoom: float = 1.0,
    mirror: bool = False,
) -> Array:
    """The affine map (2, 3) from what is seen to the picture, about their centres.

    Parameters
    ----------
    size, seen : (int, int)
        Height and width of the picture and of what is seen of it, pixels.
    shift : (float, float)
        Down and across, pixels of the picture.
    turn : float
        Radians.
    zoom : float
        Magnification.
    mirror : bool
        Left and right change places.
    """
    cos, sin = np.cos(turn), np.sin(turn)
    spread = np.diag(np.divide(size, seen) / zoom) @ np.diag([1, -1 if mirror else 1])
    turned = np.array([[cos, -sin], [sin, cos]]) @ spread
    centre, target = (np.array(size) - 1) / 2, (np.array(seen) - 1) / 2
    return np.column_stack([turned, centre + shift - turned @ target])


def sampling(affine: Array, size: Size, seen: Size) -> csr_array:
    """A view as a sparse matrix: from the pixels of a picture to those that are seen, bilinear, 0 outside.

    The transposed matrix is the exact adjoint, as that of OpenCV's warp, which rounds positions, would not be.

    Parameters
    ----------
    affine : array (2, 3)
        See `view`.
    size, seen : (int, int)
        Height and width of the picture and of what is seen.

    Returns
    -------
    scipy.sparse.csr_array (seen pixels, picture pixels)
        float32.
    """
    from scipy.sparse import coo_array

    positions = np.indices(seen).reshape(2, -1)
    at = affine[:, :2] @ positions + affine[:, 2:]
    corner = np.floor(at).astype(np.intp)
    parts = [_corner(corner, at - corner, step, size) for step in ((0, 0), (0, 1), (1, 0), (1, 1))]
    targets, sources, weights = (np.concatenate(each) for each in zip(*parts, strict=True))
    return coo_array((weights.astype(np.float32), (targets, sources)), (seen[0] * seen[1], size[0] * size[1])).tocsr()


def seen_through(matrix: csr_array, pictures: Array, seen: Size) -> Array:
    """Views (n, height, width, 3) of pictures, with grey around them."""
    return _applied(matrix, pictures - GREY, seen) + GREY


def pulled_back(matrix: csr_array, cotangent: Array, size: Size) -> Array:
    """The cotangent of the pictures (n, height, width, 3) for that of the views."""
    return _applied(matrix.T, cotangent, size)


def _applied(matrix: csr_array, pictures: Array, size: Size) -> Array:
    pixels = pictures.reshape(len(pictures), -1, 3).transpose(1, 0, 2).reshape(matrix.shape[1], -1)
    result: Array = (matrix @ pixels).reshape(*size, len(pictures), 3)
    return result.transpose(2, 0, 1, 3)


def _corner(corner: Array, rest: Array, step: tuple[int, int], size: Size) -> tuple[Array, Array, Array]:
    """One of the four pixels around each position, as far as they are in the picture: seen pixel, pixel, weight."""
    row, column = corner[0] + step[0], corner[1] + step[1]
    inside = (row >= 0) & (row < size[0]) & (column >= 0) & (column < size[1])
    weight = np.abs(1 - step[0] - rest[0]) * np.abs(1 - step[1] - rest[1])
    return np.flatnonzero(inside), (row * size[1] + column)[inside], weight[inside]

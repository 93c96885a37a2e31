"""Flat shapes and the canvas they are painted on."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

OVERSAMPLING = 4  # drawn this much larger, then shrunk by averaging: antialiasing
_SUBPIXEL = 4  # bits of OpenCV's fixed-point coordinates

Colour = tuple[int, int, int]
Points = Sequence[tuple[float, float]] | np.ndarray


@dataclass(frozen=True)
class Shape:
    """A filled polygon, or a line of a given width.

    Attributes
    ----------
    points : (m, 2) array
        Corners (x, y), in the units of whoever draws; y points down.
    colour : (int, int, int)
        RGB, 0..255.
    width : float
        0 fills the polygon; otherwise the width of an open line through the points, in the units of the points.
    """

    points: np.ndarray
    colour: Colour
    width: float = 0.0


def polygon(points: Points, colour: Colour) -> Shape:
    """A filled polygon with straight sides."""
    return Shape(np.asarray(points, float), colour)


def line(points: Points, colour: Colour, width: float) -> Shape:
    """An open line with round ends."""
    return Shape(np.asarray(points, float), colour, width)


def ellipse(centre: tuple[float, float], radii: tuple[float, float], colour: Colour, tilt: float = 0.0) -> Shape:
    """A filled ellipse, its first radius turned by `tilt` degrees from x towards y."""
    turn = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    points = np.stack([radii[0] * np.cos(turn), radii[1] * np.sin(turn)], axis=1)
    return Shape(points @ rotation(tilt).T + centre, colour)


def smooth(points: Points, colour: Colour) -> Shape:
    """A filled shape whose outline passes smoothly through the points (closed Catmull-Rom spline)."""
    knots = np.asarray(points, float)
    before, after, beyond = np.roll(knots, 1, 0), np.roll(knots, -1, 0), np.roll(knots, -2, 0)
    t = np.linspace(0, 1, 12, endpoint=False)[:, None, None]
    curve = 0.5 * (
        2 * knots
        + (after - before) * t
        + (2 * before - 5 * knots + 4 * after - beyond) * t**2
        + (3 * knots - before - 3 * after + beyond) * t**3
    )
    return Shape(curve.swapaxes(0, 1).reshape(-1, 2), colour)


def outlined(shape: Shape, colour: Colour, width: float) -> list[Shape]:
    """The shape with a line around it."""
    return [shape, Shape(np.concatenate([shape.points, shape.points[:2]]), colour, width)]


def rotation(degrees: float) -> np.ndarray:
    """Matrix (2, 2) that turns x towards y."""
    angle = np.deg2rad(degrees)
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def mix(colour: Colour, other: Colour, share: float) -> Colour:
    """`colour` with a share (0..1) of another one."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(colour, other, strict=True))
    return red, green, blue


def darker(colour: Colour, share: float = 0.3) -> Colour:
    """Towards a warm black."""
    return mix(colour, (25, 20, 30), share)


def lighter(colour: Colour, share: float = 0.4) -> Colour:
    """Towards a warm white."""
    return mix(colour, (255, 250, 240), share)


class Canvas:
    """A picture in the making, which remembers whose every pixel is.

    Parameters
    ----------
    background : (size * OVERSAMPLING, size * OVERSAMPLING, 3) uint8 array
        Painted over in place.
    """

    def __init__(self, background: np.ndarray) -> None:
        self.pixels = background
        self.owners = np.zeros(background.shape[:2], np.uint8)

    def paint(self, shapes: Iterable[Shape], owner: int, matrix: np.ndarray, scale: float) -> None:
        """Paint shapes in order.

        Parameters
        ----------
        shapes : iterable of Shape
        owner : int
            Number of the part they belong to, 1..255; 0 is the background.
        matrix : (2, 3) array
            From the units of the shapes to pixels of the finished picture.
        scale : float
            Pixels of the finished picture per unit, for the widths of lines.
        """
        for shape in shapes:
            points = (shape.points @ matrix[:, :2].T + matrix[:, 2]) * OVERSAMPLING
            fixed = np.round(points * 2**_SUBPIXEL).astype(np.int32)
            width = max(1, round(shape.width * scale * OVERSAMPLING))
            for image, value in ((self.pixels, shape.colour), (self.owners, (owner,))):
                if shape.width:
                    cv2.polylines(image, [fixed], False, value, width, cv2.LINE_8, _SUBPIXEL)
                else:
                    cv2.fillPoly(image, [fixed], value, cv2.LINE_8, _SUBPIXEL)

    def picture(self, enlargement: int = 1) -> np.ndarray:
        """The finished picture, (size * enlargement, size * enlargement, 3) uint8; up to `OVERSAMPLING`."""
        return _shrink(self.pixels, enlargement)

    def mask(self, owner: int) -> np.ndarray:
        """Pixels of the finished picture that belong to a part by at least a quarter, (size, size) bool."""
        return _shrink((self.owners == owner).astype(np.uint8) * 252) >= 63


def _shrink(image: np.ndarray, enlargement: int = 1) -> np.ndarray:
    size = image.shape[0] // OVERSAMPLING * enlargement
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)

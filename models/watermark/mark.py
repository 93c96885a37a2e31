"""The watermark: a text in the lower right corner, half transparent, and where it is."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from craft_onnx.errors import InputError

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]
FONT = cv2.FONT_HERSHEY_DUPLEX
BLACK, WHITE = 0, 255


@dataclass(frozen=True)
class Mark:
    """White letters with a dark rim; lengths are shares of the picture's height or width.

    Attributes
    ----------
    text : str
    height : float
        Of a capital letter.
    opacity : float
        1 hides what is below.
    margin : float
        From the right and the lower edge, at least.
    jitter : float
        How much farther it may be from each, at random.
    """

    text: str = "(c) STOCK"
    height: float = 0.084
    opacity: float = 0.8
    margin: float = 0.03
    jitter: float = 0.04


def stamped(picture: Pixels, seed: int, index: int, mark: Mark | None = None) -> tuple[Pixels, Mask]:
    """A picture with the mark, and the pixels that the mark touches.

    Parameters
    ----------
    picture : (H, W, 3) uint8 array
        RGB.
    seed, index : int
        Of the place: the same numbers give the same place.
    mark : Mark, optional

    Returns
    -------
    (H, W, 3) uint8 array
    (H, W) bool array
        All other pixels are as they were.

    Raises
    ------
    InputError
        If the picture is too small for the mark.
    """
    letters = _letters(picture.shape[:2], np.random.default_rng([seed, index]), mark or Mark())
    rim = cv2.dilate(letters, np.ones((3, 3), np.uint8))
    painted = picture.astype(np.float32)
    for layer, colour in ((rim, BLACK), (letters, WHITE)):
        opacity = (mark or Mark()).opacity * layer[..., None].astype(np.float32) / 255
        painted += opacity * (colour - painted)
    return np.rint(painted).astype(np.uint8), rim > 0


def stamped_all(pictures: Sequence[Pixels] | Pixels, seed: int, mark: Mark | None = None) -> tuple[Pixels, Mask]:
    """Pictures (n, H, W, 3) with the mark, each at a place of its own, and its pixels (n, H, W)."""
    pairs = [stamped(picture, seed, index, mark) for index, picture in enumerate(pictures)]
    return np.stack([picture for picture, _ in pairs]), np.stack([mask for _, mask in pairs])


def _letters(size: tuple[int, int], rng: np.random.Generator, mark: Mark) -> Pixels:
    """The opacity of the letters, 0..255, in a picture of a size."""
    height, width = size
    thickness = max(1, round(height / 150))
    scale = cv2.getFontScaleFromHeight(FONT, max(1, int(mark.height * height)), thickness)
    (length, tall), below = cv2.getTextSize(mark.text, FONT, scale, thickness)
    away = mark.margin + mark.jitter * rng.random(2)
    left, bottom = int(width * (1 - away[0])) - length, int(height * (1 - away[1])) - below
    if left < 1 or bottom - tall < 1:
        raise InputError(
            f"The mark {mark.text!r} does not fit into a picture of {size} pixels.", "Take larger pictures."
        )
    layer = np.zeros(size, np.uint8)
    return np.asarray(cv2.putText(layer, mark.text, (left, bottom), FONT, scale, 255, thickness, cv2.LINE_AA))

"""Attribution maps on pictures: heat for maps without signs, two colours for maps with them."""

from collections.abc import Sequence

import cv2
import numpy as np

from craft_onnx.show.overlay import contact_sheet, fitted

# For and against: Okabe and Ito's vermilion and blue, which everyone tells apart.
FOR, AGAINST = (213, 94, 0), (0, 114, 178)
# A single pixel of a gradient may be ten times as large as the next: it must not be all that is seen.
FULL_PERCENTILE = 99.5
NOTHING = 0.1
SMOOTH = 0.01


def attribution_overlay(
    picture: np.ndarray, values: np.ndarray, relative: bool = False, smooth: float = SMOOTH, alpha: float = 0.85
) -> np.ndarray:
    """A map on a picture in shades of grey.

    A map without signs is shown as heat, from nothing to yellow; one with signs in two colours, vermilion for and blue
    against, on the same scale. The colour is full at the 99.5th percentile of the absolute values. Negative values
    below a tenth of the largest are what an interpolation or an estimate leaves of zero, and are not shown.

    Parameters
    ----------
    picture : ndarray
        (H, W, 3) uint8 RGB.
    values : ndarray
        (H', W') over the whole picture, in any raster.
    relative : bool
        Zero means nothing: the map is shown as heat from its least to its largest value.
    smooth : float
        Standard deviation of a blur of the map, as a share of its shorter side: single pixels of a gradient would not
        be seen, and cancel in a smaller picture.
    alpha : float
        Opacity of the full colour.

    Returns
    -------
    ndarray
        (H, W, 3) uint8 RGB.
    """
    values = np.asarray(values, np.float32)
    if relative:
        values = values - values.min()
    scaled = _to_full(_over(smoothed(values, smooth), picture.shape[:2]))
    if values.min() < -NOTHING * values.max():
        return _signed(picture, scaled, alpha)
    return _heat(picture, np.maximum(scaled, 0), alpha)


def attribution_sheet(
    picture: np.ndarray, overlays: Sequence[np.ndarray], labels: Sequence[str], columns: int = 4, side: int = 256
) -> np.ndarray:
    """A picture and overlays of it side by side, each with a label below.

    Parameters
    ----------
    picture : ndarray
        (H, W, 3) uint8 RGB, shown first.
    overlays : sequence of ndarray
        Of the same proportions.
    labels : sequence of str
        One for the picture and one for each overlay; OpenCV writes ASCII only.
    columns : int
        In a row.
    side : int
        Of the longer side of each, pixels.

    Returns
    -------
    ndarray
        (height, width, 3) uint8 RGB.
    """
    scale = side / max(picture.shape[:2])
    size = max(1, round(picture.shape[0] * scale)), max(1, round(picture.shape[1] * scale))
    tiles = [
        np.vstack([fitted(one, size), _label(label, size[1])])
        for one, label in zip([picture, *overlays], labels, strict=True)
    ]
    return contact_sheet(tiles, columns, tiles[0].shape[:2], gap=8)


def smoothed(values: np.ndarray, share: float = SMOOTH) -> np.ndarray:
    """A map (H, W) after a Gaussian blur whose standard deviation is a share of its shorter side."""
    sigma = share * min(values.shape)
    return cv2.GaussianBlur(values, (0, 0), sigma) if sigma > 0.3 else values


def _over(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A map in the raster of a picture."""
    shrinks = values.shape[0] > size[0] or values.shape[1] > size[1]
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(values, size[::-1], interpolation=interpolation)


def _to_full(values: np.ndarray) -> np.ndarray:
    """From -1 to 1, reached at the percentile; zeros for a map of zeros."""
    strengths = np.abs(values)
    full = np.percentile(strengths, FULL_PERCENTILE) or strengths.max()
    return np.clip(values / full, -1, 1) if full > 0 else np.zeros_like(values)


def _heat(picture: np.ndarray, scaled: np.ndarray, alpha: float) -> np.ndarray:
    ramp = cv2.applyColorMap(np.rint(255 * scaled).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    return _blended(_grey(picture), ramp, alpha * scaled)


def _signed(picture: np.ndarray, scaled: np.ndarray, alpha: float) -> np.ndarray:
    """Two colours on a pale picture: on a dark one, blue would not be seen."""
    pale = 0.4 * _grey(picture) + 0.6 * 255
    colours = np.where(scaled[..., None] > 0, np.array(FOR, np.float32), np.array(AGAINST, np.float32))
    return _blended(pale, colours, alpha * np.abs(scaled))


def _grey(picture: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB).astype(np.float32)


def _blended(below: np.ndarray, above: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    return np.rint(below + opacity[..., None] * (above - below)).astype(np.uint8)


def _label(text: str, width: int) -> np.ndarray:
    """A white strip with a text, as large as fits."""
    strip = np.full((24, width, 3), 255, np.uint8)
    ascii_text = text.encode("ascii", "replace").decode()
    (full, _), _ = cv2.getTextSize(ascii_text, cv2.FONT_HERSHEY_SIMPLEX, 1.0, 1)
    scale = min(0.5, 0.96 * width / max(full, 1))
    origin = round((width - scale * full) / 2), 17
    return cv2.putText(strip, ascii_text, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, (20, 20, 20), 1, cv2.LINE_AA)

"""Concept maps on pictures, drawn with NumPy and OpenCV alone."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from craft_onnx.show.colours import readable_on

WHITE = (255, 255, 255)


def concept_overlay(
    picture: np.ndarray,
    maps: np.ndarray,
    order: Sequence[int] | np.ndarray,
    colours: np.ndarray,
    filter_percentile: float = 90,
    clip_percentile: float | None = 10,
    alpha: float = 0.65,
    full: np.ndarray | None = None,
) -> np.ndarray:
    """Concepts on a picture, each in its colour where it is strongest, the most important one on top.

    Parameters
    ----------
    picture : ndarray
        (H, W, 3) uint8 RGB.
    maps : ndarray
        (H', W', k) concept maps that cover the whole picture, in any raster.
    order : sequence of int
        Concepts to draw, the most important one first.
    colours : ndarray
        (k, 3) uint8 RGB, colour of every concept.
    filter_percentile, clip_percentile : float
        See `strength`.
    alpha : float
        Opacity where a concept is strongest.
    full : ndarray, optional
        (k,) value of every concept at which it is drawn at full strength; concepts that stay below it in this picture
        are fainter. By default each is scaled to this picture, so that even a trace of it is drawn fully.

    Returns
    -------
    ndarray
        (H, W, 3) uint8 RGB.
    """
    drawn = picture.astype(np.float32)
    for concept in reversed(list(order)):
        opacity = alpha * strength(maps[..., concept], picture.shape[:2], filter_percentile, clip_percentile)
        if full is not None:
            opacity *= min(1.0, float(maps[..., concept].max()) / max(float(full[concept]), 1e-12))
        drawn += opacity[..., None] * (colours[concept].astype(np.float32) - drawn)
    return np.rint(drawn).astype(np.uint8)


def strength(
    heat: np.ndarray, size: tuple[int, int], filter_percentile: float = 90, clip_percentile: float | None = 10
) -> np.ndarray:
    """How strongly a map is drawn at every pixel of a picture.

    Values below the filter percentile are dropped, the rest is resized to the picture (bicubic), clipped to the
    percentiles (clip, 100 - clip) and brought to 0..1. Xplique takes these percentiles over the whole picture, where a
    concept on less than a tenth of it turns into a flat patch or vanishes; here they are those of what is left of it.

    Parameters
    ----------
    heat : ndarray
        (H', W') non-negative.
    size : (int, int)
        Height and width of the picture.
    filter_percentile : float
        0 drops nothing.
    clip_percentile : float, optional
        None or 0 clips nothing.

    Returns
    -------
    ndarray
        (H, W) float32 from 0 to 1; all 0 for a map without any positive value.
    """
    heat = np.maximum(np.asarray(heat, np.float32), 0)
    kept = np.where(heat >= np.percentile(heat, filter_percentile), heat, 0)
    enlarged = np.maximum(cv2.resize(kept, size[::-1], interpolation=cv2.INTER_CUBIC), 0)
    if not (visible := enlarged > 0).any():
        return np.zeros(size, np.float32)
    low, high = np.percentile(enlarged[visible], [clip_percentile or 0, 100 - (clip_percentile or 0)])
    return np.clip((enlarged - low) / (high - low), 0, 1) if high > low else visible.astype(np.float32)


def heatmap(picture: np.ndarray, heat: np.ndarray, colour: np.ndarray | None = None, alpha: float = 0.75) -> np.ndarray:
    """One map on a picture in shades of grey: transparent at 0, opaque at its maximum.

    Parameters
    ----------
    picture : ndarray
        (H, W, 3) uint8 RGB.
    heat : ndarray
        (H', W') non-negative, over the whole picture.
    colour : ndarray, optional
        (3,) uint8 RGB; by default from dark violet to yellow (inferno).
    alpha : float
        Opacity at the maximum.

    Returns
    -------
    ndarray
        (H, W, 3) uint8 RGB.
    """
    grey = cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB).astype(np.float32)
    share = strength(heat, picture.shape[:2], filter_percentile=0, clip_percentile=0)
    ramp = cv2.applyColorMap(np.rint(255 * share).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    colours = ramp if colour is None else np.asarray(colour)
    return np.rint(grey + alpha * share[..., None] * (colours - grey)).astype(np.uint8)


def framed(picture: np.ndarray, colour: np.ndarray, width: int | None = None) -> np.ndarray:
    """A picture (H, W, 3) with its border painted, by default a twentieth of the shorter side wide."""
    width = width or max(1, min(picture.shape[:2]) // 20)
    painted = np.empty_like(picture)
    painted[:] = colour
    inside = (slice(width, -width), slice(width, -width))
    painted[inside] = picture[inside]
    return painted


def fitted(picture: np.ndarray, size: tuple[int, int], background: Sequence[int] = WHITE) -> np.ndarray:
    """A picture (H, W, 3) as large as it fits into (height, width), its proportions kept, centred."""
    scale = min(size[0] / picture.shape[0], size[1] / picture.shape[1])
    height, width = (max(1, round(scale * side)) for side in picture.shape[:2])
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    resized = cv2.resize(picture, (width, height), interpolation=interpolation)
    tile = np.full((*size, 3), background, np.uint8)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    tile[top : top + height, left : left + width] = resized
    return tile


def contact_sheet(
    pictures: Sequence[np.ndarray],
    columns: int = 5,
    tile: tuple[int, int] = (160, 160),
    gap: int = 6,
    background: Sequence[int] = WHITE,
) -> np.ndarray:
    """Pictures of any sizes in rows.

    Parameters
    ----------
    pictures : sequence of ndarray
        Each (H, W, 3) uint8 RGB; at least one.
    columns : int
        Pictures in a row.
    tile : (int, int)
        Height and width that each is fitted into, pixels.
    gap : int
        Space between and around them, pixels.
    background : sequence of int
        RGB.

    Returns
    -------
    ndarray
        (height, width, 3) uint8 RGB.
    """
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    step = tile[0] + gap, tile[1] + gap
    sheet = np.full((rows * step[0] + gap, columns * step[1] + gap, 3), background, np.uint8)
    for i, picture in enumerate(pictures):
        top, left = gap + i // columns * step[0], gap + i % columns * step[1]
        sheet[top : top + tile[0], left : left + tile[1]] = fitted(picture, tile, background)
    return sheet


def legend(crops: Sequence[np.ndarray], colours: np.ndarray, labels: Sequence[str], side: int = 96) -> np.ndarray:
    """The best crop of each concept in a frame of its colour, its label below, side by side.

    Parameters
    ----------
    crops : sequence of ndarray
        One (h, w, 3) uint8 RGB a concept.
    colours : ndarray
        (k, 3) uint8 RGB.
    labels : sequence of str
        Names of the concepts; OpenCV writes ASCII only, other characters become "?".
    side : int
        Of a crop in the legend, pixels.

    Returns
    -------
    ndarray
        (side + caption, k * side + gaps, 3) uint8 RGB.
    """
    tiles = [
        np.vstack([framed(fitted(crop, (side, side)), colour), _caption(label, colour, side)])
        for crop, colour, label in zip(crops, colours, labels, strict=True)
    ]
    return contact_sheet(tiles, len(tiles), tiles[0].shape[:2], gap=max(2, side // 16))


def _caption(text: str, colour: np.ndarray, width: int) -> np.ndarray:
    """A strip of the colour with a text as large as fits, up to a fifth of its width high."""
    height = max(12, width // 5)
    strip = np.full((height, width, 3), colour, np.uint8)
    ascii_text = text.encode("ascii", "replace").decode()
    (full_width, full_height), _ = cv2.getTextSize(ascii_text, cv2.FONT_HERSHEY_SIMPLEX, 1.0, 1)
    scale = min(0.5 * height / max(full_height, 1), 0.92 * width / max(full_width, 1))
    origin = round((width - scale * full_width) / 2), round((height + scale * full_height) / 2)
    ink = readable_on(colour).tolist()
    return cv2.putText(strip, ascii_text, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, ink, 1, cv2.LINE_AA)


def write_png(path: str | Path, picture: np.ndarray) -> None:
    """Write (H, W, 3) uint8 RGB as PNG; the file appears whole or not at all. OSError if it cannot be written."""
    path = Path(path)
    data = cv2.imencode(".png", np.ascontiguousarray(picture[..., ::-1]))[1].tobytes()
    handle, staged = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(staged).chmod(0o644)
        os.replace(staged, path)
    except BaseException:
        Path(staged).unlink(missing_ok=True)
        raise

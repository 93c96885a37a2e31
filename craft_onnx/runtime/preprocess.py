"""Pictures into a model's input, maps and crops back into pictures."""

from collections.abc import Iterable, Iterator
from functools import partial

import cv2
import numpy as np

from craft_onnx.description import Preprocessing
from craft_onnx.errors import InputError
from craft_onnx.runtime.lookahead import ahead
from craft_onnx.runtime.resample import bicubic, linear_taps, resample


def preprocess_one(picture: np.ndarray, rule: Preprocessing) -> np.ndarray:
    """A picture as the model's input: resize, centre crop, (x * scale - mean) / std.

    Parameters
    ----------
    picture : ndarray
        (H, W, 3) uint8 RGB of any size.
    rule : Preprocessing
        What the model was trained with. A baked rule only resizes.

    Returns
    -------
    ndarray
        (C, h, w) or (h, w, C) float32; (h, w, 3) uint8 where the rule is baked.
    """
    resized = _crop(resize(picture, _resized(picture.shape[:2], rule), rule.interpolation), rule)
    if rule.baked:
        return np.clip(np.rint(resized), 0, 255).astype(np.uint8)
    x = (_ordered(resized, rule) * np.float32(rule.scale) - np.array(rule.mean, "f4")) / np.array(rule.std, "f4")
    return np.ascontiguousarray(x.transpose(2, 0, 1) if rule.layout == "NCHW" else x)


def preprocess(pictures: Iterable[np.ndarray], rule: Preprocessing, threads: int = 2) -> np.ndarray:
    """Pictures as one array of the model's input.

    Parameters
    ----------
    pictures : iterable of ndarray
        Each (H, W, 3) uint8 RGB, of any size.
    rule : Preprocessing
        What the model was trained with.
    threads : int
        Threads that work at once.

    Returns
    -------
    ndarray
        (N, C, h, w) or (N, h, w, C) float32; (N, h, w, 3) uint8 where the rule is baked.

    Raises
    ------
    InputError
        If there are no pictures.
    """
    rows = list(stream_preprocessed(pictures, rule, threads))
    if not rows:
        raise InputError("No pictures were given.", "Give at least one.")
    return np.stack(rows)


def stream_preprocessed(pictures: Iterable[np.ndarray], rule: Preprocessing, threads: int = 2) -> Iterator[np.ndarray]:
    """Yield pictures one by one as the model's input, prepared ahead in threads; see `preprocess_one`."""
    return ahead(partial(preprocess_one, rule=rule), pictures, threads)


def resize(picture: np.ndarray, size: tuple[int, int], interpolation: str) -> np.ndarray:
    """Resize, with half-pixel centres, without rounding.

    Parameters
    ----------
    picture : ndarray
        (H, W, C).
    size : (int, int)
        New height and width.
    interpolation : str
        "area" averages along the axes that shrink and is bilinear along the others; "bilinear" and "bicubic" (Keys,
        a = -0.5, as TensorFlow and Pillow have it) never average.

    Returns
    -------
    ndarray
        (height, width, C) float32.
    """
    x = picture.astype(np.float32)
    if x.shape[:2] == size:
        return x
    if interpolation == "bicubic":
        return bicubic(x, size)
    if interpolation == "area":
        smaller = min(size[0], x.shape[0]), min(size[1], x.shape[1])
        x = _cv2_resize(x, smaller, cv2.INTER_AREA)
    return _cv2_resize(x, size, cv2.INTER_LINEAR)


def _cv2_resize(x: np.ndarray, size: tuple[int, int], flag: int) -> np.ndarray:
    return x if x.shape[:2] == size else cv2.resize(x, size[::-1], interpolation=flag).reshape(*size, -1)


def _resized(size: tuple[int, int], rule: Preprocessing) -> tuple[int, int]:
    """Height and width before the centre crop; the longer side is rounded down, as torchvision does."""
    if rule.resize_to is None:
        return rule.size
    short = min(size)
    return rule.resize_to * size[0] // short, rule.resize_to * size[1] // short


def _corner(resized: tuple[int, int], rule: Preprocessing) -> tuple[int, int]:
    """Top and left of the centre crop, rounded half to even, as torchvision does."""
    return round((resized[0] - rule.size[0]) / 2), round((resized[1] - rule.size[1]) / 2)


def _crop(x: np.ndarray, rule: Preprocessing) -> np.ndarray:
    top, left = _corner(x.shape[:2], rule)
    return x[top : top + rule.size[0], left : left + rule.size[1]]


def _ordered(x: np.ndarray, rule: Preprocessing) -> np.ndarray:
    """RGB in the model's order of channels."""
    if rule.channel_order == "gray":
        return cv2.cvtColor(np.ascontiguousarray(x), cv2.COLOR_RGB2GRAY)[..., None]
    return x[..., ::-1] if rule.channel_order == "bgr" else x


def to_picture(maps: np.ndarray, rule: Preprocessing, size: tuple[int, int]) -> np.ndarray:
    """A map over the model's input, brought into the picture's own pixels.

    Parameters
    ----------
    maps : ndarray
        (h, w) or (h, w, k) over the whole input, in its pixels or in any other raster (such as a concept map).
    rule : Preprocessing
        How the picture became the input.
    size : (int, int)
        Height and width of the picture.

    Returns
    -------
    ndarray
        (H, W) or (H, W, k) float32, bilinear; zero where the centre crop cut the picture off.
    """
    resized = _resized(size, rule)
    corner = _corner(resized, rule)
    maps = np.asarray(maps, np.float32)
    for axis in (0, 1):
        centres = (np.arange(size[axis]) + 0.5) * resized[axis] / size[axis] - corner[axis]  # in pixels of the input
        positions = centres * maps.shape[axis] / rule.size[axis] - 0.5
        indices, weights = linear_taps(positions, maps.shape[axis])
        weights[(centres < 0) | (centres > rule.size[axis])] = 0
        maps = resample(maps, indices, weights, axis)
    return maps


def to_display(x: np.ndarray, rule: Preprocessing) -> np.ndarray:
    """Model input as RGB to look at: the inverse of the arithmetic of `preprocess_one`.

    Parameters
    ----------
    x : ndarray
        One input or crop of it, (C, h, w) or (h, w, C) as the rule's layout says, or a batch of them; any h and w.
    rule : Preprocessing
        How pictures became the input.

    Returns
    -------
    ndarray
        ([N,] h, w, 3) uint8 RGB.
    """
    x = np.asarray(x)
    if rule.baked:
        return x
    x = np.moveaxis(x, -3, -1) if rule.layout == "NCHW" else x
    x = (x * np.array(rule.std, "f4") + np.array(rule.mean, "f4")) / np.float32(rule.scale)
    x = np.clip(np.rint(x), 0, 255).astype(np.uint8)
    if rule.channel_order == "gray":
        return np.repeat(x, 3, axis=-1)
    return np.ascontiguousarray(x[..., ::-1] if rule.channel_order == "bgr" else x)

"""A picture file as uint8 RGB: limits first, then OpenCV, then upright on a white ground."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from craft_onnx.runtime.headers import Header, is_complete, read_header


def check_file(path: Path, max_pixels: int) -> Header:
    """The header of a picture file within the limit; ValueError or OSError says why there is none."""
    with path.open("rb") as file:
        header = read_header(file)
        check_pixels(header.height, header.width, max_pixels)
        if not is_complete(file, header.format):
            raise ValueError(f"a truncated {header.format}")
    return header


def check_pixels(height: int, width: int, max_pixels: int) -> None:
    """ValueError if a picture has more pixels than the limit."""
    if height * width > max_pixels:
        raise ValueError(f"{width}x{height} pixels, the limit is {max_pixels}")


def decode_file(path: Path, max_pixels: int) -> np.ndarray:
    """Decode a picture file.

    Parameters
    ----------
    path : Path
        A PNG, JPEG, WebP, BMP, GIF (its first frame) or TIFF (its first page).
    max_pixels : int
        Limit on height * width, checked on the header.

    Returns
    -------
    ndarray
        (H, W, 3) uint8 RGB, upright (EXIF orientation applied), alpha laid on white, 16 bits scaled to 8.

    Raises
    ------
    ValueError, OSError
        The reason why the file cannot be read.
    """
    header = check_file(path, max_pixels)
    data = path.read_bytes()
    pixels = _decode(data, header)
    if pixels.ndim == 3:
        pixels = pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]
    # libtiff multiplies the colours of 8-bit pictures by their alpha.
    premultiplied = header.format == "tiff" and pixels.dtype == np.uint8
    return _upright(to_rgb8(pixels, premultiplied), header.orientation)


def to_rgb8(pixels: np.ndarray, premultiplied: bool = False) -> np.ndarray:
    """Grey (H, W) or (H, W, 1), RGB or RGBA, uint8 or uint16, as uint8 RGB (H, W, 3); ValueError for other types."""
    if pixels.dtype == np.uint16:
        pixels = np.rint(pixels / np.float32(257)).astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise ValueError(f"pixels of type {pixels.dtype}, not uint8 or uint16")
    if pixels.ndim == 2 or pixels.shape[2] == 1:
        return cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_GRAY2RGB)
    return _on_white(pixels, premultiplied) if pixels.shape[2] == 4 else np.ascontiguousarray(pixels)


def _on_white(pixels: np.ndarray, premultiplied: bool) -> np.ndarray:
    opacity = pixels[..., 3:].astype(np.float32) / 255
    colours = pixels[..., :3] * (1 if premultiplied else opacity)
    return np.rint(np.minimum(colours + 255 * (1 - opacity), 255)).astype(np.uint8)


def _decode(data: bytes, header: Header) -> np.ndarray:
    """OpenCV's own channels (BGR), with alpha and 16 bits where the file has them."""
    colour = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        with _quiet():
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED if header.alpha else colour)
    except cv2.error as error:
        raise ValueError(f"a {header.format} that OpenCV cannot decode ({error.err})") from error
    if pixels is None:
        raise ValueError(f"a damaged {header.format}, or one that OpenCV cannot decode")
    return pixels


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undo what EXIF orientation says: 5 to 8 are stored transposed, then there are flips."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


_quiet_lock = threading.Lock()
_quiet_depth = 0
_loud_level = 0


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep OpenCV from writing to stderr what an exception says anyway, in any number of threads."""
    global _quiet_depth, _loud_level
    with _quiet_lock:
        _quiet_depth += 1
        if _quiet_depth == 1:
            _loud_level = cv2.utils.logging.setLogLevel(0)
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_depth -= 1
            if _quiet_depth == 0:
                cv2.utils.logging.setLogLevel(_loud_level)

"""Pictures of a page, as files beside it."""

from pathlib import Path

import cv2
import numpy as np

from craft_onnx.errors import InputError


class ImageFolder:
    """Writes uint8 RGB pictures as JPEG into `images/` beside a page.

    Parameters
    ----------
    folder : Path
        Of the page.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "images"
        self.folder.mkdir(parents=True, exist_ok=True)

    def add(self, name: str, picture: np.ndarray, longest: int) -> tuple[str, int, int]:
        """Write a picture.

        Parameters
        ----------
        name : str
            Of the file without its extension: letters, digits and hyphens, chosen by the page and not by a user.
        picture : ndarray
            (H, W, 3) uint8 RGB.
        longest : int
            The longer side is shrunk to this many pixels, where it is longer.

        Returns
        -------
        (str, int, int)
            Path relative to the page, width and height.

        Raises
        ------
        InputError
            If the array is no such picture.
        """
        if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
            raise InputError(f"{name} is a {picture.dtype} array {picture.shape}.", "Give (H, W, 3) uint8 RGB.")
        picture = shrunk(picture, longest)
        quality = [cv2.IMWRITE_JPEG_QUALITY, 90]
        data = cv2.imencode(".jpg", np.ascontiguousarray(picture[..., ::-1]), quality)[1]
        (self.folder / f"{name}.jpg").write_bytes(data.tobytes())
        return f"images/{name}.jpg", picture.shape[1], picture.shape[0]


def shrunk(picture: np.ndarray, longest: int | None) -> np.ndarray:
    """A picture (H, W, 3) whose longer side has at most so many pixels; None leaves it as it is."""
    scale = 1.0 if longest is None else longest / max(picture.shape[:2])
    if scale >= 1:
        return picture
    size = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)

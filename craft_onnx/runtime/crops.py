"""Square crops of images: where they lie, the crops themselves, and a stream of them at the model's input size."""

import operator
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

import cv2
import numpy as np

from craft_onnx.description import Layout
from craft_onnx.errors import InputError
from craft_onnx.runtime.lookahead import ahead
from craft_onnx.runtime.resample import bicubic

Interpolation = Literal["bilinear", "bicubic"]
_CHUNK = 8


def grid_corners(height: int, width: int, patch: int) -> np.ndarray:
    """Top left corners of the regular grid of CRAFT: stride int(0.8 * patch), no padding, row-major.

    Parameters
    ----------
    height, width : int
        Of the image, pixels.
    patch : int
        Side of a crop, pixels.

    Returns
    -------
    ndarray
        (m, 2) int, y and x; m = (floor((height - patch) / stride) + 1) * (floor((width - patch) / stride) + 1).

    Raises
    ------
    InputError
        If the patch is larger than the image, or not positive.
    """
    _check_patch(height, width, patch)
    stride = max(1, patch * 4 // 5)  # int(0.8 * patch), without its rounding
    ys, xs = np.meshgrid(
        np.arange(0, height - patch + 1, stride), np.arange(0, width - patch + 1, stride), indexing="ij"
    )
    return np.stack([ys.ravel(), xs.ravel()], axis=1)


def random_corners(height: int, width: int, patch: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Top left corners (count, 2), y and x, drawn uniformly with replacement; InputError as in `grid_corners`."""
    _check_patch(height, width, patch)
    return rng.integers(0, [height - patch + 1, width - patch + 1], size=(count, 2))


def _check_patch(height: int, width: int, patch: int) -> None:
    if patch < 1:
        raise InputError(f"The patch size is {patch}.", "Give a positive number of pixels.")
    if patch > min(height, width):
        raise InputError(
            f"The patch size {patch} is larger than the images ({height}x{width} pixels).",
            f"Give a patch size of at most {min(height, width)}.",
        )


class Crops(Sequence[np.ndarray]):
    """Square crops of images, cut when they are asked for; image by image, in the order of their corners.

    An index gives one crop, a slice, a list of indices or a mask an array of them; `numpy.asarray(crops)` gives all.

    Parameters
    ----------
    images : array or sequence
        (N, C, H, W) or (N, H, W, C); or a sequence that makes one such image at a time, all of one size.
    corners : ndarray
        (m, 2), the same for every image, or (N, m, 2): y and x.
    patch_size : int
        Side of a crop, pixels.
    layout : "NCHW" or "NHWC"
        Axes of the images, and of the crops.
    """

    def __init__(self, images: Any, corners: np.ndarray, patch_size: int, layout: Layout = "NCHW") -> None:
        self.images = images
        self.corners = np.broadcast_to(corners, (len(images), *np.shape(corners)[-2:]))
        self.patch_size = patch_size
        self.layout = layout
        self._image_shape, self._dtype = image_format(images)

    @classmethod
    def grid(cls, images: Any, patch_size: int, layout: Layout = "NCHW") -> "Crops":
        """The regular grid, see `grid_corners`."""
        return cls(images, grid_corners(*_size(images, layout), patch_size), patch_size, layout)

    @classmethod
    def random(
        cls, images: Any, patch_size: int, layout: Layout = "NCHW", per_image: int = 10, random_state: int = 0
    ) -> "Crops":
        """The paper's random crops, other ones in every image; the same seed gives the same crops."""
        height, width = _size(images, layout)
        count = len(images) * per_image
        corners = random_corners(height, width, patch_size, count, np.random.default_rng(random_state))
        return cls(images, corners.reshape(len(images), per_image, 2), patch_size, layout)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(n, C, patch, patch) or (n, patch, patch, C)."""
        n, patch = len(self), self.patch_size
        channels = self._image_shape[0 if self.layout == "NCHW" else -1]
        return (n, channels, patch, patch) if self.layout == "NCHW" else (n, patch, patch, channels)

    @property
    def dtype(self) -> np.dtype:
        """Type of the pixels."""
        return self._dtype

    def __len__(self) -> int:
        return self.corners.shape[0] * self.corners.shape[1]

    def origin(self, index: int) -> tuple[int, int, int]:
        """Where a crop comes from: index of the image, top and left, pixels."""
        image, which = divmod(range(len(self))[index], self.corners.shape[1])
        top, left = self.corners[image, which]
        return image, int(top), int(left)

    def places(self) -> Iterator[tuple[int, np.ndarray]]:
        """Index of every image with crops, in order, and the corners (m, 2) of its crops."""
        return enumerate(self.corners)

    def select(self, indices: Any) -> "Crops":
        """Some of the crops, as lazy as these; `indices` ascend."""
        return _SelectedCrops(self, np.asarray(indices, np.intp))

    def __getitem__(self, key: Any) -> np.ndarray:  # type: ignore[override] # a slice is an array, as numpy's is
        if isinstance(key, slice) or np.ndim(key):
            return self._stack(np.arange(len(self))[key if isinstance(key, slice) or len(key) else []])
        image, top, left = self.origin(operator.index(key))
        return np.array(self._cut(np.asarray(self.images[image]), top, left))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("Crops are cut when they are asked for: there is no array of them without a copy.")
        return self._stack(np.arange(len(self))).astype(dtype or self.dtype, copy=False)

    def _stack(self, indices: np.ndarray) -> np.ndarray:
        """The crops at indices; an image is made once for all of its crops that follow each other."""
        crops = np.empty((len(indices), *self.shape[1:]), self.dtype)
        current, pixels = -1, np.empty(0)
        for row, index in enumerate(indices):
            image, top, left = self.origin(int(index))
            if image != current:
                current, pixels = image, np.asarray(self.images[image])
            crops[row] = self._cut(pixels, top, left)
        return crops

    def _cut(self, image: np.ndarray, top: int, left: int) -> np.ndarray:
        rows, columns = slice(top, top + self.patch_size), slice(left, left + self.patch_size)
        return image[:, rows, columns] if self.layout == "NCHW" else image[rows, columns]


class _SelectedCrops(Crops):
    """Some crops of others: as many of an image as there are indices of its crops."""

    def __init__(self, crops: Crops, indices: np.ndarray) -> None:
        self.images, self.patch_size, self.layout = crops.images, crops.patch_size, crops.layout
        self._image_shape, self._dtype = crops._image_shape, crops._dtype
        self._origins = np.array([crops.origin(int(i)) for i in indices], np.intp).reshape(-1, 3)

    def __len__(self) -> int:
        return len(self._origins)

    def origin(self, index: int) -> tuple[int, int, int]:
        image, top, left = self._origins[range(len(self))[index]]
        return int(image), int(top), int(left)

    def places(self) -> Iterator[tuple[int, np.ndarray]]:
        for image in np.unique(self._origins[:, 0]):
            yield int(image), self._origins[self._origins[:, 0] == image, 1:]


class ResizedCrops(Sequence[np.ndarray]):
    """Crops at the model's input size, each made when it is asked for: images in their own right.

    Parameters
    ----------
    crops : Crops
        The crops.
    size : (int, int)
        Height and width of the model's input, pixels.
    interpolation : "bilinear" or "bicubic"
        As in `stream_crops`.
    """

    def __init__(self, crops: Crops, size: tuple[int, int], interpolation: Interpolation = "bilinear") -> None:
        self.crops = crops
        self.size = size
        self.interpolation = interpolation

    def __len__(self) -> int:
        return len(self.crops)

    def __getitem__(self, index: int) -> np.ndarray:  # type: ignore[override] # one image at a time
        return _resize(self.crops[index], self.size, self.crops.layout, self.interpolation)


def image_format(images: Any) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of one image of an array or a sequence; InputError if there is none, or it has not three axes."""
    if not len(images):
        raise InputError("There are no images.", "Give at least one.")
    first = np.asarray(images[0])
    if first.ndim != 3:
        remedy = "Give (N, C, H, W) or (N, H, W, C), as the model's layout says."
        raise InputError(f"An image has shape {first.shape}, three axes are needed.", remedy)
    return first.shape, first.dtype


def _size(images: Any, layout: Layout) -> tuple[int, int]:
    shape, _ = image_format(images)
    return (shape[1], shape[2]) if layout == "NCHW" else (shape[0], shape[1])


def stream_crops(
    crops: Crops,
    size: tuple[int, int],
    batch_size: int,
    threads: int = 2,
    interpolation: Interpolation = "bilinear",
) -> Iterator[np.ndarray]:
    """Yield batches of crops at the model's input size, cut and resized in threads a little ahead of the consumer.

    Parameters
    ----------
    crops : Crops
        All of them are taken, in order.
    size : (int, int)
        Height and width of the model's input, pixels.
    batch_size : int
        Crops in a batch; the last one may be smaller.
    threads : int
        Threads that work at once; memory holds a few images and a few batches, whatever the number of crops.
    interpolation : "bilinear" or "bicubic"
        Half-pixel centres, no antialias; bicubic is Keys' with a = -0.5, as TensorFlow has it.

    Yields
    ------
    ndarray
        (batch_size, C, *size) or (batch_size, *size, C), of the crops' type.
    """

    def resized(task: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        image, corners = task
        return np.stack([_resize(crops._cut(image, *corner), size, crops.layout, interpolation) for corner in corners])

    images = ahead(lambda place: (np.asarray(crops.images[place[0]]), place[1]), crops.places(), threads)
    tasks = (
        (image, corners[start : start + _CHUNK])
        for image, corners in images
        for start in range(0, len(corners), _CHUNK)
    )
    return _rebatch(ahead(resized, tasks, threads, 2 * threads), batch_size)


def _rebatch(pieces: Iterable[np.ndarray], batch_size: int) -> Iterator[np.ndarray]:
    """The rows of all pieces, `batch_size` at a time."""
    waiting: list[np.ndarray] = []
    for piece in pieces:
        waiting.append(piece)
        while sum(map(len, waiting)) >= batch_size:
            rows = np.concatenate(waiting)
            waiting = [rows[batch_size:]]
            yield rows[:batch_size]
    if waiting and len(rest := np.concatenate(waiting)):
        yield rest


def _resize(crop: np.ndarray, size: tuple[int, int], layout: Layout, interpolation: Interpolation) -> np.ndarray:
    """One crop at another size, of its own type and layout, any number of channels."""
    pixels = np.moveaxis(crop, 0, -1) if layout == "NCHW" else crop
    pixels = np.ascontiguousarray(pixels, np.float32)
    resized = bicubic(pixels, size) if interpolation == "bicubic" else _bilinear(pixels, size)
    if crop.dtype == np.uint8:
        resized = np.clip(np.rint(resized), 0, 255)
    resized = resized.astype(crop.dtype, copy=False)
    return np.moveaxis(resized, -1, 0) if layout == "NCHW" else resized


def _bilinear(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """OpenCV resizes four channels at a time in every version, and drops an axis of one."""
    parts = [pixels[..., i : i + 4] for i in range(0, pixels.shape[-1], 4)]
    return np.concatenate([cv2.resize(part, size[::-1]).reshape(*size, -1) for part in parts], axis=-1)

"""Photographs of some classes, from a folder of folders, in the pixels of a model's input."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from craft_onnx.description import Preprocessing
from craft_onnx.errors import InputError
from craft_onnx.runtime.pictures import Pictures, open_pictures
from craft_onnx.runtime.preprocess import preprocess, preprocess_one

FEWEST = 10  # of a class
HELD_OUT = 0.2


@dataclass(frozen=True)
class Photographs:
    """Pictures and their classes.

    Attributes
    ----------
    names : tuple of str
        Of the classes.
    pixels : (n, h, w, 3) uint8 array
        RGB, as large as the model's input.
    labels : (n,) int array
        Indices into `names`.
    training : (n,) bool array
        The others are held out.
    """

    names: tuple[str, ...]
    pixels: NDArray[np.uint8]
    labels: NDArray[np.intp]
    training: NDArray[np.bool_]

    def of(self, class_id: int, training: bool = True) -> NDArray[np.intp]:
        """The pictures of a class, in training or held out."""
        return np.flatnonzero((self.labels == class_id) & (self.training == training))

    def beside(self, class_id: int, training: bool = True) -> NDArray[np.intp]:
        """The pictures of all other classes, in training or held out."""
        return np.flatnonzero((self.labels != class_id) & (self.training == training))


def read(folder: Path, rule: Preprocessing, most: int, seed: int = 0) -> Photographs:
    """Read a folder with one folder of pictures for each class.

    Parameters
    ----------
    folder : Path
        With two folders or more.
    rule : Preprocessing
        Pictures are resized and cropped as it says.
    most : int
        Pictures of a class, at most.
    seed : int
        Of which pictures are taken, and which of them are held out.

    Raises
    ------
    InputError
        If there are fewer than two classes, or a class has fewer than 10 pictures.
    """
    folders = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    if len(folders) < 2:
        raise InputError(
            f"{folder} has {len(folders)} folders of pictures.", "Give a folder with one folder for each class."
        )
    rng = np.random.default_rng(seed)
    classes = [np.stack(list(_resized(_some(path, most, rng), rule))) for path in folders]
    counts = [len(pixels) for pixels in classes]
    return Photographs(
        names=tuple(path.name for path in folders),
        pixels=np.concatenate(classes),
        labels=np.repeat(np.arange(len(folders)), counts),
        training=np.concatenate([np.arange(count) >= round(HELD_OUT * count) for count in counts]),
    )


def model_input(pixels: NDArray[np.uint8], rule: Preprocessing) -> NDArray[np.floating]:
    """Pictures that are as large as the model's input, (n, h, w, 3) uint8, as this input."""
    return preprocess(pixels, replace(rule, resize_to=None))


def _some(folder: Path, most: int, rng: np.random.Generator) -> Pictures:
    pictures = open_pictures(folder)
    if len(pictures) < FEWEST:
        raise InputError(f"{folder} has {len(pictures)} pictures.", f"Give {FEWEST} or more of each class.")
    return pictures[rng.permutation(len(pictures))[:most]]


def _resized(pictures: Pictures, rule: Preprocessing) -> Iterator[NDArray[np.uint8]]:
    bare = replace(rule, baked=True, layout="NHWC")
    return (preprocess_one(picture, bare) for picture in pictures)

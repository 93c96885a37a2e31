"""Images and crops as pictures to look at."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from craft_onnx.description import Layout, Preprocessing
from craft_onnx.runtime.pictures import open_pictures
from craft_onnx.runtime.preprocess import to_display


def displayed(image: NDArray[np.generic], layout: Layout, rule: Preprocessing | None) -> NDArray[np.uint8]:
    """A preprocessed image or crop as (h, w, 3) uint8 RGB.

    Where the preprocessing is known its arithmetic is inverted, otherwise the image is scaled to 0..255 by its own
    extremes, as Xplique does.

    Parameters
    ----------
    image : array (C, h, w) or (h, w, C)
        Of 1 or 3 channels; of others, their mean is shown.
    layout : "NCHW" or "NHWC"
        Axes of the image.
    rule : Preprocessing, optional
        How pictures became images.
    """
    if rule is not None:
        return to_display(image, rule)
    pixels = np.asarray(np.moveaxis(image, 0, -1) if layout == "NCHW" else image, np.float32)
    low, high = float(pixels.min()), float(pixels.max())
    pixels = 255 * (pixels - low) / max(high - low, 1e-12)
    if pixels.shape[-1] != 3:
        pixels = np.repeat(pixels.mean(axis=-1, keepdims=True), 3, axis=-1)
    return np.rint(pixels).astype(np.uint8)


class StoredCrops:
    """The best crops of every concept, as a bundle keeps them: one PNG a concept, its crops side by side.

    Parameters
    ----------
    strips : sequence of Path
        One PNG a concept.
    patch_size : int
        Side of a crop, pixels.
    """

    def __init__(self, strips: Sequence[Path], patch_size: int) -> None:
        self.strips = strips
        self.patch_size = patch_size

    def best(self, concept: int) -> list[NDArray[np.uint8]]:
        """Crops (patch, patch, 3) uint8 RGB of a concept, the best first."""
        strip = open_pictures([self.strips[concept]])[0]
        return [strip[:, x : x + self.patch_size] for x in range(0, strip.shape[1], self.patch_size)]

"""Concepts of all positions of whole images, in place of crops: every row of A is one position of a feature map.

As in Xplique 2's HolisticCraft, whose factorisation has no crops. To be looked at, a position is the patch of the image
around its centre.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from craft_onnx.concepts.halves import batches_of, sides_of
from craft_onnx.concepts.importance import ranking
from craft_onnx.concepts.tokens import find_tokens
from craft_onnx.description import Layout
from craft_onnx.errors import InputError
from craft_onnx.runtime.crops import Crops, grid_corners, image_format

if TYPE_CHECKING:
    from craft_onnx.concepts.extractor import ConceptExtractor

Floats = NDArray[np.floating]


class PositionCrops(Crops):
    """The patches around the positions of a feature map that covers the images, row by row.

    Parameters
    ----------
    images : array or sequence
        (N, C, H, W) or (N, H, W, C).
    positions : (int, int)
        H' and W' of the feature map.
    patch_size : int
        Side of a patch, pixels.
    layout : "NCHW" or "NHWC"
        Axes of the images.
    """

    def __init__(self, images: Any, positions: tuple[int, int], patch_size: int, layout: Layout = "NCHW") -> None:
        shape, _ = image_format(images)
        sides = shape[1:] if layout == "NCHW" else shape[:2]
        super().__init__(images, position_corners(sides, positions, patch_size), patch_size, layout)
        self.positions = positions


def position_corners(sides: tuple[int, ...], positions: tuple[int, ...], patch_size: int) -> NDArray[np.int64]:
    """Top left corners (H' W', 2), y and x, of the patches around positions; moved into the image at its border.

    Parameters
    ----------
    sides : (int, int)
        Height and width of the image, pixels.
    positions : (int, int)
        Height and width of the feature map, which covers the image.
    patch_size : int
        Side of a patch, pixels.

    Raises
    ------
    InputError
        If the patch is larger than the image, or not positive.
    """
    grid_corners(sides[0], sides[1], patch_size)  # which checks the patch
    axes = [
        np.clip(np.rint((np.arange(n) + 0.5) * side / n - patch_size / 2), 0, side - patch_size).astype(np.int64)
        for side, n in zip(sides, positions, strict=True)
    ]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)


def position_crops(craft: "ConceptExtractor", images: Any, layout: Layout) -> PositionCrops:
    """The patches of all positions; how many there are, the first image tells.

    Raises
    ------
    InputError
        If the activations are no feature maps.
    """
    activations = next(craft.halves_.activations(batches_of([images[0]], 1), layout))
    size = craft.halves_.size or sides_of(images[0], layout)
    placed = find_tokens(activations.shape[1:-1], size, craft.prefix_tokens).placed(activations)
    if placed.ndim != 4:
        raise InputError(
            f"Activations of shape {activations.shape} have no positions in a picture.",
            "Cut the model at a feature map or at tokens on a grid, or take crops='grid'.",
        )
    return PositionCrops(images, placed.shape[1:3], craft.patch_size, layout)


def position_activations(
    craft: "ConceptExtractor", crops: PositionCrops, layout: Layout
) -> tuple[Floats, tuple[int, ...]]:
    """A (N H' W', p), image by image and row by row, filled batch by batch; and the shape of all positions."""
    batches = batches_of(crops.images, craft.halves_.batch(craft.batch_size))
    rows, row, positions = np.empty((0, 0), np.float32), 0, crops.positions
    for a in craft._checked(craft.halves_.activations(batches, layout)):
        positions = a.shape[1:-1]
        flat = craft.tokens_of(positions, crops, layout).placed(a).reshape(-1, a.shape[-1])
        if not row:
            rows = np.empty((len(crops), flat.shape[1]), flat.dtype)
        rows[row : row + len(flat)] = flat
        row += len(flat)
    return rows, positions


def best_rows(crops: Crops, coefficients: Floats) -> NDArray[np.intp]:
    """Crops by their coefficients (n,) of a concept, the largest first; of positions, the best one of every image."""
    order = ranking(coefficients)
    if not isinstance(crops, PositionCrops):
        return order
    _, first = np.unique(order // (crops.positions[0] * crops.positions[1]), return_index=True)
    return order[np.sort(first)]

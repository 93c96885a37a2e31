"""Where in the picture the activations at a cut are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from craft_onnx.attribution.tokens import patch_grid, prefix_tokens
from craft_onnx.errors import InputError

Array = NDArray[Any]


@dataclass(frozen=True)
class Grid:
    """Positions of activations, of a feature map or of the tokens of a transformer.

    Attributes
    ----------
    channel_axis : int
        Axis of the channels.
    height, width : int
        Positions over the picture.
    tokens : bool
        The positions are one axis, row after row, rather than two.
    extra : int
        Tokens before those of the patches, such as the class token.
    """

    channel_axis: int
    height: int
    width: int
    tokens: bool = False
    extra: int = 0

    @classmethod
    def of(cls, shape: tuple[int, ...], channel_axis: int, size: tuple[int, int]) -> Grid:
        """The grid of activations of a shape, over a picture of (height, width).

        Raises
        ------
        InputError
            If the activations have no positions, or tokens that are no grid of patches.
        """
        axis = channel_axis % len(shape)
        positions = [length for i, length in enumerate(shape) if i not in (0, axis)]
        if len(positions) == 2:
            return cls(axis, positions[0], positions[1])
        if len(positions) == 1:
            extra = prefix_tokens(positions[0], size)
            if extra is not None and (found := patch_grid(positions[0] - extra, size)):
                return cls(axis, found[0], found[1], True, extra)
        raise InputError(
            f"Activations of shape {shape} are no grid over a picture of {size[0]} x {size[1]} pixels.",
            "Cut at a layer before the pooling, or where the tokens are those of square patches.",
        )

    def maps(self, activations: Array) -> Array:
        """Activations (n, ...) as (n, channels, height, width), without extra tokens."""
        channels_first = np.moveaxis(activations, self.channel_axis, 1)
        if self.tokens:
            channels_first = channels_first[:, :, self.extra :]
        return channels_first.reshape(*channels_first.shape[:2], self.height, self.width)

    def weighted(self, activations: Array, weights: Array) -> Array:
        """Activations (m, ...) times weights (m, height, width) at each position; extra tokens stay as they are."""
        if self.tokens:
            flat = weights.reshape(len(weights), -1)
            weights = np.concatenate([np.ones((len(flat), self.extra), flat.dtype), flat], axis=1)
        return activations * np.expand_dims(weights.astype(activations.dtype), self.channel_axis)

"""Concepts at one position each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from craft_onnx.relevance.concepts import Concept

Array = NDArray[Any]


class OnePosition(Concept):
    """A notion of concepts that lets relevance through at one position of each sample alone.

    Parameters
    ----------
    concept : Concept
        The notion.
    positions : int array (n,)
        The index of the position, for each sample.
    """

    def __init__(self, concept: Concept, positions: Array) -> None:
        self.concept = concept
        self.positions = positions

    def mask(self, ids: Sequence[int], activations: Array) -> Array:
        """The notion's mask at the positions, 0 elsewhere."""
        there = np.zeros((len(activations), int(np.prod(activations.shape[2:]))), activations.dtype)
        there[np.arange(len(activations)), self.positions] = 1
        return self.concept.mask(ids, activations) * there.reshape(-1, 1, *activations.shape[2:])

    def shares(self, relevance: Array, activations: Array | None = None) -> Array:
        """Those of the notion."""
        return self.concept.shares(relevance, activations)

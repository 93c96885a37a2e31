"""The concepts of a Craft as concepts of relevance."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from craft_onnx.attribution.targets import check_range
from craft_onnx.concepts.craft import Craft
from craft_onnx.errors import InputError
from craft_onnx.relevance.concepts import Concept, numbers

Array = NDArray[Any]
EPSILON = 1e-6  # of the largest activation: what keeps the division from zero


class NMFConcept(Concept):
    """The concepts of a concept bank W: of each channel at each position, a concept has the share that it explains.

    Activations are A ~ U W. The relevance of a channel is divided among the concepts as the epsilon rule divides it
    among the terms of a sum, concept k getting U_k W_kc / (U W)_c of channel c.

    Parameters
    ----------
    craft : Craft
        Fitted, at the layer that this is used for.
    """

    def __init__(self, craft: Craft) -> None:
        craft.check_if_fitted()
        self.craft = craft
        self._encoded: tuple[Array, Array] | None = None

    def mask(self, ids: Sequence[int], activations: Array) -> Array:
        """The share (n, channels, ...) of some concepts in the activations; 0 where no concept explains any."""
        chosen, bank = numbers(ids), self.craft.concept_bank_
        check_range(chosen, len(bank), "concept")
        u = self._coefficients(activations)
        share = (u[..., chosen] @ bank[chosen]) / self._explained(u)
        return np.moveaxis(share, -1, 1).astype(activations.dtype)

    def shares(self, relevance: Array, activations: Array | None = None) -> Array:
        """U_k sum_c W_kc R_c / (U W)_c at every position; InputError without activations."""
        if activations is None:
            raise InputError("The shares of NMF concepts depend on the activations.", "Give activations= too.")
        u = self._coefficients(activations)
        carried = np.moveaxis(relevance, 1, -1) / self._explained(u)
        return np.moveaxis(u * (carried @ self.craft.concept_bank_.T), -1, 1)

    def describe(self) -> str:
        """With the hash of the bank."""
        bank = np.ascontiguousarray(self.craft.concept_bank_)
        return f"{type(self).__name__} {hashlib.sha256(bank.tobytes()).hexdigest()}"

    def _coefficients(self, activations: Array) -> Array:
        """U (n, ..., k), kept for the activations that were asked for last: many conditions share them."""
        if self._encoded is None or self._encoded[0] is not activations:
            bank = self.craft.concept_bank_
            if activations.shape[1] != bank.shape[1]:
                raise InputError(
                    f"The layer has {activations.shape[1]} channels, the concepts are of {bank.shape[1]}.",
                    "Use them at the layer where they were fitted.",
                )
            self._encoded = activations, self.craft._encode(np.moveaxis(activations, 1, -1))
        return self._encoded[1]

    def _explained(self, u: Array) -> Array:
        """U W away from zero."""
        explained = u @ self.craft.concept_bank_
        rows = tuple(range(1, explained.ndim))  # each by itself: a row's result does not depend on the others
        floor = EPSILON * np.abs(explained).max(axis=rows, keepdims=True) + np.finfo(np.float32).tiny
        return np.where(explained < 0, explained - floor, explained + floor)

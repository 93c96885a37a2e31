"""A concept as the target of an attribution: how much of it there is, on average over the positions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from craft_onnx.attribution.targets import check_range, of_rows
from craft_onnx.concepts.implicit import nnls_vjp
from craft_onnx.concepts.nnls import nnls

Array = NDArray[Any]
Rows = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class ConceptTarget:
    """The mean of a concept's coefficients over the positions at the cut.

    Differentiated implicitly, see `craft_onnx.concepts.implicit`.

    Parameters
    ----------
    concept_bank : array (k, p)
        W.
    concepts : int or (n,) ints
        The concept, or one for each input.
    channel_axis : int
        Axis of the channels among those of the activations, 1 for (n, channels, h, w).
    ridge : float
        Of the non-negative least squares.
    encode : callable, optional
        From rows of activations (m, p) to coefficients (m, k), by default exact non-negative least squares.
    prefix : int
        Tokens before those of the patches, which do not count.
    """

    concept_bank: Array
    concepts: int | Sequence[int] | NDArray[np.integer]
    channel_axis: int = 1
    ridge: float = 0.0
    encode: Callable[[Array], Array] | None = None
    prefix: int = 0
    of: Literal["activations"] = "activations"

    def value(self, y: Array, rows: Rows) -> Array:
        """The means (m,) of activations (m, ...), in double precision."""
        return self.means(y)[np.arange(len(y)), self._chosen(rows)]

    def means(self, y: Array) -> NDArray[np.float64]:
        """The means (m, k) of all concepts, for activations (m, ...)."""
        return self._coefficients(y).mean(axis=1)

    def cotangent(self, y: Array, rows: Rows) -> Array:
        """The derivative of `value`, an array like `y`; zero where the concept is absent or a token does not count."""
        u = self._coefficients(y)
        weights = np.zeros_like(u)
        weights[np.arange(len(u)), :, self._chosen(rows)] = 1 / u.shape[1]
        k = u.shape[2]
        back = nnls_vjp(self.concept_bank, u.reshape(-1, k), weights.reshape(-1, k), self.ridge)
        result = np.zeros_like(y)
        counted = self._counted(result)
        counted[:] = back.reshape(counted.shape)
        return result

    def _coefficients(self, y: Array) -> NDArray[np.float64]:
        """U (m, positions, k) of activations (m, ...)."""
        activations = self._counted(y)
        a = np.ascontiguousarray(activations).reshape(-1, activations.shape[-1])
        u = self._exact(a) if self.encode is None else np.asarray(self.encode(a), np.float64)
        return u.reshape(len(y), -1, len(self.concept_bank))

    def _counted(self, y: Array) -> Array:
        """A view of what counts of activations, channels last."""
        channels_last = np.moveaxis(y, self.channel_axis, -1)
        return channels_last[:, self.prefix :] if channels_last.ndim == 3 else channels_last

    def _exact(self, a: Array) -> NDArray[np.float64]:
        """By non-negative least squares; rows of zeros, most of those that ReciproCAM masks, are not solved for."""
        u = np.zeros((len(a), len(self.concept_bank)))
        felt = a.any(axis=1)
        u[felt] = nnls(a[felt], self.concept_bank, self.ridge)
        return u

    def _chosen(self, rows: Rows) -> Rows:
        chosen = of_rows(self.concepts, rows, "concept")
        check_range(chosen, len(self.concept_bank), "concept")
        return chosen

"""What counts as a concept of a layer: which share of its relevance goes through each.

Achtibat et al. 2023, "From attribution maps to human-understandable explanations through Concept Relevance
Propagation".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from craft_onnx.attribution.targets import check_range
from craft_onnx.errors import InputError
from craft_onnx.runtime.batches import as_array

Array = NDArray[Any]
Ints = NDArray[np.intp]
MaxTarget = Literal["sum", "max"]
TINY = 1e-10


class Concept:
    """A notion of concepts at a layer; channels come first in all arrays, whatever the model's layout.

    One of your own says what to let through (`mask`) and how much goes through each concept (`shares`); what is built
    on these two is the same for all.
    """

    def mask(self, ids: Sequence[int], activations: Array) -> Array:
        """What relevance at the layer is multiplied by, so that it goes through some concepts alone.

        Parameters
        ----------
        ids : sequence of int
            Numbers of the concepts; of none, nothing goes through.
        activations : array (n, channels, ...)
            Of the layer.

        Returns
        -------
        array
            Broadcasts against the activations.

        Raises
        ------
        InputError
            If there is no such concept.
        """
        raise NotImplementedError

    def shares(self, relevance: Array, activations: Array | None = None) -> Array:
        """The relevance of every concept at every position.

        Parameters
        ----------
        relevance : array (n, channels, ...)
            Of the layer.
        activations : array (n, channels, ...), optional
            Of the layer, for concepts that depend on them.

        Returns
        -------
        array (n, concepts, ...)
            Its sum over the concepts is that of the relevance over the channels, as far as they explain it.
        """
        raise NotImplementedError

    def describe(self) -> str:
        """What tells this notion from others, in the files of what was found with it."""
        return type(self).__name__

    def attribute(
        self,
        relevance: Any,
        mask: Any = None,
        layer_name: str | None = None,
        abs_norm: bool = True,
        activations: Any = None,
    ) -> Array:
        """How relevant each concept is: its relevance over all positions.

        Parameters
        ----------
        relevance : array (n, channels, ...)
            Of the layer.
        mask : array, optional
            Multiplies the relevance.
        layer_name : str, optional
            Not needed by channels; concepts of one's own may tell layers apart by it.
        abs_norm : bool
            Divide by the sum of absolute values over the concepts, per row.
        activations : array (n, channels, ...), optional
            Of the layer, for concepts that depend on them.

        Returns
        -------
        array (n, concepts)
            Relevances.
        """
        relevance = as_array(relevance)
        masked = relevance if mask is None else relevance * as_array(mask)
        summed = _flat(self.shares(masked, None if activations is None else as_array(activations))).sum(axis=-1)
        return _normed(summed) if abs_norm else summed

    def reference_sampling(
        self,
        relevance: Any,
        layer_name: str | None = None,
        max_target: MaxTarget = "sum",
        abs_norm: bool = True,
        activations: Any = None,
    ) -> tuple[Ints, Array, Ints]:
        """For every concept the samples in the order of how relevant, or how active, it is in them.

        Parameters
        ----------
        relevance : array (n, channels, ...)
            Of the layer; or its activations, for references by activation.
        layer_name : str, optional
            As in `attribute`.
        max_target : "sum" or "max"
            What of the positions counts.
        abs_norm : bool
            As in `attribute`.
        activations : array (n, channels, ...), optional
            As in `attribute`.

        Returns
        -------
        samples : int array (n, concepts)
            Rows, the best one first; of equal ones the earlier.
        values : array (n, concepts)
            Their values in that order.
        positions : int array (n, concepts)
            Where each is largest: the index among the positions of the layer.

        Raises
        ------
        InputError
            If there is no such target.
        """
        shares = _flat(self.shares(as_array(relevance), None if activations is None else as_array(activations)))
        values, positions = reached(shares, max_target, abs_norm)
        order = np.argsort(-values, axis=0, kind="stable")
        return order, np.take_along_axis(values, order, axis=0), np.take_along_axis(positions, order, axis=0)


class ChannelConcept(Concept):
    """Every channel is a concept."""

    def mask(self, ids: Sequence[int], activations: Array) -> Array:
        """1 in some channels, 0 in the others: (1, channels, 1, ...)."""
        channels = activations.shape[1]
        chosen = numbers(ids)
        check_range(chosen, channels, "channel")
        mask = np.zeros((1, channels) + (1,) * (activations.ndim - 2), activations.dtype)
        mask[:, chosen] = 1
        return mask

    def shares(self, relevance: Array, activations: Array | None = None) -> Array:
        """The relevance itself."""
        return relevance


def reached(shares: Array, max_target: MaxTarget, abs_norm: bool) -> tuple[Array, Ints]:
    """The value of every concept in every sample, and the position where it is largest.

    Parameters
    ----------
    shares : array (n, concepts, positions)
        Relevance of the concepts.
    max_target, abs_norm
        As in `Concept.reference_sampling`.

    Returns
    -------
    values : array (n, concepts)
    positions : int array (n, concepts)

    Raises
    ------
    InputError
        If there is no such target.
    """
    check_max_target(max_target)
    values = shares.sum(axis=-1) if max_target == "sum" else shares.max(axis=-1)
    return _normed(values) if abs_norm else values, shares.argmax(axis=-1)


def as_concept(given: Any) -> Concept:
    """What is given; InputError where that is no notion of concepts."""
    if not all(callable(getattr(given, method, None)) for method in ("mask", "shares", "describe")):
        raise InputError(f"{given!r} is no Concept.", "Give such as ChannelConcept().")
    concept: Concept = given
    return concept


def check_max_target(max_target: str) -> None:
    """Raise InputError unless it is one."""
    if max_target not in get_args(MaxTarget):
        raise InputError(f"There is no max_target {max_target!r}.", "Take 'sum' or 'max'.")


def numbers(ids: Sequence[int]) -> Ints:
    """A list of numbers of concepts as an array; InputError if it is none."""
    given = np.asarray(ids)
    if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
        raise InputError(f"{ids!r} are no numbers of concepts.", "Give a list of ints, such as [7, 12].")
    return given.astype(np.intp)


def _flat(shares: Array) -> Array:
    """(n, concepts, positions)."""
    return shares.reshape(*shares.shape[:2], -1)


def _normed(values: Array) -> Array:
    return values / (np.abs(values).sum(axis=1, keepdims=True) + TINY)

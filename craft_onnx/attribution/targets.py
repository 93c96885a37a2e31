"""What an attribution explains: a number read from the logits, or from the activations at the cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from craft_onnx.errors import InputError

Array = NDArray[Any]
Tensor = Literal["logits", "activations"]


class Target(Protocol):
    """A number for every input, read from one of the model's tensors.

    Attributes
    ----------
    of : "logits" or "activations"
        The tensor that it is read from.
    """

    @property
    def of(self) -> Tensor:
        """The tensor that the number is read from."""

    def value(self, y: Array, rows: NDArray[np.intp]) -> Array:
        """The numbers, one for each of m rows of the tensor.

        Parameters
        ----------
        y : array (m, ...)
            Rows of the tensor; several of them may stem from one input.
        rows : int array (m,)
            The input that each stems from.

        Returns
        -------
        array (m,)
            What is explained.
        """

    def cotangent(self, y: Array, rows: NDArray[np.intp]) -> Array:
        """Their derivatives with respect to `y`: an array like `y`."""


@dataclass(frozen=True)
class Logit:
    """The logit of a class.

    Parameters
    ----------
    class_ids : int or (n,) ints
        The class, or one for each input.
    """

    class_ids: int | Sequence[int] | NDArray[np.integer]
    of: Literal["logits"] = "logits"

    def value(self, y: Array, rows: NDArray[np.intp]) -> Array:
        """The logits (m,) of rows (m, classes)."""
        return y[np.arange(len(y)), self._chosen(y, rows)]

    def cotangent(self, y: Array, rows: NDArray[np.intp]) -> Array:
        """One at the class, zero elsewhere."""
        one_hot = np.zeros_like(y)
        one_hot[np.arange(len(y)), self._chosen(y, rows)] = 1
        return one_hot

    def _chosen(self, y: Array, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        chosen = of_rows(self.class_ids, rows, "class")
        check_range(chosen, y.shape[1], "class")
        return chosen


@dataclass(frozen=True)
class Probability:
    """The probability of a class: the softmax of the logits.

    Parameters
    ----------
    class_ids : int or (n,) ints
        The class, or one for each input.
    """

    class_ids: int | Sequence[int] | NDArray[np.integer]
    of: Literal["logits"] = "logits"

    def value(self, y: Array, rows: NDArray[np.intp]) -> Array:
        """The probabilities (m,) of rows of logits (m, classes)."""
        return Logit(self.class_ids).value(_softmax(y), rows)

    def cotangent(self, y: Array, rows: NDArray[np.intp]) -> Array:
        """p_c (1 - p) at the class c, -p_c p elsewhere."""
        one_hot = Logit(self.class_ids).cotangent(y, rows)
        return self.value(y, rows)[:, None] * (one_hot - _softmax(y))


@dataclass(frozen=True)
class LinearCombination:
    """A weighted sum of logits, such as the difference of two.

    Parameters
    ----------
    weights : (classes,) or (n, classes) array
        The same for all inputs, or a row for each.
    """

    weights: Array | Sequence[float]
    of: Literal["logits"] = "logits"

    def value(self, y: Array, rows: NDArray[np.intp]) -> Array:
        """The sums (m,) over rows (m, classes)."""
        return (y * self.cotangent(y, rows)).sum(axis=1)

    def cotangent(self, y: Array, rows: NDArray[np.intp]) -> Array:
        """The weights."""
        weights = np.asarray(self.weights, y.dtype)
        if weights.ndim not in (1, 2) or weights.shape[-1] != y.shape[1]:
            raise InputError(
                f"Weights of shape {weights.shape} do not fit {y.shape[1]} logits.",
                f"Give ({y.shape[1]},) numbers, or a row of them for each input.",
            )
        return np.array(np.broadcast_to(weights if weights.ndim == 1 else _row(weights, rows, "weights"), y.shape))


@dataclass(frozen=True)
class Channel:
    """The mean of a channel over its positions, at the cut.

    Parameters
    ----------
    index : int or (n,) ints
        The channel, or one for each input.
    of : "activations" or "logits"
        The tensor.
    channel_axis : int
        Axis of the channels, 1 for (n, channels, h, w).
    """

    index: int | Sequence[int] | NDArray[np.integer]
    of: Tensor = "activations"
    channel_axis: int = 1

    def value(self, y: Array, rows: NDArray[np.intp]) -> Array:
        """The means (m,)."""
        channels_last = np.moveaxis(y, self.channel_axis, -1)
        means = channels_last.reshape(len(y), -1, channels_last.shape[-1]).mean(axis=1)
        return means[np.arange(len(y)), self._chosen(y, rows)]

    def cotangent(self, y: Array, rows: NDArray[np.intp]) -> Array:
        """One over the number of positions, in the channel."""
        positions = y[0].size // y.shape[self.channel_axis]
        chosen = self._chosen(y, rows)
        dy = np.zeros_like(y)
        np.moveaxis(dy, self.channel_axis, 1)[np.arange(len(y)), chosen] = 1 / positions
        return dy

    def _chosen(self, y: Array, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        chosen = of_rows(self.index, rows, "channel")
        check_range(chosen, y.shape[self.channel_axis], "channel")
        return chosen


def as_target(targets: int | Sequence[int] | Array | Target, model: Any) -> Target:
    """A target of what a user gives: classes become logits.

    Parameters
    ----------
    targets : int, (n,) ints or Target
        The class to explain, one for all inputs or one for each, or any target.
    model : SplitModel or callable
        Its `classes`, where it has them, bound the numbers.

    Raises
    ------
    InputError
        If it is none of these, or the model has no such class.
    """
    if hasattr(targets, "cotangent"):
        return targets  # type: ignore[return-value]  # it has what the protocol asks for
    ids = np.asarray(targets)
    if ids.dtype.kind not in "iu" or ids.ndim > 1:
        raise InputError(f"{targets!r} is no class to explain.", "Give an int, one for each input, or a Target.")
    if classes := getattr(model, "classes", None):
        check_range(ids, classes, "class")
    return Logit(int(ids) if ids.ndim == 0 else ids)


def check_range(numbers: Array, count: int, noun: str) -> None:
    """Raise InputError unless all numbers are from 0 to `count` - 1."""
    wrong = np.asarray(numbers)[(np.asarray(numbers) < 0) | (np.asarray(numbers) >= count)]
    if wrong.size:
        raise InputError(f"There is no {noun} {wrong[0]} among {count}.", f"Give a number from 0 to {count - 1}.")


def of_rows(numbers: int | Sequence[int] | Array, rows: NDArray[np.intp], noun: str) -> NDArray[np.intp]:
    """The number of every row (m,), where one stands for all inputs or there is one for each."""
    array = np.asarray(numbers)
    return np.full(len(rows), array) if array.ndim == 0 else _row(array, rows, noun)


def _row(array: Array, rows: NDArray[np.intp], noun: str) -> Array:
    if len(rows) and rows.max() >= len(array):
        raise InputError(
            f"{len(array)} entries of {noun} were given for at least {rows.max() + 1} inputs.", "Give one for each."
        )
    return array[rows]


def _softmax(y: Array) -> Array:
    powers = np.exp(y - y.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)

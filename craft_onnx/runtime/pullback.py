"""Forward once, pull back any number of cotangents: the two graphs of a pair, run one after the other."""

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from craft_onnx.errors import InputError
from craft_onnx.runtime.batches import Runs, as_array, check_rows, even_size, filled
from craft_onnx.runtime.sessions import Session, TensorSpec, Value

Array = NDArray[Any]
Pull = Callable[[Array | Value], Value]
Pullback = Callable[[Array], Array]
OF = ("logits", "activations")

# Numbers of x in one run on a CPU, four pictures of 224: what lies between the layers then stays in its caches. With 16
# in a run the gradient of ResNet50 takes 5 % longer, ViT-B/16 12 %, MobileNetV2 16 %; with one, 10 to 30 %.
ELEMENTS = 4 * 3 * 224 * 224


class Pair:
    """The forward and the backward graph of a half of a model.

    Parameters
    ----------
    forward : Session
        From x to y and the residuals.
    backward : Session
        From "cotangent", which comes first, and the residuals to the gradient.
    """

    def __init__(self, forward: Session, backward: Session) -> None:
        self.forward = forward
        self.backward = backward

    def __call__(self, x: Array | Value) -> tuple[Value, Pull]:
        """y, and the function from its cotangent to that of x; nothing leaves the device."""
        values = self.forward.run_values({self.forward.inputs[0].name: x})
        cotangent, *residuals = self.backward.inputs
        kept = {spec.name: values[spec.name] for spec in residuals}

        def pull(given: Array | Value) -> Value:
            (gradient,) = self.backward.run_values({cotangent.name: given, **kept}).values()
            return gradient

        return values[self.forward.outputs[0].name], pull


class Chain:
    """Pairs one behind the other, a few rows at a time on a CPU.

    As a graph of two inputs, x and the cotangent, it runs in batches.

    Parameters
    ----------
    pairs : Pair
        In the order of the forward pass.

    Attributes
    ----------
    inputs, outputs : list of TensorSpec
        x and the cotangent; the gradient.
    largest_batch : int, optional
        As of a Session.
    """

    def __init__(self, *pairs: Pair) -> None:
        self._pairs = pairs
        first, last = pairs[0], pairs[-1]
        self.inputs = [first.forward.inputs[0], last.backward.inputs[0]]
        self.outputs = first.backward.outputs
        self.largest_batch: int | None = None

    def vjp(self, x: Any) -> tuple[Array, Pullback]:
        """The value at x, and its pullback; `SplitModel.vjp` has the description."""
        x = _prepared(x, self.inputs[0])
        parts = self._parts(x)
        values, pulls = zip(*(self._forward(x[part]) for part in parts), strict=True)

        def pullback(cotangent: Any) -> Array:
            given = _prepared(cotangent, self.inputs[1])
            if len(given) != len(x):
                problem = f"The cotangent has {len(given)} rows, x has {len(x)}."
                raise InputError(problem, "Give one row for each row of x.")
            return _joined([_back(some, given[part]) for some, part in zip(pulls, parts, strict=True)])

        return _joined([_array(value) for value in values]), pullback

    def run(self, feeds: dict[str, Array]) -> list[Array]:
        """The gradient for x and a cotangent, by their names."""
        x, cotangent = (feeds[spec.name] for spec in self.inputs)
        return [_joined([_back(self._forward(x[part])[1], cotangent[part]) for part in self._parts(x)])]

    def _parts(self, x: Array) -> list[slice]:
        """The rows of x that go through together."""
        is_whole = self.inputs[0].shape[0] is not None or self._pairs[0].forward.provider != "cpu"
        size = len(x) if is_whole else even_size(len(x), max(1, ELEMENTS // prod(x.shape[1:])))
        return [slice(start, start + size) for start in range(0, len(x), size)]

    def _forward(self, x: Array) -> tuple[Value, list[Pull]]:
        value: Value = x
        pulls = []
        for pair in self._pairs:
            value, pull = pair(value)
            pulls.append(pull)
        return value, pulls


def product_of(graph: Runs) -> Callable[[Array, Array], Array]:
    """From x and a cotangent of any precision to the gradient, by a combined graph or a chain."""
    return lambda *rows: graph.run({i.name: a.astype(i.dtype) for i, a in zip(graph.inputs, rows, strict=True)})[0]


def _back(pulls: list[Pull], cotangent: Array) -> Array:
    value: Value = cotangent
    for pull in reversed(pulls):
        value = pull(value)
    return _array(value)


def _joined(parts: list[Array]) -> Array:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _array(value: Value) -> Array:
    array: Array = value.numpy()
    return array


def _prepared(given: Any, spec: TensorSpec) -> Array:
    """Rows as the graph takes them; InputError where they do not fit."""
    array = as_array(given)
    check_rows(array, spec)
    if not len(array):
        raise InputError("The input holds no rows.", "Give at least one.")
    return filled(array, len(array), spec.dtype)

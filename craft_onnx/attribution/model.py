"""What a method needs of a model: predictions, halves at a cut, or gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from craft_onnx.attribution.targets import Target, as_target
from craft_onnx.description import Layout
from craft_onnx.errors import InputError
from craft_onnx.runtime.batches import BATCH_SIZE, as_array, is_array, rebatch

Array = NDArray[Any]
Rows = NDArray[np.intp]
Progress = Callable[[int, int], None]
Pullback = Callable[[Array], Array]


class Predicts(Protocol):
    """What black-box methods need; any callable from inputs to logits becomes one by `as_model`."""

    @property
    def layout(self) -> Layout | None:
        """Axes of the input."""

    def predict(self, x: Array | Iterable[Array], batch_size: int = BATCH_SIZE) -> Array:
        """Logits (n, classes) of inputs, given as one array or as chunks of any length."""


class Cut(Predicts, Protocol):
    """What methods at a cut need besides."""

    cut: Any

    def g(self, x: Array | Iterable[Array], batch_size: int = BATCH_SIZE) -> Array:
        """Activations at the cut."""

    def h(self, a: Array | Iterable[Array], batch_size: int = BATCH_SIZE) -> Array:
        """Logits of activations."""


class Differentiable(Cut, Protocol):
    """What gradient methods need besides."""

    def vjp(self, x: Array, of: str = "logits", rules: str = "gradient") -> tuple[Array, Pullback]:
        """A tensor of the model at x, and the function from its cotangent to that of x."""

    def vjp_h(self, a: Array, rules: str = "gradient") -> tuple[Array, Pullback]:
        """The logits of activations, and the function from their cotangent to that of the activations."""


class CallableModel:
    """Any function from inputs to logits, as a model.

    Parameters
    ----------
    function : callable
        From an array (m, ...) to logits (m, classes), an array or a tensor.
    layout : "NCHW" or "NHWC", optional
        Axes of the input; by default the axis with 1 or 3 entries is taken for the channels.
    """

    def __init__(self, function: Callable[[Array], Any], layout: Layout | None = None) -> None:
        self.function = function
        self.layout = layout

    def predict(self, x: Array | Iterable[Array], batch_size: int = BATCH_SIZE) -> Array:
        """Logits (n, classes) of inputs, given as one array or as chunks of any length."""
        chunks = [as_array(x)] if is_array(x) else x
        return np.concatenate([as_array(self.function(rows)) for rows in rebatch(chunks, batch_size)])


def as_model(model: Any) -> Any:
    """The model itself where it predicts, or a callable as a model.

    Raises
    ------
    InputError
        If it is neither.
    """
    if hasattr(model, "predict"):
        return model
    if callable(model):
        return CallableModel(model)
    raise InputError(f"A {type(model).__name__} is no model.", "Give a SplitModel, or a function from x to logits.")


def as_inputs(x: Any) -> Array:
    """Preprocessed pictures as a floating-point array (n, ...).

    Raises
    ------
    InputError
        If there are none, or they are raw pictures.
    """
    array = as_array(x)
    if not len(array.shape) or not len(array):
        raise InputError("The input holds no rows.", "Give at least one picture.")
    if array.dtype.kind != "f":
        raise InputError(
            f"Attribution needs floating-point inputs, not {array.dtype}.",
            "Pictures become input with model.preprocess(pictures); convert a model that takes raw pixels without "
            "--bake-preprocessing.",
        )
    return array


def image_axes(model: Any, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """The axes of channels, height and width of inputs of a shape.

    Raises
    ------
    InputError
        If the model does not say and the shape does not tell.
    """
    layout = getattr(model, "layout", None) if len(shape) == 4 else None
    if layout is None and len(shape) == 4:
        layout = "NCHW" if shape[1] in (1, 3) else "NHWC" if shape[3] in (1, 3) else None
    if layout is None:
        raise InputError(
            f"Inputs of shape {shape} are not seen to be pictures (n, channels, h, w) or (n, h, w, channels).",
            "Give channels=None for an attribution of every number of the input.",
        )
    return (1, 2, 3) if layout == "NCHW" else (3, 1, 2)


def resolved(model: Predicts, inputs: Array, targets: Any, batch_size: int) -> Target:
    """The target that a user gives; without one, the logit of the class that the model predicts for each input."""
    if targets is None:
        targets = model.predict(inputs, batch_size).argmax(axis=1)
    return as_target(targets, model)


def tensor(model: Any, of: str, x: Array | Iterable[Array], batch_size: int) -> Array:
    """The tensor that a target is read from."""
    return model.predict(x, batch_size) if of == "logits" else model.g(x, batch_size)


def batches(total: int, batch_size: int, progress: Progress | None = None) -> Iterator[Rows]:
    """The numbers 0 to `total` - 1 in batches; `progress(done, total)` is told after each.

    Raises
    ------
    InputError
        If the batch size is not positive.
    """
    if batch_size < 1:
        raise InputError(f"batch_size {batch_size} is not positive.", "Give at least 1.")
    for start in range(0, total, batch_size):
        stop = min(start + batch_size, total)
        yield np.arange(start, stop)
        if progress:
            progress(stop, total)

"""Gradients of pooling: windows that slide over the positions of every channel of x (N, C, positions)."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from craft_onnx.graph.reverse.gradients.convolution import conv_input_gradient
from craft_onnx.graph.reverse.gradients.reductions import inverse_count, spread
from craft_onnx.graph.reverse.gradients.windows import Windows, conv_windows, known
from craft_onnx.graph.reverse.rules import Rule, Step
from craft_onnx.graph.reverse.tensor import Tensor, emit, op


def _max_pool(step: Step, dy: Tensor, *_places: Tensor) -> list[Tensor]:
    """At each maximum, the sum of dy over the windows that it is the maximum of; zero elsewhere."""
    return [_scatter(dy, _maxima(step), step.x)]


def _maxima(step: Step) -> Tensor:
    """Places of the maxima, numbers of elements of x: the operator's own second output, the first among equals."""
    if len(step.outputs) == 2 and not step.attribute("storage_order", 0):
        return step.outputs[1]
    attributes = {name: attr.value for name, attr in step.node.attributes.items() if name != "storage_order"}
    return emit("MaxPool", 2, step.x, **attributes)[1]


def _scatter(dy: Tensor, places: Tensor, x: Tensor) -> Tensor:
    """Zeros in the shape of x, with dy added at its places."""
    zeros = op.ConstantOfShape(op.Reshape(op.Size(x), [1]), value=ir.tensor(np.zeros(1, dy.dtype.numpy())))
    added = op.ScatterElements(zeros, op.Reshape(places, [-1]), op.Reshape(dy, [-1]), axis=0, reduction="add")
    return op.Reshape(added, op.Shape(x)).shaped_like(x)


def _average_pool(step: Step, dy: Tensor) -> list[Tensor]:
    """An average is a convolution of each plane with ones, divided by how many elements every window counts."""
    windows = conv_windows(step)
    ones = np.ones((1, 1, *windows.kernel))
    planes = _planes(dy * _inverse_counts(step, windows))
    dx = conv_input_gradient(_planes(step.x), _like(dy, ones), planes, _covering(windows, step))
    return [op.Reshape(dx, op.Shape(step.x)).shaped_like(step.x)]


def _planes(x: Tensor) -> Tensor:
    """(N, C, ...) as (N C, 1, ...)."""
    if known(x.shape[2:]):
        return op.Reshape(x, [-1, 1, *x.shape[2:]])
    return op.Reshape(x, op.Concat([-1, 1], op.Shape(x, start=2), axis=0))


def _like(x: Tensor, array: np.ndarray) -> Tensor:
    """A constant of the type of x."""
    return x.emitter.tensor(x.emitter.constant(array.astype(x.dtype.numpy())))


def _covering(windows: Windows, step: Step) -> Windows:
    """With pads up to the end of the last window, which may hang over (ceil_mode), where the lengths tell."""
    beyond = windows.uncovered(step.x.shape[2:], step.y.shape[2:])
    if beyond is None or windows.pads is None:
        return windows
    over = [0] * len(beyond) + [max(-number, 0) for number in beyond]
    return replace(windows, pads=tuple(np.add(windows.pads, over).tolist()))


def _inverse_counts(step: Step, windows: Windows) -> float | Tensor:
    """1 / the number of elements that each window counts.

    Padding counts where the node says so, and what hangs over the padded end (ceil_mode) never does: so what counts is
    1 in a map of ones and zeros, and a convolution with ones counts.
    """
    ceil = step.attribute("ceil_mode", 0)
    if windows.pads is not None and not any(windows.pads) and not ceil:
        return 1 / math.prod(windows.kernel)
    spatial = list(range(2, step.x.rank))
    lengths = step.x.shape[2:]
    ones = op.Expand(
        _like(step.x, np.ones([1] * step.x.rank)),
        [1, 1, *lengths] if known(lengths) else op.Concat([1, 1], op.Shape(step.x, start=2), axis=0),
    )
    pads = op.Concat(*windows.run_time_pads(step.y, step.x), axis=0) if windows.pads is None else windows.pads
    padded = op.Pad(ones, pads, step.attribute("count_include_pad", 0), spatial)
    over = [(stride - 1) * ceil for stride in windows.strides]
    counts = op.Conv(
        padded,
        np.ones((1, 1, *windows.kernel)),
        pads=[0] * len(over) + over,
        strides=windows.strides,
        dilations=windows.dilations,
    )
    if ceil:
        counts = op.Slice(counts, [0] * len(over), op.Shape(step.y, start=2), spatial)
    return op.Reciprocal(counts)


RULES: dict[str, Rule] = {
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": lambda step, dy: [spread(dy * inverse_count(step.x, range(2, step.x.rank)), step.x)],
}

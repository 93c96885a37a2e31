"""Gradients of pooling: windows that slide over the positions of every channel of x (N, C, positions)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from craft_onnx.graph.reverse.gradients.convolution import conv_input_gradient
from craft_onnx.graph.reverse.gradients.indexing import added
from craft_onnx.graph.reverse.gradients.reductions import inverse_count, spread
from craft_onnx.graph.reverse.gradients.shapes import joined, lengths, padded, reshaped
from craft_onnx.graph.reverse.gradients.windows import Windows, conv_windows
from craft_onnx.graph.reverse.rules import Rule, Step
from craft_onnx.graph.reverse.tensor import Tensor, emit, op


def _max_pool(step: Step, dy: Tensor, *_places: Tensor) -> list[Tensor]:
    """At each maximum, the sum of dy over the windows that it is the maximum of; zero elsewhere."""
    row, places, whole = (op.Reshape(t, [-1]) for t in (dy, _maxima(step), step.x))
    return [reshaped(added(row, places, 0, whole), step.x)]


def _maxima(step: Step) -> Tensor:
    """Numbers of elements of x, the first among equals: the operator's own second output."""
    if len(step.outputs) == 2 and not step.attribute("storage_order", 0):
        return step.outputs[1]
    attributes = {name: attr.value for name, attr in step.node.attributes.items() if name != "storage_order"}
    return emit("MaxPool", 2, step.x, **attributes)[1]


def _max_unpool(step: Step, dy: Tensor) -> list[Tensor | None]:
    """y[places] = x and zero elsewhere: dx = dy[places]."""
    dx = op.Gather(op.Reshape(dy, [-1]), step.input(1))
    return [dx, *[None] * (len(step.inputs) - 1)]


def _global_max_pool(step: Step, dy: Tensor) -> list[Tensor]:
    """dy at the first among equal maxima, like that of a MaxPool with one window."""
    planes = op.Reshape(step.x, [0, 0, -1])
    places = op.Range(np.array(0), op.Squeeze(op.Shape(planes, start=2)), np.array(1))
    first = op.Equal(op.ArgMax(planes, axis=2), places)
    dx = op.Where(first, op.Reshape(dy, [0, 0, 1]), 0.0)
    return [reshaped(dx, step.x)]


def _global_average_pool(step: Step, dy: Tensor) -> list[Tensor]:
    return [spread(dy * inverse_count(step.x, range(2, step.x.rank)), step.x)]


def _average_pool(step: Step, dy: Tensor) -> list[Tensor]:
    """A window's average is its sum, divided by how many elements it counts."""
    windows = conv_windows(step)
    size, count = math.prod(windows.kernel), _count(step, windows)
    margins = _margins_of_dense(windows)
    if margins is None:
        return [_sum_back(step.x, dy * (1 / count), windows)]
    # Windows at every position: each position is in as many as one has positions, and gets their average again.
    shares = dy if count == size else dy * (size / count)
    return [op.AveragePool(shares, kernel_shape=windows.kernel, pads=margins, count_include_pad=1).shaped_like(step.x)]


def _margins_of_dense(windows: Windows) -> list[int] | None:
    """The pads of the way back through windows without gaps at every position; None for other windows."""
    if not windows.is_dense or set(windows.dilations) != {1} or windows.pads is None:
        return None
    margins = [extent - 1 - pad for extent, pad in zip(windows.extents * 2, windows.pads, strict=True)]
    return margins if min(margins) >= 0 else None


def _sum_back(x: Tensor, dy: Tensor, windows: Windows) -> Tensor:
    """To every position of x, the sum of dy over the windows that it is in: the way back through their sums.

    Windows side by side repeat dy; any others are a convolution of each plane with ones.
    """
    if _are_tiles(windows, x, dy):
        times = _constant(dy, np.array([1, 1, *windows.kernel], np.float32))
        way = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return op.Resize(dy, None, times, mode="nearest", **way).shaped_like(x)
    ones = _constant(dy, np.ones((1, 1, *windows.kernel), dy.dtype.numpy()))
    planes = conv_input_gradient(_planes(x), ones, _planes(dy), _covering(windows, x, dy))
    return reshaped(planes, x)


def _are_tiles(windows: Windows, x: Tensor, dy: Tensor) -> bool:
    """Whether windows without gaps lie side by side and cover x, without padding."""
    plain = windows.strides == windows.kernel and set(windows.dilations) == {1} and not any(windows.pads or [1])
    return plain and windows.uncovered(x.shape[2:], dy.shape[2:]) == [0] * len(windows.kernel)


def _planes(x: Tensor) -> Tensor:
    """(N, C, ...) as (N C, 1, ...)."""
    return op.Reshape(x, joined([-1, 1], lengths(x, range(2, x.rank))))


def _constant(x: Tensor, array: np.ndarray) -> Tensor:
    return x.emitter.tensor(x.emitter.constant(array))


def _covering(windows: Windows, x: Tensor, dy: Tensor) -> Windows:
    """With pads up to the end of the last window, which may hang over (ceil_mode), where the lengths tell."""
    rest = windows.uncovered(x.shape[2:], dy.shape[2:])
    if rest is None or windows.pads is None:
        return windows
    over = [0] * len(rest) + [max(-number, 0) for number in rest]
    return replace(windows, pads=tuple(np.add(windows.pads, over).tolist()))


def _count(step: Step, windows: Windows) -> int | Tensor:
    """How many elements each window counts.

    Padding counts where the node says so, and what hangs over the padded end (ceil_mode) never does: what counts is 1
    in a map of ones and zeros, which a convolution with ones sums.
    """
    ceil = step.attribute("ceil_mode", 0)
    if windows.pads is not None and not any(windows.pads) and not ceil:
        return math.prod(windows.kernel)
    x, spatial = step.x, list(range(2, step.x.rank))
    ones = op.Expand(_constant(x, np.ones([1] * x.rank, x.dtype.numpy())), joined([1, 1], lengths(x, spatial)))
    pads = op.Concat(*windows.run_time_pads(step.y, x), axis=0) if windows.pads is None else windows.pads
    counted = padded(ones, pads, spatial, float(step.attribute("count_include_pad", 0)))
    over = [ceil * (stride - 1) for stride in windows.strides]
    sums = op.Conv(
        counted,
        np.ones((1, 1, *windows.kernel)),
        pads=[0] * len(over) + over,
        strides=windows.strides,
        dilations=windows.dilations,
    )
    # Windows that would start in the padding behind are none of the node's.
    return op.Slice(sums, [0] * len(over), op.Shape(step.y, start=2), spatial) if ceil else sums


def _lp_pool(step: Step, dy: Tensor) -> list[Tensor]:
    return [_norm(step, dy, lambda t: _sum_back(step.x, t, conv_windows(step)))]


def _global_lp_pool(step: Step, dy: Tensor) -> list[Tensor]:
    return [_norm(step, dy, lambda t: t)]


def _norm(step: Step, dy: Tensor, sum_back: Callable[[Tensor], Tensor]) -> Tensor:
    """y^p = sum |x|^p: dx is |x|^(p-1) sign(x), times dy y^(1-p) on its way back through the sum; zero where y is."""
    p, x, y = step.attribute("p", 2), step.x, step.y
    inner = x if p == 2 else op.Sign(x) * op.Pow(op.Abs(x), float(p - 1))
    outer = op.Pow(op.Where(op.Equal(y, 0.0), 1.0, y), float(1 - p))
    return inner * sum_back(dy * outer)


RULES: dict[str, Rule] = {
    "MaxPool": _max_pool,
    "MaxUnpool": _max_unpool,
    "GlobalMaxPool": _global_max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global_average_pool,
    "LpPool": _lp_pool,
    "GlobalLpPool": _global_lp_pool,
}

"""Where the channels are: the channel axis of every tensor, followed from convolutions through the graph."""

import math
from collections.abc import Callable

import onnx_ir as ir

from craft_onnx.graph.values import attribute, constant, dimensions, integers, operators, rank

Axes = dict[ir.Value, int]
Rule = Callable[[ir.Node, Axes], int | None]

# Operators whose output has its channels on axis 1 by definition.
CHANNELS_FIRST = operators(
    "Conv ConvTranspose MaxPool AveragePool GlobalAveragePool GlobalMaxPool LpPool GlobalLpPool "
    "BatchNormalization LRN InstanceNormalization GroupNormalization Gemm DepthToSpace SpaceToDepth"
)


def channel_axes(model: ir.Model) -> dict[str, int]:
    """The channel axis of every tensor whose rank is known, by tensor name.

    It is followed from convolutions and pooling (axis 1) through transpositions, reshapes and everything that leaves
    the axes alone. Where it cannot be followed: 1, and the last axis of tokens (rank 3).

    Parameters
    ----------
    model : onnx_ir.Model
        With the shapes of its values inferred.
    """
    axes: Axes = {}
    for node in model.graph:
        axis = _output_axis(node, axes)
        if axis is not None:
            axes.update(dict.fromkeys(node.outputs, axis))
    values = [*model.graph.inputs, *(value for node in model.graph for value in node.outputs)]
    return {value.name: _within(axes.get(value), value) for value in values if value.name and rank(value)}


def _within(axis: int | None, value: ir.Value) -> int:
    """The axis found, or the usual one for the rank."""
    count = rank(value) or 0
    usual = 2 if count == 3 else min(1, count - 1)
    return usual if axis is None or axis >= count else axis


def _output_axis(node: ir.Node, axes: Axes) -> int | None:
    if node.op_type in CHANNELS_FIRST:
        return 1
    rule = RULES.get(node.op_type, _unmoved)
    return rule(node, axes)


def _unmoved(node: ir.Node, axes: Axes) -> int | None:
    """The axis of the first input that has one and the same rank as the output."""
    ranks = {rank(value) for value in node.outputs}
    for value in node.inputs:
        if value is not None and value in axes and ranks == {rank(value)}:
            return axes[value]
    return None


def _transpose(node: ir.Node, axes: Axes) -> int | None:
    axis, count = axes.get(_first(node)), rank(_first(node)) or 0
    order = list(attribute(node, "perm", range(count)[::-1]))
    return None if axis is None or axis not in order else order.index(axis)


def _reshape(node: ir.Node, axes: Axes) -> int | None:
    axis = axes.get(_first(node))
    return None if axis is None else reshaped_axis(node, axis)


def reshaped_axis(node: ir.Node, axis: int) -> int | None:
    """Where a Reshape or Flatten leaves an axis whole: the axis of the same length with as many entries before it.

    None where the axis is merged with another or split, or the batch is not the first axis any more.
    """
    old, new = dimensions(_first(node)), dimensions(node.outputs[0])
    if not old or not new or axis == 0 or volume(old[1:]) is None or volume(old[1:]) != volume(new[1:]):
        return None
    before = volume(old[1:axis])
    places = (place for place in range(1, len(new)) if new[place] == old[axis] and volume(new[1:place]) == before)
    return next(places, None)


def volume(sizes: tuple[int | str | None, ...]) -> int | None:
    """Product of sizes, None where one of them is not known."""
    known = [size for size in sizes if isinstance(size, int)]
    return math.prod(known) if len(known) == len(sizes) else None


def _squeeze(node: ir.Node, axes: Axes) -> int | None:
    axis, count = axes.get(_first(node)), rank(_first(node)) or 0
    gone = integers(node, "axes", 1)
    if axis is None or gone is None:
        return None
    removed = {number % count for number in gone}
    return None if axis in removed else axis - sum(number < axis for number in removed)


def _unsqueeze(node: ir.Node, axes: Axes) -> int | None:
    axis, count = axes.get(_first(node)), rank(node.outputs[0]) or 0
    new = integers(node, "axes", 1)
    if axis is None or new is None or not count:
        return None
    added = {number % count for number in new}
    return [position for position in range(count) if position not in added][axis]


def _reduce(node: ir.Node, axes: Axes) -> int | None:
    return _unmoved(node, axes) if attribute(node, "keepdims", 1) else _squeeze(node, axes)


def _matmul(node: ir.Node, _axes: Axes) -> int | None:
    """Constant weights on the right make the last axis the channels."""
    return (rank(node.outputs[0]) or 0) - 1 if constant(node.inputs[1]) is not None and rank(node.outputs[0]) else None


def _normalized(node: ir.Node, axes: Axes) -> int | None:
    """A LayerNormalization over the last axis of something whose channels are not known takes that for them."""
    axis, count = _unmoved(node, axes), rank(node.outputs[0])
    return count - 1 if axis is None and count else axis


def _first(node: ir.Node) -> ir.Value:
    value = node.inputs[0]
    assert value is not None
    return value


RULES: dict[str, Rule] = {
    "Transpose": _transpose,
    "Reshape": _reshape,
    "Flatten": _reshape,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "MatMul": _matmul,
    "LayerNormalization": _normalized,
    "ReduceMean": _reduce,
    "ReduceSum": _reduce,
    "ReduceMax": _reduce,
    "ReduceMin": _reduce,
    "ReduceL2": _reduce,
}

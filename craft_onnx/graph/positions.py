"""One position picked early: where a class token alone is read, the last layer is computed for that token alone.

What picks a position of an axis behind operators that treat all positions of it alike may as well do so in front of
them. Backwards over the graph, a tensor is narrowed to a position if nothing reads any other; forwards, a Slice goes
wherever a narrowed node reads a tensor that is whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from craft_onnx.graph.values import Builder, attribute, constant, dimensions, integers, operators, used_values


class Position(NamedTuple):
    """One position of an axis, both counted from the front."""

    axis: int
    place: int


# For the position that is read of a node's output, that of every input: None where an input is read as a whole.
Needs = Sequence[Position | None]
Rule = Callable[[ir.Node, Position], Needs | None]


def pick_early(model: ir.Model, keep: Collection[str | None] = ()) -> None:
    """Narrow tensors of which a single position is read to that position, in place.

    Parameters
    ----------
    model : onnx_ir.Model
        With the shapes of its values inferred.
    keep : collection of str
        Names of tensors that stay whole besides the outputs.
    """
    narrow, needs = _demands(model.graph, keep)
    for node in list(model.graph):
        if node in needs:
            _narrow(node, needs[node], narrow, Builder(model.graph, before=node))
    for value, position in narrow.items():
        value.shape = ir.Shape([1 if axis == position.axis else size for axis, size in enumerate(value.shape or ())])


def _demands(graph: ir.Graph, keep: Collection[str | None]) -> tuple[dict[ir.Value, Position], dict[ir.Node, Needs]]:
    """The values to narrow, and for their nodes and those that pick from them what these read of each input."""
    narrow: dict[ir.Value, Position] = {}
    needs: dict[ir.Node, Needs] = {}
    reads: dict[ir.Value, set[Position | None]] = {value: {None} for value in graph.outputs}
    for node in reversed(list(graph)):
        value = node.outputs[0]
        position = _common(reads.get(value, set())) if len(node.outputs) == 1 and value.name not in keep else None
        found = _RULES.get(node.op_type, _no_rule)(node, position) if position and not node.domain else None
        picked = _picked(node)
        if found is not None and position is not None:
            narrow[value], needs[node] = position, found
        elif picked is not None:
            found = needs[node] = [picked, *[None] * (len(node.inputs) - 1)]
        for place, read in enumerate(used_values(node) if found is None else node.inputs):
            if read is not None:
                reads.setdefault(read, set()).add(None if found is None else found[place])
    return narrow, needs


def _common(positions: set[Position | None]) -> Position | None:
    return next(iter(positions)) if len(positions) == 1 else None


def _picked(node: ir.Node) -> Position | None:
    """The position that a Gather of one index, or a Slice of length one, takes from its first input."""
    data = node.inputs[0] if node.inputs else None
    sizes = None if data is None or data.dtype is None or not data.dtype.is_floating_point() else dimensions(data)
    axis = _picking_axis(node, len(sizes)) if sizes else None
    index = None if axis is None else constant(node.inputs[1])
    size = None if sizes is None or axis is None else sizes[axis]
    if axis is None or index is None or index.size != 1 or not isinstance(size, int) or size == 1:
        return None
    return Position(axis, int(index.item()) % size) if -size <= index.item() < size else None


def _picking_axis(node: ir.Node, rank: int) -> int | None:
    """The axis along which a node may pick by its second input."""
    if node.op_type == "Gather" and not node.domain:
        return int(attribute(node, "axis", 0)) % rank
    if node.op_type == "Slice" and not node.domain:
        axes, steps = integers(node, "axes", 3), integers(node, "steps", 4) or (1,)
        axis = axes[0] % rank if axes and len(axes) == 1 and steps == (1,) else None
        return axis if axis is not None and (dimensions(node.outputs[0]) or (None,) * rank)[axis] == 1 else None
    return None


def _narrow(node: ir.Node, needs: Needs, narrow: dict[ir.Value, Position], build: Builder) -> None:
    """Let a node read one position of each input, as `needs` has it."""
    if node.outputs[0] not in narrow:
        if node.inputs[0] in narrow:
            _pick_first(node, build)
        return
    for place, (value, position) in enumerate(zip(node.inputs, needs, strict=True)):
        if value is not None and position is not None and value not in narrow:
            node.replace_input_with(place, _slice(build, node, value, position))
    if node.op_type == "Reshape":
        node.replace_input_with(1, build.constant("one_position", _shape(node, narrow[node.outputs[0]].axis)))


def _shape(node: ir.Node, axis: int) -> np.ndarray:
    """The shape that a Reshape is given, with 1 for an axis; its zeros would copy that of an axis that is 1 now."""
    shape, sizes = constant(node.inputs[1]), dimensions(node.outputs[0])
    assert shape is not None and sizes is not None
    spelt = [size if n == 0 and isinstance(size, int) else n for n, size in zip(shape, sizes, strict=True)]
    spelt[axis] = 1
    return np.array(spelt, np.int64)


def _slice(build: Builder, node: ir.Node, value: ir.Value, position: Position) -> ir.Value:
    bounds = [build.constant("bound", np.array([n])) for n in (position.place, position.place + 1, position.axis)]
    sliced = build.op("Slice", [value, *bounds], wish="position", like=node)
    sliced.type = value.type
    sliced.shape = ir.Shape([1 if axis == position.axis else n for axis, n in enumerate(dimensions(value) or ())])
    return sliced


def _pick_first(node: ir.Node, build: Builder) -> None:
    """The index of what is the only position now."""
    index = constant(node.inputs[1])
    assert index is not None
    node.replace_input_with(1, build.constant("first", np.zeros_like(index)))
    if node.op_type == "Slice":
        node.replace_input_with(2, build.constant("end", np.ones_like(index)))


def _no_rule(node: ir.Node, position: Position) -> Needs | None:
    return None


def _elementwise(node: ir.Node, position: Position) -> Needs | None:
    """All inputs alike; what is broadcast along the axis is read as it is."""
    behind = len(dimensions(node.outputs[0]) or ()) - position.axis
    needs: list[Position | None] = []
    for value in node.inputs:
        sizes = () if value is None else dimensions(value)
        axis = len(sizes or ()) - behind
        size = sizes[axis] if sizes and axis >= 0 else 1
        if sizes is None or not isinstance(size, int):
            return None
        needs.append(Position(axis, position.place) if size > 1 else None)
    return needs


def _matmul(node: ir.Node, position: Position) -> Needs | None:
    """A row of A, a column of B, or one product of many."""
    ranks = [len(dimensions(value) or ()) if value is not None else 0 for value in (*node.inputs, *node.outputs)]
    if min(ranks) < 2:
        return None
    behind = ranks[2] - position.axis
    if behind > 2:
        return _elementwise(node, position)
    narrowed = Position(ranks[2 - behind] - behind, position.place)
    return [narrowed, None] if behind == 2 else [None, narrowed]


def _normalization(node: ir.Node, position: Position) -> Needs | None:
    """Of each position for itself, where the axis is none of those that are normalized."""
    rank = len(dimensions(node.outputs[0]) or ())
    axis = attribute(node, "axis", -1) % rank
    apart = position.axis != axis if node.op_type in _ONE_AXIS else position.axis < axis
    return _elementwise(node, position) if apart else None


def _transpose(node: ir.Node, position: Position) -> Needs | None:
    order = attribute(node, "perm", range(len(dimensions(node.outputs[0]) or ()))[::-1])
    return [Position(int(order[position.axis]), position.place)]


def _reshape(node: ir.Node, position: Position) -> Needs | None:
    """The axis of the same length that has as many numbers behind it."""
    data = node.inputs[0]
    before, after = dimensions(data) if data is not None else None, dimensions(node.outputs[0])
    # Without axes, Squeeze would drop the axis that has one position left.
    told = node.op_type in {"Flatten", "Unsqueeze"} or integers(node, "axes", 1) is not None
    if before is None or after is None or not told:
        return None
    wanted = (after[position.axis], _behind(after, position.axis))
    for axis, size in enumerate(before):
        if (size, _behind(before, axis)) == wanted and None not in wanted:
            return [Position(axis, position.place), *[None] * (len(node.inputs) - 1)]
    return None


def _behind(sizes: Sequence[int | str | None], axis: int) -> int | None:
    """How many numbers there are for each position of an axis, None where that is open."""
    rest = [size for size in sizes[axis + 1 :] if isinstance(size, int)]
    return math.prod(rest) if len(rest) == len(sizes) - axis - 1 else None


_ONE_AXIS = operators("Softmax LogSoftmax")
_ELEMENTWISE = operators(
    "Identity Add Sub Mul Div Pow Min Max Sum Where Cast Neg Abs Sqrt Reciprocal Exp Log Erf Sin Cos Clip "
    "Relu LeakyRelu PRelu Elu Selu Celu Gelu Sigmoid HardSigmoid HardSwish Swish Mish Softplus Softsign Tanh"
)
_RULES: dict[str, Rule] = {
    **dict.fromkeys(_ELEMENTWISE, _elementwise),
    **dict.fromkeys(_ONE_AXIS, _normalization),
    **dict.fromkeys(("LayerNormalization", "RMSNormalization"), _normalization),
    **dict.fromkeys(("Reshape", "Squeeze", "Unsqueeze", "Flatten"), _reshape),
    "MatMul": _matmul,
    "Transpose": _transpose,
}

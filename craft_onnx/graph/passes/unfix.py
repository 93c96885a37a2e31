"""Constants that fix a batch size, rewritten operator by operator."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from craft_onnx.errors import InputError
from craft_onnx.graph.values import Builder, attribute, constant, dimensions, has_input, rank

BATCH = "batch"
Sizes = tuple[int | str | None, ...]
EXPORT_DYNAMIC = "Export it with a dynamic batch dimension."


class Fixed(NamedTuple):
    """The batch size that a model was exported for, and the shapes that its tensors had with it."""

    batch: int
    shapes: Mapping[str | None, Sizes | None]

    def sizes(self, value: ir.Value | None) -> tuple[int, ...] | None:
        """The old shape of a value, None where it is not known as a whole."""
        sizes = None if value is None else self.shapes.get(value.name) or dimensions(value)
        known = tuple(size for size in sizes or () if isinstance(size, int))
        return known if sizes is not None and len(known) == len(sizes) else None


def batch_axis(value: ir.Value | None) -> int | None:
    """The axis of a value that follows the batch: "batch" itself, or a multiple of it."""
    for axis, size in enumerate(() if value is None else dimensions(value) or ()):
        if isinstance(size, str) and BATCH in size:
            return axis
    return None


def unfix(node: ir.Node, fixed: Fixed) -> None:
    """Rewrite the constants of a node that hold the old batch size, in place.

    Parameters
    ----------
    node : onnx_ir.Node
        Some of its inputs follow the batch.
    fixed : Fixed
        How the model was before.

    Raises
    ------
    InputError
        If pictures of a batch are mixed, or treated in different ways.
    """
    rule = _RULES.get(node.op_type)
    if rule is not None:
        rule(node, fixed)


def settle_reshapes(model: ir.Model) -> None:
    """Replace shapes that are computed from the batch size by constants with -1 for it, in place.

    Exporters write `Reshape(x, Concat(Shape(...)[0], 512))`: a constant needs no other tensor of the graph.
    """
    for node in model.graph:
        sizes = dimensions(node.outputs[0])
        if node.op_type == "Reshape" and sizes is not None and constant(node.inputs[1]) is None:
            free = [axis for axis, size in enumerate(sizes) if not isinstance(size, int)]
            if len(free) == 1 and BATCH in str(sizes[free[0]]):
                _replace(node, 1, np.array([-1 if axis in free else size for axis, size in enumerate(sizes)], np.int64))


def one_batch_only(node: ir.Node, reason: str) -> InputError:
    """The error for a model that cannot take another batch size."""
    return InputError(
        f"The model works for one batch size only: {node.op_type} {node.outputs[0].name!r} {reason}.", EXPORT_DYNAMIC
    )


def _reshape(node: ir.Node, fixed: Fixed) -> None:
    """-1 on the output's axis that the batch is in, and the other sizes as they were.

    Reshape keeps the row-major order: with `outer` elements before the batch in the input, and `batch * inner` behind,
    the axis is the one of size o * batch * i with outer / o elements before it and inner / i behind.
    """
    data, output = node.inputs[0], node.outputs[0]
    before, after, axis = fixed.sizes(data), fixed.sizes(output), batch_axis(data)
    if data is None or before is None or after is None or axis is None or constant(node.inputs[1]) is None:
        return
    outer = math.prod(before[:axis]) * _repeats((dimensions(data) or ())[axis])
    target = _containing_axis(after, outer, fixed.batch, merges=len(after) < len(before))
    if target is None:
        raise one_batch_only(node, f"from {before} to {after} mixes the pictures of a batch")
    _replace(node, 1, np.array([-1 if i == target else size for i, size in enumerate(after)], np.int64))
    free = _free_size(outer // math.prod(after[:target]), after[target], fixed.batch)
    output.shape = ir.Shape([free if i == target else size for i, size in enumerate(after)])


def _containing_axis(sizes: tuple[int, ...], outer: int, batch: int, merges: bool) -> int | None:
    """The axis that contains the batch.

    With one picture several may: then the batch alone is the likeliest, then, where axes are merged, the first one
    ((tokens, 1, width) to (tokens * 1, width)), else the one that begins with it ((tokens, 1, width) to (tokens,
    1 * heads, width / heads)).
    """
    before = [math.prod(sizes[:axis]) for axis in range(len(sizes))]
    found = [a for a, n in enumerate(before) if outer % n == 0 and sizes[a] % (outer // n * batch) == 0]
    beginning = [axis for axis in found if before[axis] == outer]
    alone = [axis for axis in beginning if sizes[axis] == batch]
    ranked = [*alone, *found, *beginning] if merges else [*alone, *beginning, *found]
    return ranked[0] if ranked else None


def _free_size(outer: int, size: int, batch: int) -> str:
    """Name of a size outer * batch * inner."""
    inner = size // (outer * batch)
    return "*".join([str(outer)] * (outer > 1) + [BATCH] + [str(inner)] * (inner > 1))


def _repeats(size: int | str | None) -> int:
    """How often the batch comes round on an axis: `outer` in its name."""
    outer = str(size).partition(BATCH)[0].rstrip("*")
    return int(outer) if outer else 1


def _expand(node: ir.Node, fixed: Fixed) -> None:
    """1 in the target shape leaves an axis as long as it is."""
    axis, shape = _aligned_batch(node), constant(node.inputs[1])
    if axis is not None and shape is not None and -axis <= len(shape):
        changed = shape.copy()
        changed[axis] = 1
        _replace(node, 1, changed)


def _resize(node: ir.Node, fixed: Fixed) -> None:
    """Sizes of the axes that are resized alone."""
    sizes, axis = constant(node.inputs[3]) if has_input(node, 3) else None, batch_axis(node.inputs[0])
    if sizes is None or axis is None or "axes" in node.attributes:
        return
    axes = [other for other in range(len(sizes)) if other != axis]
    node.attributes["axes"] = ir.AttrInt64s("axes", axes)
    _replace(node, 3, sizes[axes])
    # ONNX's inference leaves the other axes unknown.
    node.outputs[0].shape = ir.Shape([BATCH if i == axis else int(size) for i, size in enumerate(sizes)])


def _broadcast(node: ir.Node, fixed: Fixed) -> None:
    """A constant with a row for every picture, all alike, becomes one row."""
    axis = _aligned_batch(node)
    for position, value in enumerate(node.inputs):
        array = constant(value)
        if axis is not None and array is not None and array.ndim >= -axis and array.shape[axis] > 1:
            _replace(node, position, _one_row(array, axis, node))


def _bias(node: ir.Node, fixed: Fixed) -> None:
    """The same for the last input of a Gemm."""
    bias = constant(node.inputs[2]) if has_input(node, 2) else None
    if bias is not None and bias.ndim == 2 and bias.shape[0] > 1:
        _replace(node, 2, _one_row(bias, 0, node))


def _concat(node: ir.Node, fixed: Fixed) -> None:
    """A constant beside the pictures (a class token) is repeated for every one of them."""
    like = next(value for value in node.inputs if batch_axis(value) is not None)
    axis = batch_axis(like)
    assert like is not None and axis is not None
    if attribute(node, "axis") % len(dimensions(like) or ()) == axis:
        raise one_batch_only(node, "joins pictures to a batch")
    for position, value in enumerate(node.inputs):
        array = constant(value)
        if array is not None:
            node.replace_input_with(position, _repeated(node, _one_row(array, axis, node), like, axis))


def _repeated(node: ir.Node, array: np.ndarray, like: ir.Value, axis: int) -> ir.Value:
    """`array`, with 1 on the batch axis, expanded to the batch of `like`."""
    assert isinstance(node.graph, ir.Graph)
    build = Builder(node.graph, before=node)
    batch = build.op("Shape", [like], {"start": axis, "end": axis + 1}, "batch_size", like=node)
    rows = build.constant("rows", array)
    ones = [build.constant("ones", np.ones(count, np.int64)) for count in (axis, array.ndim - axis - 1)]
    shape = build.op("Concat", [ones[0], batch, ones[1]], {"axis": 0}, "shape", like=node)
    for value, length in ((batch, 1), (shape, array.ndim)):
        value.type, value.shape = ir.TensorType(ir.DataType.INT64), ir.Shape([length])
    repeated = build.op("Expand", [rows, shape], wish="repeated", like=node)
    repeated.type = rows.type
    repeated.shape = ir.Shape([BATCH if i == axis else size for i, size in enumerate(array.shape)])
    return repeated


def _one_row(array: np.ndarray, axis: int, node: ir.Node) -> np.ndarray:
    row = np.take(array, [0], axis=axis)
    if not np.array_equal(np.broadcast_to(row, array.shape), array):
        raise one_batch_only(node, "treats the pictures of a batch in different ways")
    return row


def _aligned_batch(node: ir.Node) -> int | None:
    """The batch axis of the inputs, counted from the last one, as broadcasting does."""
    for value in node.inputs:
        axis = batch_axis(value)
        if value is not None and axis is not None:
            return axis - (rank(value) or 0)
    return None


def _replace(node: ir.Node, position: int, array: np.ndarray) -> None:
    """Give a node another constant; under the old name where nothing else uses that."""
    graph, old = node.graph, node.inputs[position]
    assert isinstance(graph, ir.Graph) and old is not None
    node.replace_input_with(position, None)
    if not old.uses() and old.const_value is not None:
        del graph.initializers[str(old.name)]
    node.replace_input_with(position, Builder(graph).constant(str(old.name), array))


_ELEMENTWISE = (
    "Add",
    "Sub",
    "Mul",
    "Div",
    "Pow",
    "Max",
    "Min",
    "Sum",
    "Mean",
    "Where",
    "PRelu",
    "Greater",
    "Less",
    "Equal",
)
_RULES: dict[str, Callable[[ir.Node, Fixed], None]] = {
    "Reshape": _reshape,
    "Expand": _expand,
    "Resize": _resize,
    "Concat": _concat,
    "Gemm": _bias,
    **dict.fromkeys(_ELEMENTWISE, _broadcast),
}

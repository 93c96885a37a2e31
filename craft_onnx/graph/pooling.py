"""Graphs that begin by averaging over positions, with nothing before that mixes them.

Whatever acts on every position alike and is affine commutes with the mean over positions: such a graph needs only the
mean of its input, and can be given it as a map of one position.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from craft_onnx.graph.dependence import follows_batch, rebase_shape
from craft_onnx.graph.layout import reshaped_axis
from craft_onnx.graph.values import Builder, attribute, constant, dimensions, integers, operators, used_values

BATCH, CHANNEL, SPACE, ONE = "batch", "channel", "space", "one"
Labels = tuple[str, ...]
Rule = Callable[[ir.Node, Labels], Labels | None]


@dataclass(frozen=True)
class Prefix:
    """What a graph does before its positions are averaged, the averaging included: nodes, and their outputs' axes."""

    nodes: list[ir.Node]
    labels: list[Labels]


def pooled_prefix(graph: ir.Graph, entry: ir.Value, channel_axis: int) -> Prefix | None:
    """The nodes from `entry` to the end of a mean over all positions, None where the graph does not begin so.

    Parameters
    ----------
    graph : onnx_ir.Graph
        With the shapes of its values inferred.
    entry : onnx_ir.Value
        Its input, activations with the batch as first axis.
    channel_axis : int
        Axis of the channels.
    """
    sizes = dimensions(entry)
    if sizes is None or len(sizes) < 3:
        return None
    labels = _labels(sizes, channel_axis)
    prefix, value = Prefix([], []), entry
    while SPACE in labels:
        node = _only_reader(graph, value, entry)
        after = None if node is None or node.inputs[0] is None else _after(node, value, labels)
        if node is None or after is None:
            return None
        labels, value = after, node.outputs[0]
        prefix.nodes.append(node)
        prefix.labels.append(labels)
    return prefix


def _labels(sizes: tuple[int | str | None, ...], channel_axis: int) -> Labels:
    rest = [ONE if size == 1 else SPACE for size in sizes]
    return tuple({0: BATCH, channel_axis: CHANNEL}.get(place, label) for place, label in enumerate(rest))


def to_one_position(prefix: Prefix, entry: ir.Value) -> None:
    """Make the prefix work on `entry` as a map of one position: shapes written into it become those of one position."""
    for value in [entry, *(node.outputs[0] for node in prefix.nodes[:-1])]:
        for node in [user for user in value.consumers() if user.op_type == "Shape"]:
            rebase_shape(node, entry)
    for node, labels in zip(prefix.nodes, prefix.labels, strict=True):
        sizes = dimensions(node.outputs[0]) or ()
        if node.op_type in ("Reshape", "Flatten"):
            shape = [_ONE_POSITION.get(label, size) for label, size in zip(labels, sizes, strict=True)]
            _replace(node, "Reshape", [np.array(shape, np.int64)])
        elif node.op_type == "AveragePool":
            _replace(node, "GlobalAveragePool", [])
        node.outputs[0].shape = None
    entry.shape = None


# In a shape, 0 stands for the size that is there: shape inference then knows it for the batch.
_ONE_POSITION = {BATCH: 0, SPACE: 1, ONE: 1}


def _replace(node: ir.Node, op_type: str, arrays: list[np.ndarray]) -> None:
    assert isinstance(node.graph, ir.Graph)
    build = Builder(node.graph, before=node)
    constants = [build.constant("shape", array) for array in arrays]
    output = build.op(op_type, [node.inputs[0], *constants], like=node)
    node.outputs[0].replace_all_uses_with(output, replace_graph_outputs=True)


def _only_reader(graph: ir.Graph, value: ir.Value, entry: ir.Value) -> ir.Node | None:
    """The one node that reads a value, not counting those that read the batch size from its shape."""
    if value in graph.outputs:
        return None
    readers = [n for n in value.consumers() if n.op_type != "Shape" or not follows_batch(n, entry)]
    return readers[0] if len(readers) == 1 and value in used_values(readers[0]) else None


def _after(node: ir.Node, value: ir.Value, labels: Labels) -> Labels | None:
    """Labels of a node's output, None where it mixes positions, treats them differently or is not affine."""
    if node.op_type in ELEMENTWISE:
        return labels if _alike(node, value, labels) else None
    if node.op_type not in RULES or node.inputs[0] is not value:
        return None
    return RULES[node.op_type](node, labels)


ELEMENTWISE = operators("Add Sub Mul Div")


def _alike(node: ir.Node, value: ir.Value, labels: Labels) -> bool:
    """The other operand is a constant that is the same at every position."""
    left, right = node.inputs
    other = constant(right if left is value else left)
    if other is None or other.ndim > len(labels) or (node.op_type == "Div" and left is not value):
        return False
    aligned = labels[len(labels) - other.ndim :]
    return all(size == 1 or label == CHANNEL for size, label in zip(other.shape, aligned, strict=True))


def _same(_node: ir.Node, labels: Labels) -> Labels:
    return labels


def _transpose(node: ir.Node, labels: Labels) -> Labels:
    return tuple(labels[axis] for axis in attribute(node, "perm", range(len(labels))[::-1]))


def _reshape(node: ir.Node, labels: Labels) -> Labels | None:
    sizes = dimensions(node.outputs[0])
    axis = reshaped_axis(node, labels.index(CHANNEL)) if labels[0] == BATCH else None
    if axis is None or sizes is None:
        return None
    return _labels(sizes, axis)


def _squeeze(node: ir.Node, labels: Labels) -> Labels | None:
    return _without(labels, integers(node, "axes", 1), (ONE,))


def _without(labels: Labels, axes: tuple[int, ...] | None, allowed: tuple[str, ...]) -> Labels | None:
    gone = None if axes is None else {axis % len(labels) for axis in axes}
    if gone is None or any(labels[axis] not in allowed for axis in gone):
        return None
    return tuple(label for axis, label in enumerate(labels) if axis not in gone)


def _unsqueeze(node: ir.Node, labels: Labels) -> Labels | None:
    axes = integers(node, "axes", 1)
    if axes is None:
        return None
    count, rest = len(labels) + len(axes), list(labels)
    new = {axis % count for axis in axes}
    return tuple(ONE if axis in new else rest.pop(0) for axis in range(count))


def _channels_first(labels: Labels) -> bool:
    return labels[:2] == (BATCH, CHANNEL)


def _conv(node: ir.Node, labels: Labels) -> Labels | None:
    weights = constant(node.inputs[1])
    pointwise = weights is not None and set(weights.shape[2:]) == {1}
    steady = set(attribute(node, "strides", [1])) == {1} and not any(attribute(node, "pads", [0]))
    return labels if pointwise and steady and _channels_first(labels) else None


def _matmul(node: ir.Node, labels: Labels) -> Labels | None:
    weights = constant(node.inputs[1])
    return labels if weights is not None and weights.ndim == 2 and labels[-1] == CHANNEL else None


def _batch_normalization(node: ir.Node, labels: Labels) -> Labels | None:
    fixed = all(constant(value) is not None for value in node.inputs[1:]) and not attribute(node, "training_mode", 0)
    return labels if fixed and _channels_first(labels) else None


def _reduce_mean(node: ir.Node, labels: Labels) -> Labels | None:
    axes = integers(node, "axes", 1)
    kept = _without(labels, axes, (SPACE, ONE)) if axes else None
    if kept is None or axes is None or not attribute(node, "keepdims", 1):
        return kept
    gone = {axis % len(labels) for axis in axes}
    return tuple(ONE if axis in gone else label for axis, label in enumerate(labels))


def _global_average_pool(_node: ir.Node, labels: Labels) -> Labels | None:
    return (BATCH, CHANNEL, *(ONE for _ in labels[2:])) if _channels_first(labels) else None


def _average_pool(node: ir.Node, labels: Labels) -> Labels | None:
    assert node.inputs[0] is not None
    sizes, kernel = dimensions(node.inputs[0]), tuple(attribute(node, "kernel_shape"))
    whole = sizes is not None and sizes[2:] == kernel and not any(attribute(node, "pads", [0]))
    return _global_average_pool(node, labels) if whole and _plain(node, kernel) else None


def _plain(node: ir.Node, kernel: tuple[int, ...]) -> bool:
    """One window that lies inside the map: no padding by name, no dilation."""
    return attribute(node, "auto_pad", "NOTSET") in ("NOTSET", "VALID") and set(
        attribute(node, "dilations", [1] * len(kernel))
    ) == {1}


RULES: dict[str, Rule] = {
    "Identity": _same,
    "Dropout": _same,
    "Transpose": _transpose,
    "Reshape": _reshape,
    "Flatten": _reshape,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Conv": _conv,
    "MatMul": _matmul,
    "BatchNormalization": _batch_normalization,
    "ReduceMean": _reduce_mean,
    "GlobalAveragePool": _global_average_pool,
    "AveragePool": _average_pool,
}

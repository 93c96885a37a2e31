"""Which values of a graph depend on the picture, which on the batch size alone, which on nothing."""

import enum

import numpy as np
import onnx_ir as ir

from craft_onnx.graph.values import Builder, attribute, dimensions, used_values


class Dependence(enum.IntEnum):
    """What a value depends on; the larger one wins where values meet."""

    CONSTANT = 0
    BATCH = 1
    IMAGE = 2


def dependences(graph: ir.Graph, image: ir.Value) -> dict[ir.Value, Dependence]:
    """What every value of a graph depends on.

    A value computed from the shapes of others depends on the batch size alone, where their other dimensions are
    known: it can be computed anew from any tensor that has the batch as its first axis.

    Parameters
    ----------
    graph : onnx_ir.Graph
        With the shapes of its values inferred.
    image : onnx_ir.Value
        The input of the graph.
    """
    found = dict.fromkeys(graph.initializers.values(), Dependence.CONSTANT) | {image: Dependence.IMAGE}
    for node in graph:
        level = max((found.get(value, Dependence.CONSTANT) for value in used_values(node)), default=Dependence.CONSTANT)
        if level == Dependence.IMAGE and node.op_type == "Shape" and follows_batch(node, image):
            level = Dependence.BATCH
        found.update(dict.fromkeys(node.outputs, level))
    return found


def follows_batch(node: ir.Node, source: ir.Value) -> bool:
    """True where a Shape node gives nothing but known sizes and the first dimension of `source`."""
    sizes = _shape_output(node)
    batch = (dimensions(source) or (None,))[0]
    return sizes is not None and all(isinstance(size, int) or (size is not None and size == batch) for size in sizes)


def rebase_shape(node: ir.Node, source: ir.Value) -> None:
    """Replace a Shape node that `follows_batch` by one that reads the batch size from `source`."""
    assert node.graph is not None and isinstance(node.graph, ir.Graph)
    build = Builder(node.graph, before=node)
    sizes = _shape_output(node) or ()
    if all(isinstance(size, int) for size in sizes):
        whole = build.constant("sizes", np.array(sizes, np.int64))
    else:
        parts: list[ir.Value | None] = [_size(build, size, source, node) for size in sizes]
        whole = build.op("Concat", parts, {"axis": 0}, "sizes", like=node)
        whole.shape, whole.dtype = ir.Shape([len(sizes)]), ir.DataType.INT64
    node.outputs[0].replace_all_uses_with(whole)
    node.graph.remove(node, safe=True)


def _size(build: Builder, size: int | str | None, source: ir.Value, like: ir.Node) -> ir.Value:
    if isinstance(size, int):
        return build.constant("size", np.array([size], np.int64))
    shape = build.op("Shape", [source], wish="shape", like=like)
    return build.op("Gather", [shape, build.constant("axis", np.array([0], np.int64))], wish="batch", like=like)


def _shape_output(node: ir.Node) -> tuple[int | str | None, ...] | None:
    sizes = None if node.inputs[0] is None else dimensions(node.inputs[0])
    return None if sizes is None else sizes[attribute(node, "start", 0) : attribute(node, "end")]

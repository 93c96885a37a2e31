"""Multiply a concept bank into the linear layer that follows it."""

import numpy as np
import onnx_ir as ir

from craft_onnx.graph.layout import volume
from craft_onnx.graph.values import Builder, attribute, constant, dimensions, operators

# Operators that only reorder or regroup numbers; a mean counts where it is one over single numbers.
REGROUPING = operators("Identity Dropout Reshape Flatten Squeeze Transpose ReduceMean GlobalAveragePool")


def merge_bank(graph: ir.Graph) -> None:
    """Replace u W followed by a linear layer over all of it by one layer, W times its weights.

    Parameters
    ----------
    graph : onnx_ir.Graph
        Its input u (n, ..., k) is read by one MatMul with the bank W (k, p); shapes are inferred; is changed.
    """
    u = graph.inputs[0]
    product = u.consumers()[0]
    bank, sizes = constant(product.inputs[1]), dimensions(product.outputs[0])
    count = None if sizes is None else volume(sizes[1:])
    if bank is None or sizes is None or count is None:
        return
    # Where every number of u W goes, for one picture.
    order = np.arange(count).reshape(1, *sizes[1:])
    value, layer = product.outputs[0], _next(product)
    while layer is not None and layer.op_type in REGROUPING and _keeps(layer, count):
        order = _regrouped(layer, order)
        value, layer = layer.outputs[0], _next(layer)
    weights = None if layer is None or layer.inputs[0] is not value else _matrix(layer, count)
    if layer is not None and weights is not None:
        _replace(graph, layer, u, _merged(bank, weights, order.ravel()))


def _next(node: ir.Node) -> ir.Node | None:
    """The only reader of a node's output."""
    readers = node.outputs[0].consumers()
    return readers[0] if len(readers) == 1 and not node.outputs[0].is_graph_output() else None


def _keeps(node: ir.Node, count: int) -> bool:
    """As many numbers for every picture as before, and the pictures first."""
    sizes = dimensions(node.outputs[0])
    batch_first = node.op_type != "Transpose" or attribute(node, "perm", [1])[0] == 0
    return batch_first and sizes is not None and volume(sizes[1:]) == count


def _regrouped(node: ir.Node, order: np.ndarray) -> np.ndarray:
    if node.op_type == "Transpose":
        return order.transpose(attribute(node, "perm"))
    return order.reshape(1, *(dimensions(node.outputs[0]) or ())[1:])


def _matrix(layer: ir.Node, count: int) -> np.ndarray | None:
    """The weights as (count, outputs), None where the layer is not linear in all `count` numbers at once."""
    weights = constant(layer.inputs[1]) if layer.op_type in ("Gemm", "MatMul", "Conv") else None
    if weights is None:
        return None
    if layer.op_type == "Conv":
        pointwise = attribute(layer, "group", 1) == 1 and set(weights.shape[2:]) == {1}
        return weights.reshape(weights.shape[:2]).T if pointwise and _one_position(layer, count) else None
    if weights.ndim != 2 or attribute(layer, "transA", 0):
        return None
    matrix = weights.T if attribute(layer, "transB", 0) else weights
    return matrix if matrix.shape[0] == count else None


def _one_position(layer: ir.Node, count: int) -> bool:
    assert layer.inputs[0] is not None
    sizes = dimensions(layer.inputs[0])
    return sizes is not None and sizes[1] == count and not any(attribute(layer, "pads", [0]))


def _merged(bank: np.ndarray, weights: np.ndarray, order: np.ndarray) -> np.ndarray:
    """W times the weights at every position: (positions * k, outputs)."""
    rows = np.argsort(order).reshape(-1, bank.shape[1])
    # In float64, and one position at a time: the first layer of VGG16 has 411 MB.
    parts = [bank.astype(np.float64) @ weights[at].astype(np.float64) for at in rows]
    return np.concatenate(parts).astype(bank.dtype)


def _replace(graph: ir.Graph, layer: ir.Node, u: ir.Value, merged: np.ndarray) -> None:
    """A layer on u with the merged weights, its output shaped as the old one's."""
    build = Builder(graph, before=layer)
    old, sizes = layer.outputs[0], dimensions(layer.outputs[0]) or ()
    flat = u
    if len(u.shape or ()) != 2:
        flat = build.op("Reshape", [u, build.constant("shape", np.array([0, len(merged)], np.int64))])
    inputs = [flat, build.constant("concept_weights", merged), *layer.inputs[2:]]
    if layer.op_type == "MatMul":
        new = build.op("MatMul", inputs, like=layer)
    else:
        scales = {name: attribute(layer, name, 1.0) for name in ("alpha", "beta")}
        new = build.op("Gemm", inputs, scales, like=layer)
    if len(sizes) != 2:
        new = build.op("Reshape", [new, build.constant("shape", np.array([0, *sizes[1:]], np.int64))], like=layer)
    old.replace_all_uses_with(new, replace_graph_outputs=True)

"""Multiply a concept bank into the linear layer that follows it."""

import numpy as np
import onnx_ir as ir

from craft_onnx.graph.layout import volume
from craft_onnx.graph.values import Builder, attribute, constant, dimensions, operators

# Operators that leave the numbers of a map of one position as they are.
UNTOUCHED = operators("Identity Dropout Reshape Flatten Squeeze Transpose ReduceMean GlobalAveragePool")


def merge_bank(graph: ir.Graph) -> None:
    """Replace u W followed by a linear layer by one layer, W times its weights, where the layer sees u W as it is.

    Parameters
    ----------
    graph : onnx_ir.Graph
        Its input u (n, k) is read by one MatMul with the bank W (k, p); shapes are inferred; is changed.
    """
    u = graph.inputs[0]
    product = u.consumers()[0]
    bank = constant(product.inputs[1])
    assert bank is not None
    value, layer = product.outputs[0], _next(product)
    while layer is not None and layer.op_type in UNTOUCHED and _same_size(layer, bank.shape[1]):
        value, layer = layer.outputs[0], _next(layer)
    if layer is None or layer.inputs[0] is not value:
        return
    weights = _matrix(layer, bank.shape[1])
    if weights is not None:
        merged = (bank.astype(np.float64) @ weights.astype(np.float64)).astype(bank.dtype)
        _replace(graph, layer, u, merged)


def _next(node: ir.Node) -> ir.Node | None:
    """The only reader of a node's output."""
    readers = node.outputs[0].consumers()
    return readers[0] if len(readers) == 1 and not node.outputs[0].is_graph_output() else None


def _same_size(node: ir.Node, channels: int) -> bool:
    sizes = dimensions(node.outputs[0])
    return sizes is not None and volume(sizes[1:]) == channels


def _matrix(layer: ir.Node, channels: int) -> np.ndarray | None:
    """The weights as (channels, outputs), None where the layer is not linear with constant weights."""
    weights = constant(layer.inputs[1]) if layer.op_type in ("Gemm", "MatMul", "Conv") else None
    if weights is None:
        return None
    if layer.op_type == "Conv":
        pointwise = attribute(layer, "group", 1) == 1 and set(weights.shape[2:]) == {1} and _unpadded(layer)
        return weights.reshape(weights.shape[:2]).T if pointwise else None
    if weights.ndim != 2 or attribute(layer, "transA", 0):
        return None
    matrix = weights.T if attribute(layer, "transB", 0) else weights
    return matrix if matrix.shape[0] == channels else None


def _unpadded(layer: ir.Node) -> bool:
    return not any(attribute(layer, "pads", [0]))


def _replace(graph: ir.Graph, layer: ir.Node, u: ir.Value, merged: np.ndarray) -> None:
    """A layer on u with the merged weights, its output shaped as the old one's."""
    build = Builder(graph, before=layer)
    old = layer.outputs[0]
    inputs = [u, build.constant("concept_weights", merged), *layer.inputs[2:]]
    if layer.op_type == "MatMul":
        new = build.op("MatMul", inputs, like=layer)
    else:
        scales = {name: attribute(layer, name, 1.0) for name in ("alpha", "beta")}
        new = build.op("Gemm", inputs, scales, like=layer)
    sizes = dimensions(old) or ()
    if len(sizes) != 2:
        shape = build.constant("shape", np.array([0, *sizes[1:]], np.int64))
        new = build.op("Reshape", [new, shape], like=layer)
    old.replace_all_uses_with(new, replace_graph_outputs=True)

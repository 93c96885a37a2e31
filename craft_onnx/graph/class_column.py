"""One class of a graph's logits: the last linear layer cut down to its column, where the graph ends in one."""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from craft_onnx.graph.layout import volume
from craft_onnx.graph.values import Builder, attribute, constant, dimensions, operators

LAYOUT = operators("Identity Dropout Flatten Reshape Squeeze Unsqueeze Transpose")
ELEMENTWISE = operators("Add Sub Mul Div")
LINEAR = operators("Gemm MatMul Conv")


@dataclass(frozen=True)
class Tail:
    """The last linear node of a graph and the constants that are combined with its output, the first applied first.

    Each of `steps` is a node, its constant with one entry or one per class, and whether that is the first operand.
    """

    linear: ir.Node
    steps: list[tuple[ir.Node, np.ndarray, bool]]


def keep_class(graph: ir.Graph, class_id: int, classes: int) -> None:
    """Make the only output of a graph, logits (N, classes), that of one class (N,).

    Parameters
    ----------
    graph : onnx_ir.Graph
        With the shapes of its values inferred; is changed.
    class_id, classes : int
        Which column, of how many.
    """
    logits = graph.outputs[0]
    tail = _tail(logits, classes)
    build = Builder(graph)
    if tail is None:
        index = build.constant("class_id", np.array(class_id, np.int64))
        graph.outputs[0] = build.op("Gather", [logits, index], {"axis": 1}, "class_logit")
        return
    column = _column(build, tail.linear, class_id)
    value = build.op("Reshape", [column, build.constant("shape", np.array([-1], np.int64))], wish="class_logit")
    for node, array, first in tail.steps:
        number = build.constant("number", array.ravel()[class_id if array.size == classes else 0])
        value = build.op(node.op_type, [number, value] if first else [value, number], like=node)
    graph.outputs[0] = value


def _tail(logits: ir.Value, classes: int) -> Tail | None:
    value: ir.Value | None = logits
    steps: list[tuple[ir.Node, np.ndarray, bool]] = []
    while value is not None and (node := value.producer()) is not None:
        if node.op_type in LINEAR:
            return Tail(node, steps[::-1]) if _is_column_per_class(node, classes) else None
        if node.op_type in LAYOUT:
            value = node.inputs[0]
        elif (step := _step(node, classes)) is not None:
            steps.append(step)
            value = node.inputs[1 if step[2] else 0]
        else:
            return None
    return None


def _step(node: ir.Node, classes: int) -> tuple[ir.Node, np.ndarray, bool] | None:
    if node.op_type not in ELEMENTWISE:
        return None
    for position in (0, 1):
        array = constant(node.inputs[position])
        if array is not None and array.size in (1, classes):
            return node, array, position == 0
    return None


def _is_column_per_class(node: ir.Node, classes: int) -> bool:
    """Constant weights, a column for each class, and nothing but the classes for every picture."""
    weights, sizes = constant(node.inputs[1]), dimensions(node.outputs[0])
    if weights is None or sizes is None or volume(sizes[1:]) != classes:
        return False
    if node.op_type == "Conv":
        return sizes[1] == classes and attribute(node, "group", 1) == 1 and _bias_ok(node, classes)
    return weights.ndim == 2 and sizes[-1] == classes and _bias_ok(node, classes)


def _bias_ok(node: ir.Node, classes: int) -> bool:
    if len(node.inputs) < 3 or node.inputs[2] is None:
        return True
    bias = constant(node.inputs[2])
    return bias is not None and (bias.size == 1 or bias.shape[-1] == bias.size == classes)


def _column(build: Builder, node: ir.Node, class_id: int) -> ir.Value:
    weights = constant(node.inputs[1])
    assert weights is not None
    rows = node.op_type == "Conv" or bool(attribute(node, "transB", 0))
    column = weights[class_id : class_id + 1] if rows else weights[..., class_id : class_id + 1]
    inputs = [node.inputs[0], build.constant("class_weights", column)]
    bias = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    if bias is not None:
        number = bias.ravel()[0 if bias.size == 1 else class_id]
        inputs.append(build.constant("class_bias", np.array([number])))
    return build.op(node.op_type, inputs, node.attributes, like=node)

"""Proof that a graph is an affine function of its input."""

from collections.abc import Callable

import onnx_ir as ir

from craft_onnx.graph.dependence import Dependence, dependences
from craft_onnx.graph.values import attribute, constant, has_input, operators

Rule = Callable[[ir.Node, list[bool]], bool]

# Affine in all inputs together.
SUMS = operators("Add Sub Sum Mean Concat Neg")
# Affine in the first input; the others (indices, shapes, parameters) must not depend on the picture.
CARRIERS = operators(
    "Identity Reshape Flatten Squeeze Unsqueeze Transpose Slice Split Gather GatherElements GatherND Expand Tile "
    "Pad CumSum Trilu DepthToSpace SpaceToDepth Resize Upsample ReduceMean ReduceSum GlobalAveragePool "
    "AveragePool Div"
)
# Affine in one of the first two inputs when the other does not depend on the picture.
PRODUCTS = operators("Mul MatMul Conv ConvTranspose Gemm")


def is_affine(graph: ir.Graph, source: ir.Value) -> bool:
    """True where every node between `source` and the outputs is provably affine, for a given batch size.

    Parameters
    ----------
    graph : onnx_ir.Graph
        With the shapes of its values inferred.
    source : onnx_ir.Value
        The input.
    """
    found = dependences(graph, source)
    for node in graph:
        if found[node.outputs[0]] == Dependence.IMAGE:
            varying = [value is not None and found.get(value) == Dependence.IMAGE for value in node.inputs]
            if not _affine(node, varying):
                return False
    return True


def _affine(node: ir.Node, varying: list[bool]) -> bool:
    if node.domain not in ("", "ai.onnx") or not any(varying):
        return False
    if node.op_type in SUMS:
        return True
    if node.op_type in CARRIERS:
        return not any(varying[1:])
    if node.op_type in PRODUCTS:
        return sum(varying[:2]) <= 1
    rule = RULES.get(node.op_type)
    return rule is not None and rule(node, varying)


def _cast(node: ir.Node, _varying: list[bool]) -> bool:
    return ir.DataType(attribute(node, "to")) in (ir.DataType.FLOAT, ir.DataType.DOUBLE)


def _dropout(node: ir.Node, varying: list[bool]) -> bool:
    training = has_input(node, 2) and bool(constant(node.inputs[2]) is None or constant(node.inputs[2]))
    return not training and not any(varying[1:])


def _batch_normalization(node: ir.Node, varying: list[bool]) -> bool:
    return not attribute(node, "training_mode", 0) and not any(varying[1:])


def _where(_node: ir.Node, varying: list[bool]) -> bool:
    return not varying[0]


RULES: dict[str, Rule] = {
    "Cast": _cast,
    "Dropout": _dropout,
    "BatchNormalization": _batch_normalization,
    "Where": _where,
}

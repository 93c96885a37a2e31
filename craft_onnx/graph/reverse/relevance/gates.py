"""What lets a signal through, or is divided by: products take it for a constant."""

from __future__ import annotations

import onnx_ir as ir

from craft_onnx.graph.reverse.relevance.matching import with_constant
from craft_onnx.graph.values import constant, operators

# What a signal is multiplied by to let more or less of it through comes out of one of these.
GATES = operators("Sigmoid HardSigmoid Tanh Erf Softmax")
# What a deviation, or its inverse, comes out of.
ROOTS = operators("Sqrt ReduceL2")
# What may lie between those and the product.
LAYOUT = operators("Reshape Squeeze Unsqueeze Flatten Transpose Expand Identity Cast")
BETWEEN = operators("Add Sub Mul Div Clip")
BEHIND_ROOTS = operators("Reciprocal Add Mul Div Max Clip")


def gate_of(node: ir.Node) -> int | None:
    """Which input of a product lets the other through; None where that cannot be told."""
    gates = [place for place, value in enumerate(node.inputs) if _is_gate(value)]
    return gates[0] if len(gates) == 1 else None


def _is_gate(value: ir.Value | None) -> bool:
    producer = None if value is None else value.producer()
    if producer is None or producer.op_type in GATES or _is_hard_sigmoid(producer) or is_deviation(value):
        return producer is not None
    return producer.op_type in LAYOUT | BETWEEN and _is_gate(_passed(producer))


def _passed(node: ir.Node) -> ir.Value | None:
    """What a node changes, where that is one value alone; the others of a Reshape are sizes."""
    computed = [one for one in node.inputs if one is not None and constant(one) is None]
    return computed[0] if len(computed) == 1 or node.op_type in LAYOUT else None


def _is_hard_sigmoid(node: ir.Node) -> bool:
    """Whether a node is max(0, min(c, x + c / 2)): with 6 for c and a sixth of it, what Keras makes of it."""
    add = node.inputs[0].producer() if node.op_type == "Clip" and node.inputs[0] is not None else None
    if add is None or not with_constant(add, ("Add",)):
        return False
    bounds = [constant(value) for value in node.inputs[1:3]]
    numbers = [*bounds, *(array for value in add.inputs if (array := constant(value)) is not None)]
    if len(numbers) != 3 or any(one is None or one.size != 1 for one in numbers):
        return False
    low, high, shift = (float(one.item()) for one in numbers if one is not None)
    return low == 0 and high == 2 * shift


def is_deviation(value: ir.Value | None) -> bool:
    """Whether a value is a deviation, or the inverse of one: a normalization that is written out divides by it."""
    maker = None if value is None else value.producer()
    if maker is None:
        return False
    if maker.op_type in ROOTS or (maker.op_type == "Pow" and _is_root(maker)):
        return True
    return maker.op_type in LAYOUT | BEHIND_ROOTS and is_deviation(_passed(maker))


def _is_root(power: ir.Node) -> bool:
    exponent = constant(power.inputs[1])
    return exponent is not None and exponent.size == 1 and abs(float(exponent.item())) == 0.5

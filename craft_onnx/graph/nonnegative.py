"""Which tensors of a graph can be proven to be non-negative for every picture."""

import math
from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from craft_onnx.graph.values import attribute, constant, has_input, operators

# Whether a value is known to be non-negative (or is None, an input that is not given).
Known = Callable[[ir.Value | None], bool]
Rule = Callable[[ir.Node, Known], bool]

# Outputs that are non-negative (or not numbers at all, as the root of a negative one) whatever the input.
ALWAYS = operators(
    "Relu Sigmoid HardSigmoid Softmax Hardmax Softplus Exp Abs Sqrt Acos Cosh Not And Or Xor Equal Greater "
    "GreaterOrEqual Less LessOrEqual IsNaN IsInf ArgMax ArgMin Shape Size NonZero EyeLike ReduceL1 ReduceL2 "
    "ReduceSumSquare GlobalLpPool LpPool"
)
# Outputs that are non-negative where every input is: sums, means, products, order, and functions that keep the sign.
PRESERVING = operators(
    "Add Sum Mean Mul Div Min Concat MatMul Einsum Conv ConvTranspose LeakyRelu Elu Celu Gelu HardSwish Swish "
    "Mish Tanh Erf Softsign ThresholdedRelu Floor Ceil Round Sign Reciprocal Sinh Atan Asinh"
)
# Outputs whose entries come from, or average, the first input; further inputs are indices, shapes or axes.
CARRYING = operators(
    "Identity Dropout Reshape Transpose Flatten Squeeze Unsqueeze Slice Split Gather GatherElements GatherND "
    "Expand Tile DepthToSpace SpaceToDepth Compress Trilu CumSum TopK MaxPool AveragePool GlobalAveragePool "
    "GlobalMaxPool ReduceMean ReduceSum ReduceMax ReduceMin ReduceProd LpNormalization PRelu"
)


def nonnegative_tensors(model: ir.Model) -> set[str]:
    """Names of the tensors that are non-negative whatever the picture, by propagation over operators and constants.

    Constants are checked by their values. A tensor that is not named may be non-negative all the same. An output that
    is not a number (the root of a negative one, 0/0) does not count as negative.
    """
    proven: set[ir.Value] = {value for value in model.graph.inputs if _unsigned(value)}
    constants: dict[ir.Value, bool] = {}

    def known(value: ir.Value | None) -> bool:
        if value is None or value in proven:
            return True
        if value not in constants:
            constants[value] = _constant_nonnegative(value)
        return constants[value]

    for node in model.graph:
        if _output_nonnegative(node, known):
            proven.update(node.outputs)
    checked = {value for value in model.graph.initializers.values() if known(value)}
    return {value.name for value in proven | checked if value.name}


def _unsigned(value: ir.Value) -> bool:
    return value.dtype is not None and (value.dtype == ir.DataType.BOOL or value.dtype.name.startswith("UINT"))


def _constant_nonnegative(value: ir.Value) -> bool:
    array = constant(value)
    return array is not None and array.dtype.kind in "fiub" and bool(np.all(array >= 0))


def _output_nonnegative(node: ir.Node, known: Known) -> bool:
    if node.domain not in ("", "ai.onnx"):
        return False
    if node.op_type in ALWAYS:
        return True
    if node.op_type in PRESERVING and all(known(value) for value in node.inputs):
        return True
    if node.op_type in CARRYING:
        return known(node.inputs[0])
    rule = RULES.get(node.op_type)
    return rule is not None and rule(node, known)


def _scalar(node: ir.Node, name: str, position: int, default: float) -> float:
    """A number that is an attribute in old opsets and an input in new ones; not a number where it is no constant."""
    if name in node.attributes:
        return float(attribute(node, name))
    if not has_input(node, position):
        return default
    array = constant(node.inputs[position])
    return math.nan if array is None else float(np.min(array))


def _clip(node: ir.Node, known: Known) -> bool:
    low, high = _scalar(node, "min", 1, -math.inf), _scalar(node, "max", 2, math.inf)
    return high >= 0 and (low >= 0 or known(node.inputs[0]))


def _square(node: ir.Node, _known: Known) -> bool:
    return node.inputs[0] is node.inputs[1]


def _power(node: ir.Node, known: Known) -> bool:
    exponent = constant(node.inputs[1])
    even = exponent is not None and bool(np.all(np.mod(exponent, 2) == 0))
    return even or known(node.inputs[0])


def _any_input(node: ir.Node, known: Known) -> bool:
    return any(known(value) for value in node.inputs)


def _gemm(node: ir.Node, known: Known) -> bool:
    factors = (attribute(node, "alpha", 1.0), attribute(node, "beta", 1.0))
    return min(factors) >= 0 and all(known(value) for value in node.inputs)


def _pad(node: ir.Node, known: Known) -> bool:
    fill = _scalar(node, "value", 2, 0.0) if attribute(node, "mode", "constant") == "constant" else 0.0
    return fill >= 0 and known(node.inputs[0])


def _resize(node: ir.Node, known: Known) -> bool:
    """Nearest and linear take convex combinations; cubic overshoots."""
    convex = attribute(node, "mode", "nearest") in ("nearest", "linear")
    return convex and attribute(node, "extrapolation_value", 0.0) >= 0 and known(node.inputs[0])


def _where(node: ir.Node, known: Known) -> bool:
    return known(node.inputs[1]) and known(node.inputs[2])


def _cast(node: ir.Node, known: Known) -> bool:
    """To floating point or bool only: a large float wraps around to a negative integer."""
    target = ir.DataType(attribute(node, "to"))
    return target == ir.DataType.BOOL or (target.is_floating_point() and known(node.inputs[0]))


def _local_response(node: ir.Node, known: Known) -> bool:
    return attribute(node, "alpha", 1e-4) >= 0 and attribute(node, "bias", 1.0) >= 0 and known(node.inputs[0])


def _thresholded(node: ir.Node, _known: Known) -> bool:
    return attribute(node, "alpha", 1.0) >= 0


def _filled(node: ir.Node, _known: Known) -> bool:
    value = attribute(node, "value")
    return value is None or bool(np.all(value.numpy() >= 0))


def _constant_node(node: ir.Node, _known: Known) -> bool:
    return _constant_nonnegative(node.outputs[0])


RULES: dict[str, Rule] = {
    "Constant": _constant_node,
    "ConstantOfShape": _filled,
    "Clip": _clip,
    "Mul": _square,
    "Pow": _power,
    "Max": _any_input,
    "Gemm": _gemm,
    "Pad": _pad,
    "Resize": _resize,
    "Upsample": _resize,
    "Where": _where,
    "Cast": _cast,
    "LRN": _local_response,
    "ThresholdedRelu": _thresholded,
}

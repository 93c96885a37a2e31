"""Compute at conversion what does not depend on the picture."""

import math

import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript.optimizer import fold_constants as fold

from craft_onnx.graph.passes.keeping import pure
from craft_onnx.graph.values import constant

# Elements of a constant that folding may make: the kernels of every usual network, not the 411 MB of VGG's first
# dense layer where a file only says how to fill it.
_LARGEST = 2**24


@pure
def fold_constants(model: ir.Model) -> ir.Model:
    """Replace nodes over constants by initializers, also those that only ask for known shapes.

    Requires: constants are initializers, opset 18. Ensures: shapes, axes and BatchNormalization's parameters are
    initializers wherever they do not depend on the input.
    """
    common.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)
    fold(
        model,
        onnx_shape_inference=True,
        input_size_limit=_LARGEST,
        output_size_limit=_LARGEST,
        should_fold=_should_fold,
    )
    for step in (
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.OutputFixPass(),
        common.RemoveUnusedOpsetsPass(),
        common.NameFixPass(),
    ):
        step(model)
    return model


def _should_fold(node: ir.Node) -> bool | None:
    """None leaves it to onnxscript, which would not touch ConstantOfShape."""
    if node.op_type != "ConstantOfShape":
        return None
    shape = constant(node.inputs[0])
    return shape is not None and math.prod(int(size) for size in shape) <= _LARGEST

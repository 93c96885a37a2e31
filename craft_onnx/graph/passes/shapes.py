"""Shapes and types of all tensors."""

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from craft_onnx.graph.passes.keeping import pure


@pure
def infer_shapes(model: ir.Model) -> ir.Model:
    """Infer type and shape of every tensor.

    Requires: `fold_constants`. Ensures: known where ONNX's inference finds them. Not strict: what it cannot infer
    stays unknown.
    """
    ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)
    return model

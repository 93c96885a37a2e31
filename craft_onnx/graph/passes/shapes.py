"""Shapes and types of all tensors."""

import onnx_ir as ir

from craft_onnx.graph.passes.keeping import pure
from craft_onnx.graph.values import note_shapes


@pure
def infer_shapes(model: ir.Model) -> ir.Model:
    """Infer type and shape of every tensor.

    Requires: `fold_constants`. Ensures: known where ONNX's inference finds them. Not strict: what it cannot infer
    stays unknown.
    """
    note_shapes(model)
    return model

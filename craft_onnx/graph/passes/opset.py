"""Raise the opset, so that everything behind knows one form of every operator."""

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass, NameFixPass

from craft_onnx.errors import InputError
from craft_onnx.graph.passes.keeping import pure
from craft_onnx.graph.skeleton import reattach, skeleton

OPSET = 18
OLDEST = 7


def raise_opset(model: ir.Model) -> ir.Model:
    """Convert a model to opset 18; one of a later opset stays as it is.

    Requires: `tidy`. Ensures: opset 18 at least.

    Raises
    ------
    InputError
        If the opset is below 7, or ONNX's converter does not know an operator.
    """
    source = model.opset_imports.get("", 0)
    if source >= OPSET:
        return model
    if source < OLDEST:
        raise InputError(f"The model has opset {source}, {OLDEST} is the oldest that runs.", "Export it again.")
    return _raised(model)


@pure
def _raised(model: ir.Model) -> ir.Model:
    source = model.opset_imports[""]
    try:
        proto = onnx.version_converter.convert_version(skeleton(model), OPSET)
    except Exception as error:  # RuntimeError, ConvertError and others, with C++ file names
        raise InputError(
            f"The model cannot be raised from opset {source} to {OPSET}: {str(error).splitlines()[-1]}.",
            f"Export it with opset {OPSET} or later.",
        ) from error
    raised = reattach(ir.serde.deserialize_model(proto), model)
    _restore(raised, model)
    return raised


def _restore(raised: ir.Model, model: ir.Model) -> None:
    """Bring back what the converter drops or gets wrong."""
    raised.metadata_props.update(model.metadata_props)
    raised.ir_version = model.ir_version
    old = {node.outputs[0].name: node for node in model.graph}
    for node in raised.graph:
        before = old.get(node.outputs[0].name)
        if before is not None:
            node.name = before.name
            if before.op_type == "Upsample" or (before.op_type == "Resize" and model.opset_imports[""] == 10):
                _resize_as_before_11(node)
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(raised)
    NameFixPass()(raised)  # new nodes may have the names of old ones


def _resize_as_before_11(node: ir.Node) -> None:
    """Upsample and the first Resize sampled at x / scale; Resize's default has half-pixel centres since opset 11."""
    node.attributes["coordinate_transformation_mode"] = ir.AttrString("coordinate_transformation_mode", "asymmetric")
    if node.attributes.get_string("mode", "nearest") == "nearest":
        node.attributes["nearest_mode"] = ir.AttrString("nearest_mode", "floor")

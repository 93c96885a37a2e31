"""Operators that ONNX defines as functions of simpler ones, replaced by their bodies where no rule exists."""

import onnx
import onnx.inliner
import onnx_ir as ir
from onnx_ir.passes.common import NameFixPass

from craft_onnx.graph.passes.fold import fold_constants
from craft_onnx.graph.passes.keeping import pure
from craft_onnx.graph.passes.shapes import infer_shapes
from craft_onnx.graph.reverse.rules import Rules
from craft_onnx.graph.skeleton import reattach, skeleton


def inline_functions(model: ir.Model, rules: Rules) -> ir.Model:
    """Replace operators that `rules` lack by their bodies, and those in the bodies, where ONNX defines such.

    Parameters
    ----------
    model : onnx_ir.Model
        Normalized; is not changed.
    rules : Rules
        What has a rule stays as it is.
    """
    while names := _inlinable(model, rules):
        model = infer_shapes(fold_constants(_inlined(model, names)))
    return model


def _inlinable(model: ir.Model, rules: Rules) -> set[str]:
    opset = model.opset_imports[""]
    unknown = {node.op_type for node in model.graph if not (node.domain or rules.find(node) or rules.stops(node))}
    schemas = (onnx.defs.get_schema(name, opset, "") for name in unknown)
    return {schema.name for schema in schemas if schema.has_function or schema.has_context_dependent_function}


def _inlined(model: ir.Model, names: set[str]) -> ir.Model:
    @pure
    def inline(copy: ir.Model) -> ir.Model:
        proto = onnx.inliner.inline_selected_functions(
            skeleton(copy), [("", name) for name in names], inline_schema_functions=True
        )
        after = reattach(ir.serde.deserialize_model(proto), copy)
        NameFixPass()(after)
        return after

    return inline(model)

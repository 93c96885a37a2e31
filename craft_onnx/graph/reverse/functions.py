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
from craft_onnx.graph.values import operators

# Their bodies compute the same and have another derivative: rounding hides in the one, a loop in the other.
_OPAQUE = operators("DynamicQuantizeLinear SequenceMap")


def inline_functions(model: ir.Model, rules: Rules) -> ir.Model:
    """Replace operators that `rules` lack by their bodies, and those in the bodies, where ONNX defines such.

    What the bodies compute of known shapes is folded; the new nodes answer to the layers of the operator.

    Parameters
    ----------
    model : onnx_ir.Model
        Normalized; is not changed, and its weights are shared.
    rules : Rules
        What has a rule stays as it is, and what has no derivative.
    """
    while names := {node.op_type for node in model.graph if _is_inlinable(node, model.opset_imports[""], rules)}:
        model = infer_shapes(fold_constants(_inlined(model, names)))
    return model


def has_body(op_type: str, opset: int) -> bool:
    """Whether ONNX defines an operator of its own as a function that can be differentiated in its place."""
    if op_type in _OPAQUE or not onnx.defs.has(op_type, opset, ""):
        return False
    schema = onnx.defs.get_schema(op_type, opset, "")
    return bool(schema.has_function or schema.has_context_dependent_function)


def _is_inlinable(node: ir.Node, opset: int, rules: Rules) -> bool:
    known = node.domain or rules.find(node) or rules.stops(node)
    return not known and has_body(node.op_type, opset)


def _inlined(model: ir.Model, names: set[str]) -> ir.Model:
    @pure
    def inline(copy: ir.Model) -> ir.Model:
        proto = onnx.inliner.inline_selected_functions(
            skeleton(copy), [("", name) for name in sorted(names)], inline_schema_functions=True
        )
        after = reattach(ir.serde.deserialize_model(proto), copy)
        NameFixPass()(after)
        return after

    return inline(model)

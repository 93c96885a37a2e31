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

# Their bodies are no help: rounding hides in the first, loops in the next two, unknown ranks in the last.
_OPAQUE = operators("DynamicQuantizeLinear SequenceMap LinearAttention AffineGrid")


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
    tried: set[tuple[str, str | None]] = set()
    while nodes := [node for node in _inlinable(model, rules) if _key(node) not in tried]:
        tried.update(_key(node) for node in nodes)
        for op_type in sorted({node.op_type for node in nodes}):
            model = _inlined(model, op_type)
        model = _folded(model, keep={value.name for node in nodes for value in node.outputs})
    return model


def _key(node: ir.Node) -> tuple[str, str | None]:
    """What is the same of a node as long as it is not inlined: ONNX lacks the bodies of some for some types."""
    return node.op_type, node.outputs[0].name


def has_body(op_type: str, opset: int) -> bool:
    """Whether ONNX defines an operator of its own as a function that can be differentiated in its place."""
    if op_type in _OPAQUE or not onnx.defs.has(op_type, opset, ""):
        return False
    schema = onnx.defs.get_schema(op_type, opset, "")
    return bool(schema.has_function or schema.has_context_dependent_function)


def _inlinable(model: ir.Model, rules: Rules) -> list[ir.Node]:
    unknown = (node for node in model.graph if not (node.domain or rules.find(node) or rules.stops(node)))
    return [node for node in unknown if has_body(node.op_type, model.opset_imports[""])]


def _inlined(model: ir.Model, op_type: str) -> ir.Model:
    @pure
    def inline(copy: ir.Model) -> ir.Model:
        proto = skeleton(copy)
        _spell_out_defaults(proto, op_type)
        try:
            proto = onnx.inliner.inline_selected_functions(proto, [("", op_type)], inline_schema_functions=True)
        except RuntimeError:  # the type of an input left out, or of what inference does not know
            return copy  # where a derivative leads through the operator, the reverse pass names it
        after = reattach(ir.serde.deserialize_model(proto), copy)
        NameFixPass()(after)
        return after

    return inline(model)


def _spell_out_defaults(proto: onnx.ModelProto, op_type: str) -> None:
    """Attributes that nodes leave out: a body reads them, and the inliner knows what is written alone."""
    opset = next(one.version for one in proto.opset_import if not one.domain)
    known = onnx.defs.get_schema(op_type, opset, "").attributes
    for node in proto.graph.node:
        if node.op_type == op_type and not node.domain:
            given = {attribute.name for attribute in node.attribute}
            defaults = (one.default_value for name, one in known.items() if name not in given)
            node.attribute.extend(default for default in defaults if default.name)


def _folded(model: ir.Model, keep: set[str | None]) -> ir.Model:
    """Fold constants and infer shapes; tensors to `keep`, which are outputs for as long, are still there afterwards."""
    outputs = model.graph.outputs
    count = len(outputs)
    kept = (value for node in model.graph for value in node.outputs if value.name and value.name in keep)
    outputs.extend(value for value in kept if not value.is_graph_output())
    model = infer_shapes(fold_constants(model))
    model.graph.outputs[count:] = []
    return model

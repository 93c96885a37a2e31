"""ONNX's own inference of types and shapes, for one node at a time."""

import onnx
import onnx_ir as ir

_SMALL = 100  # elements of a constant on which shapes may depend

# Operators that ONNX's inference leaves out, by domain and name, and those of ONNX's own whose outputs theirs are like.
_LIKE = {("", "GroupNormalization"): "Identity", ("", "MeanVarianceNormalization"): "Identity"}


def infer_like(op_type: str, domain: str, like: str) -> None:
    """From now on, give an operator's outputs the types and shapes that ONNX's operator `like` would give them."""
    _LIKE[domain, op_type] = like


def stand_in(node: ir.Node) -> str | None:
    """ONNX's operator that a node's outputs are like; None where its own is known, or nobody said."""
    return _LIKE.get((node.domain, node.op_type))


def inferred_types(node: ir.Node, opset: int, ir_version: int) -> dict[str, onnx.TypeProto]:
    """Types, with shapes, of a node's outputs by name, as far as they follow from those of its inputs.

    Parameters
    ----------
    node : onnx_ir.Node
        Of the standard domain, or of an operator with a stand-in.
    opset, ir_version : int
        Of its model.

    Raises
    ------
    Exception
        Of many kinds, if the inputs contradict the operator's definition.
    """
    schema = onnx.defs.get_schema(stand_in(node) or node.op_type, opset, "")
    values = [value for value in node.inputs if value is not None and value.type is not None]
    found: dict[str, onnx.TypeProto] = onnx.shape_inference.infer_node_outputs(
        schema,
        _node_proto(node, schema),
        {str(value.name): _type_proto(value) for value in values},
        {str(value.name): _small_tensor(value) for value in values if _is_small(value)},
        opset_imports=[onnx.helper.make_opsetid("", opset)],
        ir_version=ir_version,
    )
    return found


def note_types(node: ir.Node, opset: int, ir_version: int) -> None:
    """Note on a node's outputs what `inferred_types` finds."""
    types = inferred_types(node, opset, ir_version)
    for value in node.outputs:
        if proto := types.get(str(value.name)):
            value.type = ir.serde.deserialize_type_proto_for_type(proto)
            value.shape = ir.serde.deserialize_type_proto_for_shape(proto)


def _node_proto(node: ir.Node, schema: onnx.defs.OpSchema) -> onnx.NodeProto:
    """The node as one of a schema's operator: without what that does not know."""
    proto = ir.serde.serialize_node(node)
    proto.op_type, proto.domain = schema.name, schema.domain
    known = [attribute for attribute in proto.attribute if attribute.name in schema.attributes]
    del proto.attribute[:], proto.input[schema.max_input :], proto.output[schema.max_output :]
    proto.attribute.extend(known)
    return proto


def _type_proto(value: ir.Value) -> onnx.TypeProto:
    assert value.type is not None
    proto = ir.serde.serialize_type(value.type)
    if value.shape is not None:
        ir.serde.serialize_shape_into(proto, value.shape)
    return proto


def _is_small(value: ir.Value) -> bool:
    return value.const_value is not None and value.const_value.size <= _SMALL


def _small_tensor(value: ir.Value) -> onnx.TensorProto:
    assert value.const_value is not None
    return onnx.numpy_helper.from_array(value.const_value.numpy(), str(value.name))

"""ONNX's own inference of types and shapes, for one node at a time."""

import numpy as np
import onnx
import onnx_ir as ir

from craft_onnx.graph.values import constant

_SMALL = 100  # elements of a constant on which shapes may depend


def inferred_types(node: ir.Node, opset: int, ir_version: int) -> dict[str, onnx.TypeProto]:
    """Types, with shapes, of a node's outputs by name, as far as they follow from those of its inputs.

    Parameters
    ----------
    node : onnx_ir.Node
        Of the standard domain.
    opset, ir_version : int
        Of its model.

    Raises
    ------
    Exception
        Of many kinds, if the inputs contradict the operator's definition.
    """
    values = [value for value in node.inputs if value is not None and value.type is not None]
    found: dict[str, onnx.TypeProto] = onnx.shape_inference.infer_node_outputs(
        onnx.defs.get_schema(node.op_type, opset, ""),
        ir.serde.serialize_node(node),
        {str(value.name): _type_proto(value) for value in values},
        {str(value.name): _small_tensor(value) for value in values if _is_small(value)},
        opset_imports=[onnx.helper.make_opsetid("", opset)],
        ir_version=ir_version,
    )
    return found


def _type_proto(value: ir.Value) -> onnx.TypeProto:
    assert value.type is not None
    proto = ir.serde.serialize_type(value.type)
    if value.shape is not None:
        ir.serde.serialize_shape_into(proto, value.shape)
    return proto


def _is_small(value: ir.Value) -> bool:
    return value.const_value is not None and value.const_value.size <= _SMALL


def _small_tensor(value: ir.Value) -> onnx.TensorProto:
    array = constant(value)
    assert array is not None
    return onnx.numpy_helper.from_array(np.asarray(array), str(value.name))

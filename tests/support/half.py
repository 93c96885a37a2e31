"""Models in half precision, as converters write them."""

import numpy as np
import onnx_ir as ir

FLOAT, HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16


def halved(model, keep_io=False):
    """A copy in float16; with `keep_io`, its input and output stay float32 behind Casts."""
    model = ir.serde.deserialize_model(ir.serde.serialize_model(model))
    graph = model.graph
    for value in graph.initializers.values():
        if value.dtype == FLOAT:
            value.const_value = ir.tensor(value.const_value.numpy().astype(np.float16), name=value.name)
    for node in graph:
        _halve_attributes(node)
    for value in [*graph.inputs, *graph.initializers.values(), *(one for node in graph for one in node.outputs)]:
        if value.dtype == FLOAT:
            value.type = ir.TensorType(HALF)
    if keep_io:
        _keep_io(graph)
    return model


def _halve_attributes(node):
    for name, attribute in list(node.attributes.items()):
        if node.op_type == "Cast" and name == "to" and attribute.value == FLOAT:
            node.attributes[name] = ir.AttrInt64(name, HALF)
        if attribute.type == ir.AttributeType.TENSOR and attribute.value.dtype == FLOAT:
            node.attributes[name] = ir.AttrTensor(name, ir.tensor(attribute.value.numpy().astype(np.float16)))


def _keep_io(graph):
    x, y = graph.inputs[0], graph.outputs[0]
    narrow = ir.node("Cast", [x], {"to": HALF}, outputs=[ir.Value(name="narrow", shape=x.shape, type=x.type)], name="a")
    users = list(x.uses())
    x.type = ir.TensorType(FLOAT)
    for node, index in users:
        if node is not narrow:
            node.replace_input_with(index, narrow.outputs[0])
    graph.insert_before(graph.node(0), narrow)
    wide = ir.Value(name="wide", shape=y.shape, type=ir.TensorType(FLOAT))
    graph.append(ir.node("Cast", [y], {"to": FLOAT}, outputs=[wide], name="b"))
    graph.outputs[:] = [wide]


def rounded(model):
    """A float32 model with the weights of its float16 copy."""
    model = ir.serde.deserialize_model(ir.serde.serialize_model(model))
    for value in model.graph.initializers.values():
        if value.dtype == FLOAT:
            array = value.const_value.numpy().astype(np.float16).astype(np.float32)
            value.const_value = ir.tensor(array, name=value.name)
    return model

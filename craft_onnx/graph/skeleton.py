"""A model without its weights, for ONNX's C++ tools: they take serialized models, 2 GB at most, all in memory."""

import onnx
import onnx_ir as ir

# Small initializers stay: shapes, axes and scales, on whose values inference and conversion depend.
KEPT_BYTES = 1000


def skeleton(model: ir.Model) -> onnx.ModelProto:
    """Serialize a model with its large and its external initializers turned into inputs."""
    copy = model.clone()
    graph = copy.graph
    for name, value in list(graph.initializers.items()):
        if _is_large(value.const_value):
            del graph.initializers[name]
            _describe(value)
            if value not in graph.inputs:
                graph.inputs.append(value)
    return ir.serde.serialize_model(copy)


def reattach(bare: ir.Model, model: ir.Model) -> ir.Model:
    """Give a model made from `skeleton(model)` its weights back, in place; returns it."""
    inputs = {value.name for value in model.graph.inputs}
    for value in list(bare.graph.inputs):
        weight = model.graph.initializers.get(value.name or "")
        if weight is None:
            continue
        value.const_value = weight.const_value
        if value.name not in inputs:
            bare.graph.inputs.remove(value)
        bare.graph.register_initializer(value)
    return bare


def _is_large(tensor: ir.TensorProtocol | None) -> bool:
    return tensor is not None and (tensor.nbytes > KEPT_BYTES or isinstance(tensor, ir.ExternalTensor))


def _describe(value: ir.Value) -> None:
    """An input must say its type and shape, an initializer need not."""
    tensor = value.const_value
    assert tensor is not None
    value.shape, value.dtype, value.const_value = ir.Shape(tensor.shape.numpy()), tensor.dtype, None

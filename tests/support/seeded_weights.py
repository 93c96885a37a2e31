"""Weights that follow from their names, so that a network can be kept without them."""

import zlib

import numpy as np
import onnx
from onnx import numpy_helper


def seeded(name, shape):
    """The weights of a parameter by its name in PyTorch: activations keep their size, statistics are anything."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    normal = rng.standard_normal(shape)
    if name.endswith(("running_var", "weight")) and len(shape) == 1:
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    scale = 0.1 if len(shape) == 1 else np.sqrt(2 / np.prod(shape[1:]))
    return (normal * scale).astype(np.float32)


def without_weights(proto):
    """An ONNX model whose weights are taken out, as bytes; what the exporter says of its own goes too."""
    for tensor in _weights(proto):
        tensor.ClearField("raw_data")
    for part in (proto, proto.graph, *proto.graph.node):
        del part.metadata_props[:]
    for node in proto.graph.node:
        node.ClearField("doc_string")
    del proto.graph.value_info[:]
    return proto.SerializeToString()


def with_weights(content):
    """The model again, with the weights that follow from the names."""
    proto = onnx.ModelProto.FromString(content)
    for tensor in _weights(proto):
        array = seeded(tensor.name, tuple(tensor.dims))
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return proto


def _weights(proto):
    """Parameters: what has a module's name."""
    floats = (tensor for tensor in proto.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT)
    return [tensor for tensor in floats if "." in tensor.name]

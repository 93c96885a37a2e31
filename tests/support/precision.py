"""A model in another precision."""

import numpy as np
import onnx_ir as ir


def in_double(model):
    """A copy of a float32 model that calculates in float64."""
    copy = model.clone()
    for value in copy.graph.initializers.values():
        array = value.const_value.numpy()
        if array.dtype == np.float32:
            value.const_value = ir.tensor(array.astype(np.float64), name=value.name)
    values = [*copy.graph.inputs, *copy.graph.initializers.values(), *(v for node in copy.graph for v in node.outputs)]
    for value in values:
        if value.dtype == ir.DataType.FLOAT:
            value.type = ir.TensorType(ir.DataType.DOUBLE)  # a clone shares its types
    return copy

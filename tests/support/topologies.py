"""The nine topologies in the backend test data of the onnx package: opset 9, made for one picture of 224 x 224."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

LIGHT = sorted((Path(onnx.__file__).parent / "backend" / "test" / "data" / "light").glob("*.onnx"))


def fill(model):
    """Random numbers for the constants that these files only say how to fill, but for the largest (VGG's 411 MB)."""
    rng = np.random.default_rng(1)
    for node in list(model.graph):
        if node.op_type == "ConstantOfShape":
            shape = tuple(int(size) for size in node.inputs[0].const_value.numpy())
            if np.prod(shape) < 2**23:
                scale = np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else 0.3
                array = (rng.standard_normal(shape) * scale).astype(np.float32)
                array = np.abs(array) + 0.5 if len(shape) == 1 else array  # variances among them
                value = ir.Value(name=f"{node.outputs[0].name}_filled", const_value=ir.tensor(array))
                value.type, value.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(shape)
                model.graph.register_initializer(value)
                node.outputs[0].replace_all_uses_with(value)
                model.graph.remove(node, safe=True)
    return model

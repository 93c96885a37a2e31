"""Fixtures of the tests of concepts: the small network as callables, as an ONNX model and as a bundle."""

from types import ModuleType

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from support import small_net

from craft_onnx.description import Description, Preprocessing
from craft_onnx.graph.load import write_description
from craft_onnx.runtime.bundle import create_bundle

HEADS = {
    "linear": ["GlobalAveragePool", "Flatten", "linear"],
    "mlp": ["GlobalAveragePool", "Flatten", "hidden", "Relu", "out"],
    "positions": ["Flatten", "dense"],
    "channels_last": ["Transpose", "ReduceMean", "linear"],
    "conv": ["conv3", "Relu", "GlobalAveragePool", "Flatten", "short"],
}


@pytest.fixture(scope="session", name="small_net")
def small_net_module() -> ModuleType:
    return small_net


@pytest.fixture(scope="session")
def weights(small_net):
    rng = np.random.default_rng(11)
    more = {
        "dense": (0.05 * rng.normal(size=(5, 24 * 10 * 8)), rng.normal(size=5)),
        "conv3": (0.3 * rng.normal(size=(8, 24, 3, 3)), rng.normal(size=8)),
        "short": (rng.normal(size=(5, 8)), rng.normal(size=5)),
    }
    return small_net.network() | {name: tuple(x.astype(np.float32) for x in pair) for name, pair in more.items()}


@pytest.fixture(scope="session")
def images(small_net):
    return small_net.pictures()


@pytest.fixture(scope="session")
def pictures(images):
    """The images as uint8 RGB (N, H, W, 3), the model's preprocessing being a division by 255."""
    return np.rint(255 * np.clip(images, 0, 1)).astype(np.uint8).transpose(0, 2, 3, 1)


@pytest.fixture(scope="session")
def make_model(weights):
    """make_model(head) -> onnx_ir.Model: conv1, relu1, conv2, relu2, then the layers of the head."""

    def make(head):
        layers = ["conv1", "Relu", "conv2", "Relu", *HEADS[head]]
        nodes, initializers, last = [], [], "image"
        for i, layer in enumerate(layers):
            output = f"{layer}_{i}"
            inputs = [last]
            if layer in weights:
                for kind, array in zip(("weight", "bias"), weights[layer], strict=True):
                    initializers.append(onnx.numpy_helper.from_array(array, f"{layer}.{kind}"))
                    inputs.append(f"{layer}.{kind}")
            if layer == "ReduceMean":
                initializers.append(onnx.numpy_helper.from_array(np.array([1, 2], np.int64), "axes"))
            nodes.append(_node(layer, inputs, output, weights))
            last = output
        graph = onnx.helper.make_graph(
            nodes,
            head,
            [onnx.helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["N", 3, 48, 40])],
            [onnx.helper.make_tensor_value_info(last, onnx.TensorProto.FLOAT, ["N", 5])],
            initializers,
        )
        opset = onnx.helper.make_opsetid("", 18)
        proto = onnx.shape_inference.infer_shapes(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=10))
        model = ir.from_proto(proto)
        rule = Preprocessing(size=(48, 40), scale=1 / 255)
        write_description(model, Description(preprocessing=rule))
        return model

    return make


def _node(layer, inputs, output, weights):
    if layer == "Transpose":
        return onnx.helper.make_node(layer, inputs, [output], name=output, perm=[0, 2, 3, 1])
    if layer == "ReduceMean":
        return onnx.helper.make_node(layer, [*inputs, "axes"], [output], name=output, keepdims=0)
    if layer not in weights:
        return onnx.helper.make_node(layer, inputs, [output], name=output)
    if weights[layer][0].ndim == 4:
        return onnx.helper.make_node("Conv", inputs, [output], name=output, strides=[2, 2])
    return onnx.helper.make_node("Gemm", inputs, [output], name=output, transB=1)


@pytest.fixture(scope="session")
def make_bundle(make_model, tmp_path_factory):
    """make_bundle(head) -> a new bundle cut after the second ReLU."""

    def make(head):
        return create_bundle(make_model(head), ["Relu_3"], tmp_path_factory.mktemp("bundles") / head)

    return make


@pytest.fixture(scope="session")
def bundles(make_bundle):
    """One bundle per head, not to be written to."""
    return {head: make_bundle(head) for head in HEADS}

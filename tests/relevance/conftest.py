"""Networks to carry relevance through: that of zennit-crp's own tests, one with a shortcut, and the birds'."""

import numpy as np
import onnx_ir as ir
import pytest

import craft_onnx as co
from craft_onnx.graph.load import save

SIDE_BY_SIDE = """<ir_version: 10, opset_import: ["" : 18]> agraph (float[n, 2] x) => (float[n, 1] y)
<float[2, 2] w1 = {1, 0, 2, 1}, float[2, 2] w2 = {2, 0, 3, 0}, float[4, 1] w3 = {1, 4, 5, 0}> {
    layer1 = Gemm(x, w1)
    layer2 = Gemm(x, w2)
    beside = Concat<axis = 1>(layer1, layer2)
    positive = Relu(beside)
    y = Gemm(positive, w3)
}"""

# A residual block around two convolutions, channels last at the input, as Keras has it.
RESIDUAL = """<ir_version: 10, opset_import: ["" : 18]> agraph (float[n, 8, 6, 3] x) => (float[n, 4] y)
<float[6, 3, 3, 3] w1, float[6] b1, float[6, 6, 3, 3] w2, float[6] b2, float[6, 4] w3, int64[2] axes = {1, 2}> {
    first = Transpose<perm = [0, 3, 1, 2]>(x)
    conv1 = Conv<pads = [1, 1, 1, 1]>(first, w1, b1)
    act1 = Relu(conv1)
    conv2 = Conv<pads = [1, 1, 1, 1]>(act1, w2, b2)
    act2 = Relu(conv2)
    both = Add(act1, act2)
    last = Transpose<perm = [0, 2, 3, 1]>(both)
    positive = Relu(last)
    pooled = ReduceMean<keepdims = 0>(positive, axes)
    y = MatMul(pooled, w3)
}"""
SHAPES = {"w1": (6, 3, 3, 3), "b1": (6,), "w2": (6, 6, 3, 3), "b2": (6,), "w3": (6, 4)}


@pytest.fixture(scope="session")
def side_by_side(tmp_path_factory):
    path = tmp_path_factory.mktemp("side") / "net.onnx"
    save(ir.from_onnx_text(SIDE_BY_SIDE), path)
    return co.load(path)


@pytest.fixture(scope="session")
def residual(tmp_path_factory):
    rng = np.random.default_rng(5)
    weights = [ir.tensor(rng.normal(size=shape).astype(np.float32), name=name) for name, shape in SHAPES.items()]
    path = tmp_path_factory.mktemp("residual") / "net.onnx"
    save(ir.from_onnx_text(RESIDUAL, initializers=weights), path)
    return co.load(path, cut="both")


@pytest.fixture(scope="session")
def pictures():
    return np.random.default_rng(6).normal(size=(5, 8, 6, 3)).astype(np.float32)


@pytest.fixture(scope="session")
def birds():
    from craft_onnx_models.birds import model_path

    return co.load(model_path("shortcut"))


@pytest.fixture(scope="session")
def bird_inputs(birds):
    from craft_onnx_models.birds.draw import draw_many
    from craft_onnx_models.birds.draw import pictures as of

    return birds.preprocess(of(draw_many(12, seed=4)))

"""Gradients of quantized networks."""

import logging

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from support.gradient_oracle import assert_close, run

from craft_onnx.errors import UnsupportedOperator
from craft_onnx.graph.load import load
from craft_onnx.graph.normalize import normalize
from craft_onnx.graph.reverse.vjp import gradient_graph
from craft_onnx.runtime.proof import normalize_proven

quantization = pytest.importorskip("onnxruntime.quantization")
RNG = np.random.default_rng(11)
X = RNG.uniform(-2, 2, (3, 4, 5, 6)).astype(np.float32)
COTANGENT = RNG.standard_normal(X.shape).astype(np.float32)


def rounding(scale, zero, attributes="axis=1", opset=21):
    """QuantizeLinear and DequantizeLinear of x."""
    model = ir.from_onnx_text(
        f"""<ir_version: 10, opset_import: ["" : {opset}]>
        rounding (float[N,4,5,6] x) => (float[N,4,5,6] y) {{
            q = QuantizeLinear<{attributes}>(x, scale, zero)
            y = DequantizeLinear<{attributes}>(q, scale, zero)
        }}"""
    )
    for name, array in (("scale", np.asarray(scale, np.float32)), ("zero", zero)):
        value = next(one for node in model.graph for one in node.inputs if one.name == name)
        value.const_value = ir.tensor(array, name=name)
        value.shape, value.type = ir.Shape(array.shape), ir.TensorType(value.const_value.dtype)
        model.graph.register_initializer(value)
        for node in model.graph:
            for index, used in enumerate(node.inputs):
                if used.name == name:
                    node.replace_input_with(index, value)
    return model


def gradient(model, x=X, cotangent=COTANGENT):
    return run(gradient_graph(model), x=x, cotangent=cotangent)


def expected(low, high):
    """The cotangent where x is within a range."""
    return np.where(np.clip(X, low, high) == X, COTANGENT, 0)


@pytest.mark.parametrize(("kind", "zero"), [(np.uint8, 0), (np.uint8, 100), (np.int8, 0), (np.int8, -128)])
def test_rounding_to_one_range(kind, zero):
    x = torch.tensor(X, requires_grad=True)
    info = np.iinfo(kind)
    y = torch.fake_quantize_per_tensor_affine(x, 0.01, zero, int(info.min), int(info.max))
    dx = torch.autograd.grad(y, x, torch.tensor(COTANGENT))[0]
    assert 0.2 < (dx == 0).float().mean() < 0.8  # beyond the range on one side or on both
    np.testing.assert_array_equal(gradient(rounding(0.01, np.array(zero, kind))), dx)


def test_a_range_for_each_channel():
    scale = np.array([0.002, 0.005, 0.01, 0.02], np.float32)
    x = torch.tensor(X, requires_grad=True)
    zero = torch.zeros(4, dtype=torch.int32)
    y = torch.fake_quantize_per_channel_affine(x, torch.tensor(scale), zero, 1, -128, 127)
    dx = torch.autograd.grad(y, x, torch.tensor(COTANGENT))[0]
    np.testing.assert_array_equal(gradient(rounding(scale, np.zeros(4, np.int8))), dx)


def test_a_range_for_each_block():
    """Two blocks of three along the last axis, of which the second has the larger range."""
    scale = np.broadcast_to(np.float32([0.005, 0.02]), (3, 4, 5, 2)).copy()
    found = gradient(rounding(scale, np.zeros(scale.shape, np.int8), "axis=-1, block_size=3"))
    steps = np.repeat(np.float32([0.005, 0.02]), 3)
    np.testing.assert_array_equal(found, expected(-128.5 * steps, 127.5 * steps))


@pytest.mark.parametrize("kind", ["int4", "uint4", "int16", "float8_e4m3fn", "float8_e5m2"])
def test_other_types(kind):
    import ml_dtypes

    kind = np.dtype(getattr(ml_dtypes, kind, kind))
    info = ml_dtypes.finfo(kind) if kind.name.startswith("float") else ml_dtypes.iinfo(kind)
    low, high = float(info.min), float(info.max)
    scale = np.float32(1 / high)
    found = gradient(rounding(scale, np.array(0, kind)))
    np.testing.assert_array_equal(found, expected((low - 0.5) * scale, (high + 0.5) * scale))


class Pictures(quantization.CalibrationDataReader):
    def __init__(self, path, count=4):
        spec = ort.InferenceSession(path, providers=["CPUExecutionProvider"]).get_inputs()[0]
        shape = [size if isinstance(size, int) else 8 for size in spec.shape]
        self.rows = iter([{spec.name: RNG.standard_normal(shape).astype(np.float32)} for _ in range(count)])

    def get_next(self):
        return next(self.rows, None)


@pytest.fixture
def quantized(tmp_path, monkeypatch):
    """Function that quantizes a model statically, and loads it."""
    monkeypatch.setattr(logging.root, "disabled", True)  # it advises preprocessing

    def quantize(model, layout="QDQ", **options):
        paths = [str(tmp_path / name) for name in ("float.onnx", "int8.onnx")]
        ir.save(model, paths[0])
        form = quantization.QuantFormat[layout]
        quantization.quantize_static(paths[0], paths[1], Pictures(paths[0]), quant_format=form, **options)
        return load(paths[1])

    return quantize


def cosines(one, other):
    one, other = (array.reshape(len(array), -1).astype(np.float64) for array in (one, other))
    return (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)


def stored(model):
    return sum(value.const_value.nbytes for value in model.graph.initializers.values())


@pytest.mark.parametrize("name", ["resnet", "densenet", "vgg"])
@pytest.mark.parametrize("per_channel", [False, True])
def test_a_network_quantized_to_int8(net, quantized, name, per_channel):
    real = normalize(net(name))
    deployed = quantized(net(name), per_channel=per_channel)
    integer, errors = normalize_proven(deployed)
    assert max(errors.values()) == 0
    backward = gradient_graph(integer)
    # The weights are there once, as eight bits, and so is what little is added.
    assert stored(backward) < stored(deployed) + 1000 < stored(real)
    spec = real.graph.inputs[0]
    x = RNG.standard_normal([8, *spec.shape[1:]]).astype(np.float32)
    y = run(real, **{spec.name: x})
    cotangent = RNG.standard_normal(y.shape).astype(np.float32)
    dx, expected = (run(graph, **{spec.name: x, "cotangent": cotangent}) for graph in (backward, gradient_graph(real)))
    assert dx.dtype == np.float32
    assert cosines(run(integer, **{spec.name: x}), y).min() > 0.97
    # Rounding moves single maxima and units near zero to their neighbours: less so in most pictures than in some.
    assert np.median(cosines(dx, expected)) > 0.95
    assert cosines(dx, expected).min() > 0.6


def test_trained_networks_quantized_to_int8(trained, quantized):
    real, deployed = normalize(trained), quantized(trained, per_channel=True)
    backward = gradient_graph(normalize(deployed))
    assert stored(backward) < stored(deployed) + 1000
    x = RNG.standard_normal([2, *real.graph.inputs[0].shape[1:]]).astype(np.float32)
    cotangent = np.zeros((2, real.graph.outputs[0].shape[1]), np.float32)
    cotangent[:, 1] = 1
    name = real.graph.inputs[0].name
    dx, expected = (run(graph, **{name: x, "cotangent": cotangent}) for graph in (backward, gradient_graph(real)))
    # Rounding flips units on either side of zero, the more the deeper: 0.95, 0.85 and 0.7 were seen.
    assert cosines(dx, expected).min() > 0.5


def test_integers_alone(net, quantized):
    message = r"ai\.onnx::QLinearConv \(node '.+', layer '.+'\) calculates with integers alone\. Quantize .* QDQ"
    with pytest.raises(UnsupportedOperator, match=message) as caught:
        gradient_graph(normalize(quantized(net("flat"), "QOperator", op_types_to_quantize=["Conv"])))
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("body", ["ConvInteger(q, w, zero)", "MatMulInteger(q, q, zero, zero)"])
def test_integers_made_at_run_time(body):
    """As quantize_dynamic does it: the scale is real and depends on x, but leads nowhere."""
    model = ir.from_onnx_text(
        f"""<ir_version: 10, opset_import: ["" : 18]>
        dynamic (float[N,4,6,6] x) => (float[N,M,A,B] y)
        <int8[5,4,1,1] w = {{{",".join(["1"] * 20)}}}> {{
            q, scale, zero = DynamicQuantizeLinear(x)
            i = {body}
            f = Cast<to=1>(i)
            y = Mul(f, scale)
        }}"""
    )
    with pytest.raises(UnsupportedOperator, match=f"ai.onnx::{body.split('(')[0]}"):
        gradient_graph(normalize(model))


def test_integers_between_rounding_and_the_way_back():
    """MaxPool, Reshape and Transpose of the integers themselves."""
    model = ir.from_onnx_text(
        """<ir_version: 10, opset_import: ["" : 21]>
        moved (float[N,4,6,6] x) => (float[N,9,4] y)
        <float scale = {0.05}, uint8 zero = {128}, int64[3] shape = {0, 4, 9}> {
            q = QuantizeLinear(x, scale, zero)
            p = MaxPool<kernel_shape=[2, 2], strides=[2, 2]>(q)
            r = Reshape(p, shape)
            t = Transpose<perm=[0, 2, 1]>(r)
            y = DequantizeLinear(t, scale, zero)
        }"""
    )
    x = torch.tensor(RNG.uniform(-8, 8, (2, 4, 6, 6)).astype(np.float32), requires_grad=True)
    rounded = torch.fake_quantize_per_tensor_affine(x, 0.05, 128, 0, 255)
    y = torch.nn.functional.max_pool2d(rounded, 2).reshape(2, 4, 9).transpose(1, 2)
    cotangent = RNG.standard_normal(y.shape).astype(np.float32)
    expected = torch.autograd.grad(y, x, torch.tensor(cotangent))[0]
    onnx.checker.check_model(ir.serde.serialize_model(gradient_graph(normalize(model))))
    assert_close(gradient(normalize(model), x.detach().numpy(), cotangent), expected, 0, "torch")

import dataclasses

import numpy as np
import onnx_ir as ir
import pytest

from craft_onnx.description import Preprocessing
from craft_onnx.errors import InputError
from craft_onnx.graph.bake import bake_preprocessing
from craft_onnx.graph.load import check, image_input, load, save
from craft_onnx.graph.names import layer_of, layers_of, record_layers
from craft_onnx.graph.normalize import normalize
from craft_onnx.runtime.preprocess import preprocess

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 5, 7, 3), dtype=np.uint8)
RULES = {
    "torch": Preprocessing.preset("torch", (5, 7)),
    "torch nhwc": Preprocessing.preset("torch", (5, 7), layout="NHWC"),
    "caffe": Preprocessing.preset("caffe", (5, 7)),
    "tf": Preprocessing.preset("tf", (5, 7), layout="NHWC"),
    "none": Preprocessing.preset("none", (5, 7)),
    "none nhwc": Preprocessing.preset("none", (5, 7), layout="NHWC"),
    "bgr nhwc": Preprocessing((5, 7), "NHWC", "bgr", 0.5, (1.0, 2.0, 3.0), (4.0, 5.0, 6.0)),
}
GRAY = Preprocessing((5, 7), "NCHW", "gray", 1 / 255, (0.4,), (0.3,))


def identity_model(rule):
    channels = len(rule.mean)
    dims = f"{channels}, 5, 7" if rule.layout == "NCHW" else f"5, 7, {channels}"
    model = ir.from_onnx_text(f"""
        <ir_version: 10, opset_import: ["" : 18]> g (float[batch, {dims}] image) => (float[batch, {dims}] y)
        {{ y = Relu(image) }}""")
    record_layers(model)
    return model


@pytest.mark.parametrize("name", RULES)
def test_baked_is_what_the_runtime_computes(name, run):
    rule = RULES[name]
    baked = bake_preprocessing(identity_model(rule), rule)
    check(baked)
    pictures = image_input(baked)
    assert pictures.dtype == ir.DataType.UINT8 and str(pictures.shape) == "[batch,5,7,3]"
    # The same float32 operations in the same order: the same bits.
    np.testing.assert_array_equal(run(baked, PIXELS), np.maximum(preprocess(PIXELS, rule), 0))


def test_gray(run):
    actual = run(bake_preprocessing(identity_model(GRAY), GRAY), PIXELS)
    # Three products are added in another order, and divided by 255 * 0.3.
    np.testing.assert_allclose(actual, np.maximum(preprocess(PIXELS, GRAY), 0), atol=2e-6)


def test_a_model_in_half_precision(run):
    rule = RULES["torch"]
    model = ir.from_onnx_text("""
        <ir_version: 10, opset_import: ["" : 18]> g (float16[batch, 3, 5, 7] image) => (float16[batch, 3, 5, 7] y)
        { y = Relu(image) }""")
    baked = bake_preprocessing(model, rule)
    check(baked)
    expected = np.maximum(preprocess(PIXELS, rule), 0).astype(np.float16)
    np.testing.assert_array_equal(run(baked, PIXELS), expected)


def test_the_old_input_keeps_its_name_inside(run):
    model = identity_model(RULES["torch"])
    before = ir.serde.serialize_model(model).SerializeToString()
    baked = bake_preprocessing(model, RULES["torch"])
    assert ir.serde.serialize_model(model).SerializeToString() == before
    inside = baked.graph.outputs[0].producer().inputs[0]
    assert inside.name == "image" and inside.producer().op_type == "Transpose"
    assert layer_of(inside) == "image"


def test_layers_behind_the_input_stay_theirs(net):
    model = normalize(net("resnet"))
    baked = bake_preprocessing(model, Preprocessing.preset("torch", (32, 32)))
    new = [node for node in baked.graph if node.op_type in {"Cast", "Mul", "Sub", "Div", "Transpose"}]
    assert len(new) == 5 and not any(layers_of(node) for node in new)


def test_a_whole_network_from_raw_pictures(net, run, tmp_path):
    model = normalize(net("resnet"))
    rule = Preprocessing.preset("torch", (32, 32))
    baked = bake_preprocessing(model, rule)
    save(baked, tmp_path / "baked.onnx")
    pixels = np.random.default_rng(1).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    expected = run(model, preprocess(pixels, rule))
    np.testing.assert_allclose(run(load(tmp_path / "baked.onnx"), pixels), expected, rtol=1e-5, atol=1e-6)


def test_baking_twice():
    rule = RULES["torch"]
    model = identity_model(rule)
    baked = bake_preprocessing(model, rule)
    for again in (lambda: bake_preprocessing(baked, rule), lambda: bake_preprocessing(model, _baked(rule))):
        with pytest.raises(InputError, match="part of the model already"):
            again()


def _baked(rule):
    return dataclasses.replace(rule, baked=True, layout="NHWC")


@pytest.mark.parametrize("rule", [RULES["torch nhwc"], GRAY, Preprocessing.preset("torch", (7, 5))])
def test_a_rule_that_does_not_fit_the_input(rule):
    with pytest.raises(InputError, match="model's input 'image' is"):
        bake_preprocessing(identity_model(RULES["torch"]), rule)

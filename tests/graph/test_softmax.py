from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from scipy.special import softmax

from craft_onnx.errors import InputError
from craft_onnx.graph.load import check, load
from craft_onnx.graph.names import find_tensor
from craft_onnx.graph.normalize import normalize
from craft_onnx.graph.softmax import flatten_logits, remove_softmax

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
X = np.random.default_rng(0).standard_normal((2, 4, 1, 1)).astype(np.float32)


def model_of(body, output="n, 4", inputs="float[n, 4, 1, 1] x", opset=18):
    return ir.from_onnx_text(f"""
        <ir_version: 8, opset_import: ["" : {opset}]> g ({inputs}) => (float[{output}] y)
        <int64[2] s = {{0, -1}}, int64[4] t = {{0, -1, 1, 1}}, int64[2] a = {{2, 3}}> {{ {body} }}""")


FINAL = {
    "plain": ("f = Flatten(x)  y = Softmax(f)", "n, 4"),
    "on axis 1": ("f = Flatten(x)  y = Softmax <axis = 1> (f)", "n, 4"),
    "over the channels of one pixel": ("r = Neg(x)  y = Softmax <axis = 1> (r)", "n, 4, 1, 1"),
    "with Identity behind": ("f = Flatten(x)  p = Softmax(f)  y = Identity(p)", "n, 4"),
    "with Flatten behind": ("r = Neg(x)  p = Softmax <axis = 1> (r)  y = Flatten(p)", "n, 4"),
    "with Squeeze behind": ("r = Neg(x)  p = Softmax <axis = 1> (r)  y = Squeeze(p, a)", "n, 4"),
    "with Reshape behind": ("r = Neg(x)  p = Softmax <axis = 1> (r)  y = Reshape(p, s)", "n, 4"),
    "between two Reshapes": ("r = Neg(x)  f = Reshape(r, s)  p = Softmax(f)  y = Reshape(p, t)", "n, 4, 1, 1"),
    "of logits that others read": ("f = Flatten(x)  m = Neg(f)  y = Softmax(f)", "n, 4"),
    "of the input": ("y = Softmax <axis = 1> (x)", "n, 4, 1, 1"),
}


@pytest.mark.parametrize("name", FINAL)
def test_a_final_softmax_is_cut_off(name, run):
    body, output = FINAL[name]
    model = model_of(body, output)
    before = ir.serde.serialize_model(model).SerializeToString()
    logits, removed = remove_softmax(model)
    assert removed and ir.serde.serialize_model(model).SerializeToString() == before
    assert "Softmax" not in {node.op_type for node in logits.graph}
    assert [value.name for value in logits.graph.outputs] == ["y"]
    actual = run(logits, X)
    assert actual.shape == run(model, X).shape
    np.testing.assert_allclose(softmax(actual, axis=1), run(model, X), atol=1e-6)
    assert abs(actual).max() > 1  # probabilities would not be


STAYS = {
    "inside": "f = Flatten(x)  p = Softmax(f)  y = Mul(p, f)",
    "of attention": "f = Flatten(x)  p = Softmax(f)  q = Transpose(p)  y = MatMul(p, q)",
    "none": "y = Flatten(x)",
    "logarithms": "f = Flatten(x)  y = LogSoftmax(f)",
    "over the pictures": "f = Flatten(x)  y = Softmax <axis = 0> (f)",
    "read by others too": "f = Flatten(x)  p = Softmax(f)  z = Neg(p)  y = Reshape(p, s)",
}


@pytest.mark.parametrize("name", STAYS)
def test_any_other_softmax_stays(name):
    model = model_of(STAYS[name])
    assert remove_softmax(model) == (model, False)


def test_a_softmax_over_pixels_stays():
    model = model_of("y = Softmax <axis = 1> (x)", "n, 4, 7, 7", "float[n, 4, 7, 7] x")
    assert remove_softmax(model) == (model, False)


def test_attention_keeps_its_softmaxes(net, run):
    model = normalize(net("vit"))
    assert remove_softmax(model) == (model, False)
    assert [node.op_type for node in model.graph].count("Softmax") == 2


def test_two_outputs():
    model = model_of("f = Flatten(x)  y = Softmax(f)")
    model.graph.outputs.append(model.graph.node(0).outputs[0])
    with pytest.raises(InputError, match="2 outputs"):
        remove_softmax(model)


@pytest.mark.parametrize("name", ["squeezenet", "inception_v1", "shufflenet"])
def test_softmax_of_old_files(name, run):
    """Of opset 9, where Softmax flattens: raising the opset puts it between two Reshapes."""
    model = normalize(load(LIGHT / f"light_{name}.onnx"))
    x = np.random.default_rng(0).standard_normal((2, 3, 224, 224)).astype(np.float32)
    logits, removed = remove_softmax(model)
    assert removed
    actual = run(logits, x)
    np.testing.assert_allclose(softmax(actual, axis=1), run(model, x), rtol=1e-5)


def test_the_layer_in_front_answers_to_the_softmax():
    model = normalize(model_of("f = Flatten(x)  n = Neg(f)  y = Softmax(n)"))
    for node, layer in zip(model.graph, ("flat", "fc", "predictions"), strict=True):
        node.metadata_props["craft_onnx.layers"] = f'["{layer}"]'
    logits, _ = remove_softmax(model)
    assert find_tensor(logits, "predictions").name == find_tensor(logits, "fc").name == "y"


def test_logits_of_one_pixel_lose_their_axes(run):
    model = normalize(model_of("y = Neg(x)", "n, 4, 1, 1"))
    flat = flatten_logits(model)
    check(flat)
    assert flat.graph.outputs[0].name == "y" and str(flat.graph.outputs[0].shape) == "[batch,4]"
    np.testing.assert_array_equal(run(flat, X), -X[:, :, 0, 0])
    assert flatten_logits(flat) is flat
    maps = model_of("y = Neg(x)", "n, 4, 7, 7", "float[n, 4, 7, 7] x")
    assert flatten_logits(maps) is maps

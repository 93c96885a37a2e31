import json

import numpy as np
import onnx_ir as ir
import pytest

from craft_onnx.errors import InputError, UnsupportedOperator
from craft_onnx.graph.load import check
from craft_onnx.graph.names import find_tensor, layers_of
from craft_onnx.graph.normalize import normalize
from craft_onnx.graph.passes.batchnorm import merge_batchnorm
from craft_onnx.graph.passes.fold import fold_constants
from craft_onnx.graph.passes.gemm import make_gemm
from craft_onnx.graph.passes.identity import remove_identity
from craft_onnx.graph.passes.opset import raise_opset
from craft_onnx.graph.passes.pad import merge_pad
from craft_onnx.graph.passes.shapes import infer_shapes
from craft_onnx.graph.passes.tidy import tidy

RNG = np.random.default_rng(0)


def kinds(model):
    return [node.op_type for node in model.graph]


def f4(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def apply(text, run, *passes, shape=(2, 3, 6, 6), arrays=None, tolerance=2e-6):
    """The text's model through passes; its outputs must stay, to float32 rounding."""
    model = ir.from_onnx_text(text)
    for value in list(model.graph.inputs)[1:]:
        tensor = ir.tensor(arrays[value.name], name=value.name)
        value.const_value, value.shape = tensor, ir.Shape(tensor.shape.numpy())
        model.graph.inputs.remove(value)
        model.graph.register_initializer(value)
    x, after = f4(*shape), tidy(model)
    expected = run(model, x)
    before = ir.serde.serialize_model(model).SerializeToString()
    for change in passes:
        after = change(after)
    assert ir.serde.serialize_model(model).SerializeToString() == before
    check(after)
    np.testing.assert_allclose(run(after, x), expected, rtol=0, atol=tolerance * max(1, np.abs(expected).max()))
    return after


# Each step by itself.


def test_tidy_leaves_one_flat_list_of_named_nodes(run):
    text = """
        <ir_version: 8, opset_import: ["" : 18, "mine" : 1]>
        g (float[n, 3, 6, 6] x, float[3] b) => (float[n, 3, 6, 6] y)
        { h = mine.twice(x)  c = Constant <value = float[1, 3, 1, 1] {1, 2, 3}> ()  unused = Relu(x)  y = Add(h, c) }
        <domain: "mine", opset_import: ["" : 18]> twice (t) => (u) { u = Add(t, t) }"""
    model = apply(text, run, arrays={"b": f4(3)})
    assert kinds(model) == ["Add", "Add"]
    assert not model.functions and list(model.graph.initializers) == ["c"]
    assert len({node.name for node in model.graph}) == 2 and all(node.name for node in model.graph)


def test_initializers_are_no_inputs_afterwards(run):
    model = ir.from_onnx_text("""
        <ir_version: 3, opset_import: ["" : 8]> g (float[1, 4] x, float[1, 4] w) => (float[1, 4] y)
        <float[1, 4] w = {1, 2, 3, 4}> { y = Mul(x, w) }""")
    assert len(model.graph.inputs) == 2
    after = tidy(model)
    assert [value.name for value in after.graph.inputs] == ["x"] and list(after.graph.initializers) == ["w"]
    np.testing.assert_array_equal(run(after, np.ones((1, 4), np.float32)), [[1, 2, 3, 4]])


def test_nothing_of_the_exporters_machine_stays(net):
    model = net("resnet").clone()
    node = next(iter(model.graph))
    node.doc_string = model.graph.doc_string = "/home/user/secret.py(3): forward"
    assert any("stack_trace" in key for node in model.graph for key in node.metadata_props)
    text = ir.serde.serialize_model(normalize(model)).SerializeToString()
    for leak in (b"secret.py", b"stack_trace", b"torch_nets.py", b"pkg.torch", b"class_hierarchy"):
        assert leak not in text


RESIZES = {
    "nearest 7": ('Upsample <mode = "nearest", scales = [1.0, 1.0, 2.0, 2.0]> (x)', 7),
    "linear 7": ('Upsample <mode = "linear", scales = [1.0, 1.0, 2.0, 2.0]> (x)', 8),
    "nearest 9": ('Upsample <mode = "nearest"> (x, s)', 9),
    "linear 9": ('Upsample <mode = "linear"> (x, s)', 9),
    "linear 10": ('Resize <mode = "linear"> (x, s)', 10),
    "nearest 10": ('Resize <mode = "nearest"> (x, s)', 10),
}


@pytest.mark.parametrize("name", RESIZES)
def test_old_upsampling_stays_what_it_was(name, run):
    call, opset = RESIZES[name]
    text = f"""
        <ir_version: 8, opset_import: ["" : {opset}]> g (float[2, 3, 6, 6] x{", float[4] s" if "s)" in call else ""})
        => (float[2, 3, h, w] y) {{ y = {call} }}"""
    model = apply(text, run, raise_opset, arrays={"s": np.array([1, 1, 2, 3], np.float32)})
    assert kinds(model) == ["Resize"] and model.opset_imports[""] == 18


def test_raising_the_opset_keeps_names_layers_and_description(run):
    model = ir.from_onnx_text("""
        <ir_version: 8, opset_import: ["" : 9]> g (float[2, 3, 6, 6] x, float[4, 3, 1, 1] w) => (float[2, 4] y)
        { a = Conv(x, w)  b = ReduceMean <axes = [2, 3], keepdims = 0> (a)  y = Softmax <axis = 1> (b) }""")
    value = model.graph.inputs.pop()
    value.const_value = ir.tensor(f4(4, 3, 1, 1), name="w")
    model.graph.register_initializer(value)
    for name, node in zip(("stem.conv", "pool", "head"), model.graph, strict=True):
        node.metadata_props["craft_onnx.layers"] = json.dumps([name])
    model.metadata_props["craft_onnx"] = "{}"
    after = raise_opset(tidy(model))
    x = f4(2, 3, 6, 6)
    np.testing.assert_allclose(run(after, x), run(model, x), atol=1e-6)
    assert after.metadata_props["craft_onnx"] == "{}"
    assert find_tensor(after, "stem.conv").name == "a" and find_tensor(after, "head").name == "y"
    assert find_tensor(after, "pool").name == "b"
    assert raise_opset(after) is after


def test_an_opset_that_cannot_be_raised():
    old = ir.from_onnx_text("""
        <ir_version: 3, opset_import: ["" : 6]> g (float[1, 4] x) => (float[1, 4] y) { y = Relu(x) }""")
    with pytest.raises(InputError, match="opset 6"):
        raise_opset(old)
    foreign = ir.from_onnx_text("""
        <ir_version: 8, opset_import: ["" : 13, "com.x" : 1]>
        g (float[1, 4] x) => (float[1, 4] y) { y = com.x.Odd(x) }""")
    with pytest.raises((InputError, UnsupportedOperator), match="Odd"):
        normalize(foreign)


def test_opset_20_stays(net):
    assert normalize(net("resnet")).opset_imports[""] == net("resnet").opset_imports[""] == 20


def test_identity_and_dropout_go_and_their_layers_stay(run):
    text = """
        <ir_version: 8, opset_import: ["" : 18]> g (float[n, 3, 6, 6] x) => (float[n, 3, 6, 6] y)
        { i = Identity(x)  a = Relu(i)  d = Dropout(a)  b = Neg(d)  e = Identity(b)  c = Abs(e)  y = Identity(c) }"""
    model = ir.from_onnx_text(text)
    for node in model.graph:
        node.metadata_props["craft_onnx.layers"] = json.dumps([f"layer_{node.outputs[0].name}"])
    after = remove_identity(model)
    assert kinds(after) == ["Relu", "Neg", "Abs"]
    assert [layers_of(node) for node in after.graph] == [
        ["layer_d", "layer_a"],
        ["layer_e", "layer_b"],
        ["layer_y", "layer_c"],
    ]
    assert find_tensor(after, "layer_d").name == "a" and find_tensor(after, "layer_c").name == "y"
    apply(text, run, remove_identity)


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ("y = Identity(x)", ["Identity"]),  # an input is no output
        ("t = Constant <value = int64[1] {1}> ()  y = Dropout(x, r, b)", ["Dropout"]),  # training: random
        ("y, m = Dropout(x)  z = Not(m)", []),
    ],
)
def test_identities_that_must_stay(body, left):
    model = ir.from_onnx_text(f"""
        <ir_version: 8, opset_import: ["" : 18]> g (float[n, 3] x) => (float[n, 3] y)
        <float r = {{0.5}}, bool b = {{1}}> {{ {body} }}""")
    after = remove_identity(tidy(model))
    assert kinds(after) == (left or ["Dropout"] * ("Dropout" in kinds(after)))
    check(after)


def test_batchnorm_parameters_behind_constant_of_shape_and_unsqueeze(run):
    text = """
        <ir_version: 8, opset_import: ["" : 18]>
        g (float[2, 3, 6, 6] x, float[4, 3, 3, 3] w, float[4] m) => (float[2, 4, 4, 4] y)
        <int64[1] four = {4}, int64[2] axes = {1, 2}>
        { a = Conv(x, w)  one = ConstantOfShape <value = float[1] {1.5}> (four)  zero = ConstantOfShape(four)
          n = BatchNormalization(a, one, zero, m, one)
          s = Unsqueeze(one, axes)  t = Unsqueeze(m, axes)  p = Mul(n, s)  y = Add(p, t) }"""
    arrays = {"w": f4(4, 3, 3, 3), "m": f4(4)}
    model = apply(text, run, fold_constants, infer_shapes, merge_batchnorm, arrays=arrays)
    assert kinds(model) == ["Conv"] and model.graph.outputs[0].name == "y"


def test_folding_reads_known_shapes_and_leaves_huge_constants(run):
    text = """
        <ir_version: 8, opset_import: ["" : 18]> g (float[2, 3, 6, 6] x) => (float[2, 108] y)
        <int64[1] zero = {0}, int64[1] one = {1}, int64[1] rest = {-1}, int64[2] huge = {8192, 4096}>
        { s = Shape(x)  n = Slice(s, zero, one)  t = Concat <axis = 0> (n, rest)  y = Reshape(x, t) }"""
    assert kinds(apply(text, run, fold_constants)) == ["Reshape"]
    large = ir.from_onnx_text("""
        <ir_version: 8, opset_import: ["" : 18]> g (float[2, 8192] x) => (float[2, 4096] y)
        <int64[2] huge = {8192, 4096}> { w = ConstantOfShape(huge)  y = MatMul(x, w) }""")
    assert kinds(fold_constants(tidy(large))) == ["ConstantOfShape", "MatMul"]


LINEAR = {  # operator behind x and its weights: what comes out is (n, 4, ...)
    "Conv": ("Conv(x, w)", (4, 3, 3, 3), (2, 3, 6, 6)),
    "Conv with bias": ("Conv(x, w, c)", (4, 3, 3, 3), (2, 3, 6, 6)),
    "Conv in groups": ("Conv <group = 2> (x, w, c)", (4, 2, 3, 3), (2, 4, 6, 6)),
    "Conv 1-D": ("Conv(x, w)", (4, 3, 3), (2, 3, 6)),
    "ConvTranspose": ("ConvTranspose(x, w, c)", (3, 4, 2, 2), (2, 3, 5, 5)),
    "ConvTranspose in groups": ("ConvTranspose <group = 2> (x, w)", (6, 2, 2, 2), (2, 6, 5, 5)),
    "Gemm": ("Gemm(x, w)", (3, 4), (2, 3)),
    "Gemm transposed": ("Gemm <transB = 1, alpha = 0.5, beta = 3.0> (x, w, c)", (4, 3), (2, 3)),
}
PER_CHANNEL = {
    "BatchNormalization": "BatchNormalization <epsilon = 0.1> (a, p, q, r, v)",
    "Mul": "Mul(a, k)",
    "Mul from the left": "Mul(k, a)",
    "Div": "Div(a, k)",
    "Add": "Add(k, a)",
    "Sub": "Sub(a, k)",
    "Sub from the left": "Sub(k, a)",
    "Mul by a number": "Mul(a, h)",
    "Add a number": "Add(a, h)",
}


@pytest.mark.parametrize("affine", PER_CHANNEL)
@pytest.mark.parametrize("linear", LINEAR)
def test_scale_and_shift_merge_into_what_is_linear(linear, affine, run):
    call, weight, shape = LINEAR[linear]
    arrays = {"w": f4(*weight), "c": f4(4), "k": f4(4, *[1] * (len(shape) - 2)) + 3, "h": f4(1)}
    arrays |= {"p": f4(4), "q": f4(4), "r": f4(4), "v": f4(4) ** 2 + 0.1}
    inputs = ", ".join(f"float[{', '.join(map(str, array.shape))}] {name}" for name, array in arrays.items())
    text = f"""
        <ir_version: 8, opset_import: ["" : 18]>
        g (float[{", ".join(map(str, shape))}] x, {inputs}) => (float[{", ".join("abcd"[: len(shape)])}] y)
        {{ a = {call}  y = {PER_CHANNEL[affine]} }}"""
    model = apply(text, run, infer_shapes, merge_batchnorm, shape=shape, arrays=arrays)
    assert kinds(model) == [call.partition("(")[0].split()[0]]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("a = Conv(x, w)  b = Mul(a, k)  y = Add(a, b)", "something else reads the Conv"),
        ("a = Conv(x, w)  y = Mul(a, big)", "one factor for every position"),
        ("a = Conv(x, w)  y = Mul(a, row)", "one factor for every column, as many as channels"),
        ("a = Conv(x, w)  y = Div(k, a)", "not linear"),
        ("a = Conv(x, w)  y = Mul(a, a)", "not linear"),
        ("a = Conv(x, w)  r = Relu(a)  y = Mul(r, k)", "a ReLU lies between"),
        ("u = Neg(w)  v = Mul(x, one)  a = Conv(x, w)  s = ReduceMean(x)  y = Mul(a, s)", "the factor is no constant"),
        ("a = Conv(x, w)  y, m, v = BatchNormalization <training_mode = 1> (a, p, p, p, p)", "statistics of the batch"),
    ],
)
def test_what_must_not_be_merged(body, why, run):
    arrays = {
        "w": f4(4, 3, 3, 3),
        "k": f4(4, 1, 1),
        "big": f4(4, 4, 4),
        "row": f4(4),
        "one": f4(1),
        "p": f4(4) ** 2 + 1,
    }
    inputs = ", ".join(f"float[{', '.join(map(str, array.shape))}] {name}" for name, array in arrays.items())
    text = f"""<ir_version: 8, opset_import: ["" : 18]> g (float[2, 3, 6, 6] x, {inputs}) => (float[a, b, c, d] y)
        {{ {body} }}"""
    before = tidy(_with_arrays(text, arrays))
    after = apply(text, run, merge_batchnorm, arrays=arrays)
    assert kinds(after) == kinds(before), why


def _with_arrays(text, arrays):
    model = ir.from_onnx_text(text)
    for value in list(model.graph.inputs)[1:]:
        value.const_value = ir.tensor(arrays[value.name], name=value.name)
        model.graph.inputs.remove(value)
        model.graph.register_initializer(value)
    return model


def test_weights_that_two_operators_share_are_changed_for_one(run):
    text = """
        <ir_version: 8, opset_import: ["" : 18]>
        g (float[2, 4, 6, 6] x, float[4, 4, 1, 1] w, float[4] c, float[4, 1, 1] k) => (float[2, 4, 6, 6] y)
        { a = Conv(x, w, c)  b = Mul(a, k)  r = Relu(b)  y = Conv(r, w, c) }"""
    arrays = {"w": f4(4, 4, 1, 1), "c": f4(4), "k": f4(4, 1, 1)}
    model = apply(text, run, merge_batchnorm, arrays=arrays, shape=(2, 4, 6, 6))
    assert kinds(model) == ["Conv", "Relu", "Conv"]
    np.testing.assert_array_equal(model.graph.initializers["w"].const_value.numpy(), arrays["w"])


@pytest.mark.parametrize(("attributes", "epsilon"), [("<epsilon = 0.001>", np.float32(1e-3)), ("", 1e-5)])
def test_merging_rounds_once(attributes, epsilon, run):
    """Against the same in float64: as good as float32 can be, also where the variance is tiny and the scale huge."""
    text = f"""
        <ir_version: 8, opset_import: ["" : 18]>
        g (float[2, 3, 6, 6] x, float[4, 3, 1, 1] w, float[4] p, float[4] q, float[4] r, float[4] v)
        => (float[2, 4, 6, 6] y)
        {{ a = Conv(x, w)  y = BatchNormalization {attributes} (a, p, q, r, v) }}"""
    arrays = {"w": f4(4, 3, 1, 1), "p": f4(4), "q": f4(4), "r": f4(4) * 100, "v": np.full(4, 1e-4, np.float32)}
    model = apply(text, run, merge_batchnorm, arrays=arrays)
    scale = arrays["p"].astype(np.float64) / np.sqrt(arrays["v"] + np.float64(epsilon))
    weight, bias = (model.graph.node(0).inputs[i].const_value.numpy() for i in (1, 2))
    np.testing.assert_array_equal(weight, (scale[:, None, None, None] * arrays["w"]).astype(np.float32))
    np.testing.assert_array_equal(bias, (arrays["q"] - scale * arrays["r"]).astype(np.float32))


@pytest.mark.parametrize("body", ["h = MatMul(x, w)  y = Add(h, b)", "h = MatMul(x, w)  y = Add(b, h)"])
@pytest.mark.parametrize("shape", [(5,), (1, 5)])
def test_dense_layers_become_one_gemm(body, shape, run):
    dims = ", ".join(map(str, shape))
    text = f"""<ir_version: 8, opset_import: ["" : 18]>
        g (float[2, 3] x, float[3, 5] w, float[{dims}] b) => (float[2, 5] y) {{ {body} }}"""
    model = apply(text, run, infer_shapes, make_gemm, arrays={"w": f4(3, 5), "b": f4(*shape)}, shape=(2, 3))
    assert kinds(model) == ["Gemm"] and model.graph.outputs[0].name == "y"


@pytest.mark.parametrize(
    ("body", "shape", "left"),
    [
        ("h = MatMul(x, w)  y = Add(h, b)", (2, 4, 3), ["MatMul", "Add"]),  # of three axes
        ("h = MatMul(x, w)  t = Add(h, b)  y = Add(t, h)", (2, 3), ["Gemm", "Add", "Add"]),  # the product is read twice
        ("h = MatMul(x, w)  y = Add(h, rows)", (2, 3), ["Gemm", "Add"]),  # another bias for every row
        ("h = MatMul(x, w)  y = Add(h, h)", (2, 3), ["Gemm", "Add"]),  # no constant
        ("y = MatMul(x, w)", (2, 3), ["Gemm"]),
        ("t = Transpose(x)  y = MatMul(t, x)", (2, 3), ["Transpose", "MatMul"]),  # no weights
    ],
)
def test_what_is_no_bias_stays(body, shape, left, run):
    arrays = {"w": f4(3, 5), "b": f4(5), "rows": f4(2, 5)}
    inputs = ", ".join(f"float[{', '.join(map(str, array.shape))}] {name}" for name, array in arrays.items())
    text = f"""<ir_version: 8, opset_import: ["" : 18]>
        g (float[{", ".join(map(str, shape))}] x, {inputs}) => (float[{", ".join("abc"[: len(shape)])}] y)
        {{ {body} }}"""
    assert kinds(apply(text, run, infer_shapes, make_gemm, arrays=arrays, shape=shape)) == left


PADDED = """<ir_version: 8, opset_import: ["" : 18]>
padded (float[N, 3, 6, 6] x, float[4, 3, 3, 3] w) => (float[N, 4, H, W] y)
<int64[8] pads = {{{pads}}}, float value = {{{value}}}> {{
    around = Pad<mode = "{mode}">(x, pads, value)
    {behind}
}}"""


@pytest.mark.parametrize(
    ("pads", "value", "mode", "behind", "merged"),
    [
        ("0, 0, 1, 2, 0, 0, 3, 0", 0, "constant", "y = Conv(around, w)", [1, 2, 3, 0]),
        ("0, 0, 1, 2, 0, 0, 3, 0", 0, "constant", "y = Conv<pads = [1, 1, 0, 2]>(around, w)", [2, 3, 3, 2]),
        ("0, 0, 1, 1, 0, 0, 1, 1", 0, "constant", 'y = Conv<auto_pad = "VALID">(around, w)', [1, 1, 1, 1]),
        ("0, 0, 1, 1, 0, 0, 1, 1", 0, "constant", 'y = Conv<auto_pad = "SAME_UPPER">(around, w)', None),
        ("0, 0, 1, 1, 0, 0, 1, 1", 1, "constant", "y = Conv(around, w)", None),
        ("0, 0, 1, 1, 0, 0, 1, 1", 0, "reflect", "y = Conv(around, w)", None),
        ("1, 0, 1, 1, 0, 0, 1, 1", 0, "constant", "y = Conv(around, w)", None),
        ("0, 0, 1, 1, 0, 0, -1, 1", 0, "constant", "y = Conv(around, w)", None),
        ("0, 0, 1, 1, 0, 0, 1, 1", 0, "constant", "c = Conv(around, w) d = Conv(around, w) y = Add(c, d)", None),
    ],
)
def test_zeros_around_the_data_of_a_convolution(run, pads, value, mode, behind, merged):
    text = PADDED.format(pads=pads, value=value, mode=mode, behind=behind)
    after = apply(text, run, merge_pad, arrays={"w": f4(4, 3, 3, 3)})
    assert ("Pad" not in kinds(after)) == (merged is not None)
    if merged:
        assert list(after.graph.node(0).attributes["pads"].value) == merged

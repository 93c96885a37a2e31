import numpy as np
import onnx
import onnx_ir as ir
import pytest

from craft_onnx.description import Description, Preprocessing
from craft_onnx.errors import CheckFailed, CraftError, InputError, UnsupportedOperator
from craft_onnx.graph.load import load, write_description
from craft_onnx.graph.normalize import normalize
from craft_onnx.graph.reverse.vjp import gradient_graph
from craft_onnx_converters import convert

from .conftest import random_batch, run_file

TEXT = """
<ir_version: 8, opset_import: ["" : {opset}]>
tiny (float[{batch}, 3, 8, 8] image) => (float[{batch}, 4] scores)
<float[4, 3, 3, 3] weight, float[4] bias, int64[2] shape = {{{rows}, 4}}> {{
    convolved = Conv(image, weight, bias)
    activated = Relu(convolved)
    pooled = GlobalAveragePool(activated)
    flat = Reshape(pooled, shape)
    scores = {last}(flat)
}}
"""


SQUEEZING = """
<ir_version: 8, opset_import: ["" : 18]> net (float[N,3,H,W] x) => (float[N,5] y) <float[5,3,8,8] w = {{{}}}> {{
    c = Conv(x, w)
    s = Shape(c)
    i = Constant<value=int64 {{2}}>()
    one = Constant<value=int64 {{1}}>()
    d = Gather<axis=0>(s, i)
    t = Equal(d, one)
    ax = Constant<value=int64[1] {{2}}>()
    q = If<then_branch = a () => (a1) {{ a1 = Squeeze(c, ax) }}, else_branch = b () => (b1) {{ b1 = Identity(c) }}>(t)
    r = Relu(q)
    m = Constant<value=int64[1] {{-1}}>()
    y = ReduceSum<keepdims=0>(r, m)
}}
"""


def write_model(path, batch="N", rows="-1", opset=18, last="Identity", description=None):
    """A tiny ONNX classifier."""
    text = TEXT.format(batch=batch, rows=rows, opset=opset, last=last)
    proto = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    for name, shape in (("weight", (4, 3, 3, 3)), ("bias", (4,))):
        array = rng.standard_normal(shape).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    model = ir.from_proto(proto)
    if description:
        write_description(model, description)
    ir.save(model, path)
    return path


@pytest.mark.parametrize("opset", [11, 13, 18])
def test_is_normalized_and_computes_the_same(tmp_path, opset):
    source = write_model(tmp_path / "source.onnx", opset=opset)
    conversion = convert(source)
    path = conversion.save(tmp_path / "model.onnx")
    x = random_batch(5, (3, 8, 8))
    np.testing.assert_allclose(run_file(path, x), run_file(source, x), rtol=1e-5)
    assert conversion.model.opset_imports[""] >= 18
    assert set(conversion.errors) == {1, 3} and conversion.steps


def test_static_batch_becomes_dynamic(tmp_path):
    source = write_model(tmp_path / "source.onnx", batch=1, rows=1)
    path = convert(source).save(tmp_path / "model.onnx")
    x = random_batch(4, (3, 8, 8))
    rows = np.concatenate([run_file(source, row[None]) for row in x])
    np.testing.assert_allclose(run_file(path, x), rows, rtol=1e-5)


def test_open_sizes_are_fixed(tmp_path):
    """As PyTorch's older exporter writes squeeze(2) of an open axis: an If with outputs of different ranks."""
    text = SQUEEZING.format(", ".join(["0.1"] * 960))
    source = tmp_path / "source.onnx"
    onnx.save(onnx.parser.parse_model(text), source)
    with pytest.raises(UnsupportedOperator, match="The number of axes of the tensor 'r'"):
        gradient_graph(normalize(load(source)))
    conversion = convert(source, input_shape=(3, 8, 8))
    assert conversion.model.graph.inputs[0].shape[1:] == (3, 8, 8)
    assert not any(node.op_type == "If" for node in conversion.model.graph)
    x = random_batch(3, (3, 8, 8))
    np.testing.assert_allclose(run_file(conversion.save(tmp_path / "model.onnx"), x), run_file(source, x), rtol=1e-5)
    gradient_graph(conversion.model)
    with pytest.raises(InputError, match="does not fit the model's input"):
        convert(source, input_shape=(1, 8, 8))


def test_softmax_is_cut_off(tmp_path):
    conversion = convert(write_model(tmp_path / "source.onnx", last="Softmax"))
    assert conversion.description.softmax_removed


def test_own_file_keeps_its_description(tmp_path):
    rule = Preprocessing((8, 8), scale=0.1)
    known = Description("keras", "0" * 64, rule, softmax_removed=True)
    conversion = convert(write_model(tmp_path / "source.onnx", description=known))
    assert conversion.description.framework == "keras" and conversion.description.source_sha256 == "0" * 64
    assert conversion.description.preprocessing == rule and conversion.description.softmax_removed


def test_converting_twice_changes_nothing_more(tmp_path):
    rule = {"preset": "torch"}
    first = convert(write_model(tmp_path / "source.onnx"), preprocessing=rule, bake_preprocessing=True)
    second = convert(first.save(tmp_path / "first.onnx"))
    with pytest.raises(InputError, match="baked into the graph already"):
        convert(tmp_path / "first.onnx", bake_preprocessing=True)
    assert second.description.preprocessing == first.description.preprocessing
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    np.testing.assert_array_equal(
        run_file(tmp_path / "first.onnx", pixels), run_file(second.save(tmp_path / "second.onnx"), pixels)
    )


def test_error_leaves_no_file(tmp_path, monkeypatch):
    from click.testing import CliRunner

    from craft_onnx.cli.convert import command
    from craft_onnx_converters import pipeline

    def broken(model):
        wrong = model.clone()
        for value in wrong.graph.initializers.values():
            if value.name == "bias":
                value.const_value = ir.tensor(value.const_value.numpy() + np.float32(0.01), name="bias")
        return wrong, {}

    monkeypatch.setattr(pipeline, "normalize_proven", broken)
    source = write_model(tmp_path / "source.onnx")
    arguments = [str(source), "-o", str(tmp_path / "model.onnx")]
    failed = CliRunner().invoke(command, arguments)
    assert isinstance(failed.exception, CheckFailed)
    assert [path.name for path in tmp_path.iterdir()] == ["source.onnx"]


def test_existing_output_stays(tmp_path):
    conversion = convert(write_model(tmp_path / "source.onnx"))
    (tmp_path / "model.onnx").write_text("precious")
    with pytest.raises(InputError, match="exists already"):
        conversion.save(tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").read_text() == "precious"
    conversion.save(tmp_path / "model.onnx", force=True)
    assert (tmp_path / "model.onnx").stat().st_size > 100


def test_operator_that_does_not_exist(tmp_path):
    source = write_model(tmp_path / "source.onnx")
    model = ir.load(source)
    list(model.graph)[-1].op_type = "Bogus"
    ir.save(model, source)
    with pytest.raises(CraftError, match="Bogus"):
        convert(source)


def test_custom_operator(tmp_path):
    source = write_model(tmp_path / "source.onnx")
    model = ir.load(source)
    list(model.graph)[-1].domain = "com.example"
    model.opset_imports["com.example"] = 1
    ir.save(model, source)
    with pytest.raises(UnsupportedOperator, match=r"com\.example"):
        convert(source)


def test_truncated_file(tmp_path):
    source = write_model(tmp_path / "source.onnx")
    source.write_bytes(source.read_bytes()[:200])
    with pytest.raises(InputError, match=r"source\.onnx"):
        convert(source)


def write_two_outputs(path):
    """The tiny classifier, with its feature map for a first output."""
    proto = onnx.load(write_model(path))
    proto.graph.output.insert(0, onnx.helper.make_tensor_value_info("activated", 1, ["N", 4, 6, 6]))
    onnx.save(proto, path)
    return path


def test_one_of_several_outputs_is_chosen(tmp_path):
    source = write_two_outputs(tmp_path / "source.onnx")
    path = convert(source, outputs=["scores"]).save(tmp_path / "model.onnx")
    x = random_batch(5, (3, 8, 8))
    only = write_model(tmp_path / "only.onnx")
    np.testing.assert_allclose(run_file(path, x), run_file(only, x), rtol=1e-5)
    assert [value.name for value in ir.load(path).graph.outputs] == ["scores"]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({}, r"2 outputs \(activated, scores\)"),
        ({"outputs": ["scores", "activated"]}, "outputs scores, activated were asked for"),
        ({"outputs": ["score"]}, "no tensor or layer 'score'"),
        ({"outputs": ["scores"], "inputs": ["image"]}, "has its own input, not image"),
    ],
)
def test_a_choice_of_outputs_that_makes_no_sense(tmp_path, options, problem):
    with pytest.raises(InputError, match=problem):
        convert(write_two_outputs(tmp_path / "source.onnx"), **options)

import dataclasses

import numpy as np
import onnx_ir as ir
import pytest
from onnx import helper

from craft_onnx.description import Description, Preprocessing
from craft_onnx.errors import CheckFailed, CraftWarning, InputError
from craft_onnx.graph import normalize
from craft_onnx.graph.load import write_description
from craft_onnx.runtime import proof
from craft_onnx.runtime.proof import disagreement, normalize_proven, random_inputs, split_proven
from craft_onnx.runtime.sessions import TensorSpec


@pytest.fixture
def model(classifier):
    return ir.serde.deserialize_model(classifier())


def _scaled(model, factor):
    """The model with its last weights multiplied by something."""
    copy = model.clone()
    weights = copy.graph.initializers["fc.weight"]
    weights.const_value = ir.tensor((weights.const_value.numpy() * factor).astype(np.float32), name="fc.weight")
    return copy


def _mixes_rows(model):
    """A wrong opening of the batch: right for one row, wrong for three."""
    copy = model.clone()
    output = copy.graph.outputs[0]
    node = ir.node("CumSum", [output, ir.Value(name="axis")], outputs=[ir.Value(name="mixed", type=output.type)])
    axis = node.inputs[1]
    axis.const_value = ir.tensor(np.array(0, np.int64), name="axis")
    copy.graph.register_initializer(axis)
    copy.graph.append(node)
    node.outputs[0].shape = output.shape
    copy.graph.outputs[:] = node.outputs
    return copy


def _broken(model):
    copy = model.clone()
    next(iter(copy.graph)).op_type = "Softmax"
    return copy


def _with_steps(monkeypatch, *steps):
    monkeypatch.setattr(normalize, "STEPS", steps)


def test_normalizes_and_measures_every_step(model):
    normalized, errors = normalize_proven(model)  # without a Softmax
    assert list(errors) == [name for name, _ in normalize.STEPS]
    assert 0 <= max(errors.values()) < 1e-6
    assert normalized is not model


def test_constant_outputs_prove_nothing(model):
    with pytest.warns(CraftWarning, match=r"hardly depends on its input.*is its preprocessing known\?"):
        normalize_proven(_scaled(model, 0))


def _saturated(model, factor=1e4):
    """The model with larger weights and a Softmax behind them, which gives 0 and 1."""
    copy = _scaled(model, factor)
    logits = copy.graph.outputs[0]
    softmax = ir.node("Softmax", [logits], {"axis": -1}, outputs=[ir.Value(name="scores", type=logits.type)])
    softmax.outputs[0].shape = logits.shape
    copy.graph.append(softmax)
    copy.graph.outputs[:] = softmax.outputs
    return copy


def test_a_saturated_softmax_hides_nothing(model, monkeypatch):
    saturated = _saturated(model)
    assert normalize_proven(saturated)[1]["logits"] < 1e-6
    _with_steps(monkeypatch, ("wrong", lambda _: _saturated(model, 1.01e4)))
    with pytest.raises(CheckFailed, match=r"before its Softmax\) changes its outputs by 1\.0e-02"):
        normalize_proven(saturated)


def test_only_steps_that_change_something_are_run(model, monkeypatch):
    opened = []
    real = proof.session_of
    monkeypatch.setattr(proof, "session_of", lambda model: opened.append(model) or real(model))
    _with_steps(monkeypatch, ("same", lambda model: model), ("copy", lambda model: model.clone()))
    assert normalize_proven(model)[1] == {"same": 0, "copy": 0}
    assert len(opened) == 1
    _with_steps(monkeypatch, ("copy", lambda model: model.clone()), ("new weights", lambda model: _scaled(model, 1)))
    assert normalize_proven(model)[1] == {"copy": 0, "new weights": 0}
    assert len(opened) == 3


def test_a_step_that_is_wrong_by_a_thousandth_is_caught(model, monkeypatch):
    _with_steps(monkeypatch, ("right", lambda model: model.clone()), ("wrong", lambda model: _scaled(model, 1.001)))
    with pytest.raises(CheckFailed, match=r"step 'wrong'\) changes its outputs by 1\.0e-03") as caught:
        normalize_proven(model)
    assert caught.value.exit_code == 1


def test_rounding_is_not(model, monkeypatch):
    _with_steps(monkeypatch, ("rounds", lambda model: _scaled(model, 1 + 1e-5)))
    assert normalize_proven(model)[1]["rounds"] == pytest.approx(1e-5, rel=0.1)


def test_two_batch_sizes_are_compared(model, monkeypatch):
    _with_steps(monkeypatch, ("mix", _mixes_rows))
    with pytest.raises(CheckFailed, match="step 'mix'"):
        normalize_proven(model)


@pytest.mark.parametrize("batch", [1, 2])
def test_a_fixed_batch_is_compared_with_the_open_one(classifier, monkeypatch, batch):
    fixed = ir.serde.deserialize_model(classifier(batch))
    opened = ir.serde.deserialize_model(classifier())
    _with_steps(monkeypatch, ("batch", lambda _: opened))
    assert normalize_proven(fixed)[1]["batch"] < 1e-6
    _with_steps(monkeypatch, ("batch", lambda _: _mixes_rows(opened)))
    with pytest.raises(CheckFailed, match="step 'batch'"):
        normalize_proven(fixed)


def test_a_step_after_which_the_model_does_not_run(model, monkeypatch):
    _with_steps(monkeypatch, ("broken", _broken))
    with pytest.raises(CheckFailed, match="After step 'broken' of normalizing, the model does not run"):
        normalize_proven(model)


def test_a_model_that_does_not_run_or_gives_nan(model):
    with pytest.raises(InputError, match="cannot be loaded"):
        normalize_proven(_broken(model))
    with pytest.raises(CheckFailed, match="not finite"):
        normalize_proven(_scaled(model, np.nan))


def test_weights_too_large_for_one_file_go_beside_the_graph(model, monkeypatch):
    monkeypatch.setattr(proof, "FILE_LIMIT", 100)
    assert max(normalize_proven(model)[1].values()) < 1e-6


def test_a_split_is_proven(model, oracle, pictures):
    g, h, error = split_proven(model, "relu")
    assert error < 1e-6
    assert [value.name for value in g.graph.outputs] == ["relu"]
    a = proof.session_of(g).run({"x": pictures})[0]
    np.testing.assert_allclose(a, oracle(pictures)[0], rtol=0, atol=1e-5)
    assert [value.name for value in h.graph.inputs] == ["relu"]


def test_a_wrong_split_is_caught(model, monkeypatch):
    from craft_onnx.graph import split as splits

    real = splits.split
    monkeypatch.setattr(splits, "split", lambda *arguments: (real(*arguments)[0], _scaled(real(*arguments)[1], 1.001)))
    with pytest.raises(CheckFailed, match="Splitting the model at 'relu' changes its outputs by 1"):
        split_proven(model, "relu")


@pytest.mark.parametrize(
    ("expected", "actual", "value"),
    [
        ([1.0, -4.0], [1.0, -4.0], 0),
        ([1.0, -4.0], [1.2, -4.0], 0.05),
        ([0.0, 0.0], [0.0, 1e-9], 1e-3),  # against the floor of 1e-6
        ([1.0], [np.nan], np.inf),
        ([np.nan], [np.nan], np.inf),
        ([np.inf], [np.inf], np.inf),
        ([1.0], [1.0, 1.0], np.inf),
        ([], [], 0),
    ],
)
def test_disagreement(expected, actual, value):
    assert disagreement(np.array(expected), np.array(actual)) == pytest.approx(value, abs=1e-12)


def test_disagreement_is_measured_in_double():
    big = np.full(2, 3e38, np.float32)
    assert disagreement(big, -big) == pytest.approx(2)


def test_random_inputs_follow_the_specification():
    specs = [
        TensorSpec("a", "float32", (None, 3, 5, 4)),
        TensorSpec("b", "uint8", (7, 2)),
        TensorSpec("c", "float16", (1,)),
    ]
    inputs = random_inputs(specs, 6, seed=3)
    assert {name: (x.shape, x.dtype.name) for name, x in inputs.items()} == {
        "a": ((6, 3, 5, 4), "float32"),
        "b": ((6, 2), "uint8"),
        "c": ((6,), "float16"),
    }
    again = random_inputs(specs, 6, seed=3)
    assert all(np.array_equal(inputs[name], again[name]) for name in inputs)
    assert not np.array_equal(inputs["a"], random_inputs(specs, 6, seed=4)["a"])


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_random_inputs_are_random_pixels_where_the_arithmetic_is_known(layout):
    rule = Preprocessing.preset("caffe", (30, 40), layout)
    shape = (None, 3, None, None) if layout == "NCHW" else (None, None, None, 3)
    x = random_inputs([TensorSpec("x", "float32", shape)], 4, rule=rule)["x"]
    x = x if layout == "NHWC" else x.transpose(0, 2, 3, 1)
    assert x.shape == (4, 30, 40, 3)
    pixels = x + np.array(rule.mean, np.float32)
    np.testing.assert_allclose(pixels, pixels.round(), atol=1e-4)
    np.testing.assert_allclose([pixels.min(), pixels.max()], [0, 255], atol=1e-4)
    baked = dataclasses.replace(rule, baked=True, layout="NHWC")
    spec = TensorSpec("x", "uint8", (None, None, None, 3))
    pixels = random_inputs([spec], 4, rule=baked)["x"]
    assert pixels.dtype == np.uint8
    assert (pixels.shape, pixels.max()) == ((4, 30, 40, 3), 255)


def test_open_lengths_without_a_rule():
    x = random_inputs([TensorSpec("x", "float32", (None, 3, None, None))], 1)["x"]
    assert x.shape == (1, 3, 224, 224)


def test_a_model_is_proven_on_pixels_in_its_own_range(make_graph, monkeypatch):
    """A clip at 100 shows on pixels of 0..255, not on standard normal numbers."""
    weights = {"top": np.array(100, np.float32), "axes": np.array([2, 3])}

    def pooled(tensor):
        return helper.make_node("ReduceMean", [tensor, "axes"], ["logits"], keepdims=0)

    clip = helper.make_node("Clip", ["x", "", "top"], ["low"])
    clipped, free = (
        ir.serde.deserialize_model(make_graph(nodes, [("x", (3, 8, 8))], [("logits", (3,))], weights=weights))
        for nodes in ([clip, pooled("low")], [pooled("x")])
    )
    _with_steps(monkeypatch, ("lose the clip", lambda _: free))
    assert normalize_proven(clipped)[1]["lose the clip"] == 0
    write_description(clipped, Description(preprocessing=Preprocessing.preset("none", (8, 8))))
    with pytest.raises(CheckFailed, match="lose the clip"):
        normalize_proven(clipped)


def _half(factor=1.0):
    """A float16 net whose BatchNormalization can be merged, and the same with other weights of the last layer."""
    rng = np.random.default_rng(0)
    vectors = dict(zip("gbmv", rng.uniform(0.5, 1.5, (4, 8)).astype(np.float16), strict=True))
    weights = {
        "w": rng.normal(0, 0.3, (8, 3, 3, 3)).astype(np.float16),
        "fc": (rng.normal(0, 0.3, (8, 5)) * factor).astype(np.float16),
        **vectors,
    }
    text = """<ir_version: 10, opset_import: ["" : 18]>
    half (float16[N,3,8,8] x, float16[8,3,3,3] w, float16[8] g, float16[8] b, float16[8] m, float16[8] v,
          float16[8,5] fc) => (float16[N,5] logits) {
        c = Conv(x, w)
        n = BatchNormalization(c, g, b, m, v)
        r = Relu(n)
        p = GlobalAveragePool(r)
        f = Flatten(p)
        logits = MatMul(f, fc)
    }"""
    model = ir.from_onnx_text(text)
    for value in list(model.graph.inputs)[1:]:
        value.const_value = ir.tensor(weights[value.name], name=value.name)
        model.graph.inputs.remove(value)
        model.graph.register_initializer(value)
    return model


def test_half_precision_rounds_more():
    normalized, errors = normalize_proven(_half())
    assert "BatchNormalization" not in {node.op_type for node in normalized.graph}
    assert proof.TOLERANCE < max(errors.values()) < proof.HALF_TOLERANCE / 5
    assert {value.dtype for value in normalized.graph.initializers.values()} == {ir.DataType.FLOAT16}
    assert split_proven(normalized, "r")[2] < proof.HALF_TOLERANCE / 5


def test_a_wrong_step_in_half_precision_is_caught(monkeypatch):
    _with_steps(monkeypatch, ("wrong", lambda _: _half(1.05)))
    with pytest.raises(CheckFailed, match=r"step 'wrong'\) changes its outputs by 5\..e-02 of the largest; 2e-02 is"):
        normalize_proven(_half())

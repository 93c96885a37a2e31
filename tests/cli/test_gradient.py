import json

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from craft_onnx_models.birds import model_path

SIZE, CLASSES, MAPS = 32, 4, 12
# float32's rounding through the sums of a small net
CLOSE = 1e-4


def run_graph(path, *feeds):
    """Outputs by name, from inputs in order."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    given = dict(zip([value.name for value in session.get_inputs()], feeds, strict=True))
    return dict(zip([value.name for value in session.get_outputs()], session.run(None, given), strict=True))


def inputs(*shape):
    rng = np.random.default_rng(0)
    return rng.standard_normal((2, 3, SIZE, SIZE), np.float32), rng.standard_normal((2, *shape), np.float32)


def metadata(path):
    return [{prop.key: prop.value for prop in node.metadata_props} for node in onnx.load(path).graph.node]


@pytest.fixture
def gradient(run, model, tmp_path):
    """Run the command on the classifier, and check what it says."""

    def make(*arguments):
        done = run("gradient", model, "-o", tmp_path / "gradient.onnx", *arguments)
        assert done.code == 0, done.err
        return done

    return make


def test_writes_a_graph_that_agrees_with_a_difference(gradient, model, tmp_path):
    done = gradient()
    path = tmp_path / "gradient.onnx"
    assert done.json == {"output": [str(path)], "of": "logits", "wrt": "x", "error": done.json["error"]}
    assert 0 <= done.json["error"] < 0.05
    assert "agrees with a finite difference: relative error" in done.err
    onnx.checker.check_model(onnx.load(path))
    x, cotangent = inputs(CLASSES)
    dx = run_graph(path, x, cotangent)["gradient"]
    assert dx.shape == x.shape
    step = 1e-2 * dx / np.abs(dx).max()
    ahead, behind = (run_graph(model, x + sign * step)["logits"] for sign in (1, -1))
    assert np.isclose(((ahead - behind) * cotangent).sum() / 2, (dx * step).sum(), rtol=0.02)
    assert list(tmp_path.iterdir()) == [path]


def test_every_emitted_node_says_where_it_comes_from(gradient, tmp_path):
    gradient()
    made = [props for props in metadata(tmp_path / "gradient.onnx") if "craft_onnx.rule" in props]
    assert {props["craft_onnx.rule"] for props in made} == {"gradient"}
    assert {props["craft_onnx.forward"].split()[0] for props in made} >= {"Conv", "Relu", "Gemm", "GlobalAveragePool"}


def test_a_pair_computes_the_same(gradient, run, model, tmp_path):
    assert run("gradient", model, "-o", tmp_path / "whole" / "gradient.onnx").code == 0
    done = gradient("--pair")
    forward, backward = (tmp_path / f"gradient_{part}.onnx" for part in ("forward", "backward"))
    assert done.json["output"] == [str(forward), str(backward)]
    x, cotangent = inputs(CLASSES)
    whole = run_graph(tmp_path / "whole" / "gradient.onnx", x, cotangent)["gradient"]
    values = run_graph(forward, x)
    np.testing.assert_array_equal(values["logits"], run_graph(model, x)["logits"])
    residuals = [value.name for value in onnx.load(backward).graph.input][1:]
    assert residuals
    dx = run_graph(backward, cotangent, *(values[name] for name in residuals))["gradient"]
    np.testing.assert_allclose(dx, whole, rtol=0, atol=CLOSE * np.abs(whole).max())
    assert {path.name for path in tmp_path.iterdir()} == {"whole", forward.name, backward.name}


def test_between_two_layers(gradient, tmp_path, weights):
    done = gradient("--of", "fc", "--wrt", "act2")
    assert (done.json["of"], done.json["wrt"]) == ("logits", "act2")
    x, cotangent = inputs(CLASSES)
    da = run_graph(tmp_path / "gradient.onnx", x, cotangent)["gradient"]
    expected = cotangent @ weights()["fc.weight"] / (SIZE // 4) ** 2
    assert da.shape == (2, MAPS, SIZE // 4, SIZE // 4)
    np.testing.assert_allclose(da[:, :, 3, 5], expected, rtol=0, atol=CLOSE * np.abs(expected).max())


def test_of_a_layer(gradient, tmp_path):
    done = gradient("--of", "act1", "--force")
    assert done.json["of"] == "act1"
    x, cotangent = inputs(8, SIZE, SIZE)
    assert run_graph(tmp_path / "gradient.onnx", x, cotangent)["gradient"].shape == x.shape


@pytest.mark.parametrize("rules", ["guided_backprop", "deconvnet"])
def test_other_rules(gradient, tmp_path, rules):
    done = gradient("--rules", rules)
    assert done.json["error"] is None
    assert f"by the rules of {rules}: no finite difference to compare with" in done.err
    assert any(props.get("craft_onnx.rule") == rules for props in metadata(tmp_path / "gradient.onnx"))


def test_quiet(run, model, tmp_path):
    done = run("gradient", model, "-o", tmp_path / "gradient.onnx", "-q")
    assert done.err == ""
    assert done.json["output"]


def _unsupported(path):
    """Write a network of Tanh and a determinant."""
    nodes = [
        helper.make_node("Tanh", ["x"], ["t"], name="tanh"),
        helper.make_node("Det", ["t"], ["d"], name="determinant"),
        helper.make_node("Flatten", ["d"], ["y"], name="flatten"),
    ]
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 5, 3, 3])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 5])
    graph = helper.make_graph(nodes, "net", [image], [output])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def test_an_operator_without_a_rule(refused, tmp_path):
    path = _unsupported(tmp_path / "det.onnx")
    message = refused("gradient", path, "-o", tmp_path / "out" / "gradient.onnx", code=3)
    assert "No derivative is known of ai.onnx::Det (node 'determinant'" in message
    assert "gradient_rule('Det'" in message
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--of", "act3"], "no tensor or layer 'act3'.\nDid you mean act2"),
        (["--wrt", "nothing"], "no tensor or layer 'nothing'"),
        (["--of", "act1", "--wrt", "act2"], "No derivative leads from 'act1' to 'act2'"),
        (["--rules", "saliency"], "no rule set 'saliency'.\nTake one of gradient, epsilon_plus"),
        (["--rules", "rules.toml"], "rules.toml cannot be read: No such file"),
        (["--conservation"], "gradient carries a derivative, which is not conserved"),
        (["--rules", "epsilon_plus", "--conservation", "--of", "act1"], "--conservation is about the whole model"),
    ],
)
def test_refuses(refused, model, tmp_path, arguments, message):
    assert message in refused("gradient", model, "-o", tmp_path / "gradient.onnx", *arguments)
    assert list(tmp_path.iterdir()) == []


def test_rules_of_a_file(gradient, run, model, tmp_path):
    (tmp_path / "rules.toml").write_text('composite = "epsilon_plus"\nzero_params = "bias"')
    done = gradient("--rules", tmp_path / "rules.toml")
    assert "by the rules of " in done.err
    assert any(props.get("craft_onnx.rule") == "epsilon_plus" for props in metadata(tmp_path / "gradient.onnx"))


def test_conservation(run, tmp_path):
    """Without biases nothing is lost or made; with those of a trained network, something is."""
    (tmp_path / "free.json").write_text('{"composite": "epsilon_plus", "zero_params": "bias"}')
    birds = model_path("shortcut")
    free, biased = (
        run("gradient", birds, "--rules", rules, "--conservation", "--force", "-o", tmp_path / "gradient.onnx")
        for rules in (tmp_path / "free.json", "epsilon_plus")
    )
    assert free.code == biased.code == 0
    assert list(free.json["conservation"])[-1] == "input"
    # What the stabilizer takes, 1e-6 of each quotient, but more of small ones.
    assert all(abs(ratio - 1) < 0.01 for ratio in free.json["conservation"].values())
    assert "Of the relevance of the output, 100.0% reaches the input." in free.err
    assert biased.json["conservation"].keys() == free.json["conservation"].keys()
    assert abs(biased.json["conservation"]["input"] - 1) > 0.1


@pytest.mark.parametrize("existing", ["gradient_forward.onnx", "gradient_backward.onnx"])
def test_replaces_nothing_unless_told_to(refused, run, model, tmp_path, existing):
    (tmp_path / existing).write_text("mine")
    message = refused("gradient", model, "--pair", "-o", tmp_path / "gradient.onnx")
    assert f"{existing} exists already" in message
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]
    assert run("gradient", model, "--pair", "-o", tmp_path / "gradient.onnx", "--force").code == 0
    assert len(list(tmp_path.iterdir())) == 2


def test_a_wrong_rule_leaves_nothing(refused, model, tmp_path, monkeypatch):
    from craft_onnx.graph.reverse.gradients import GRADIENTS

    right = GRADIENTS._table["", "GlobalAveragePool"]
    monkeypatch.setitem(GRADIENTS._table, ("", "GlobalAveragePool"), lambda step, dy: [1.1 * right(step, dy)[0]])
    message = refused("gradient", model, "-o", tmp_path / "gradient.onnx", code=1)
    assert "from a finite difference; rounding and kinks may do 5e-02" in message
    assert list(tmp_path.iterdir()) == []


def test_large_weights_lie_beside(run, model, tmp_path, monkeypatch):
    from craft_onnx.runtime import gradient_files

    monkeypatch.setattr(gradient_files, "LARGEST", 1000)
    done = run("gradient", model, "--pair", "-o", tmp_path / "big.onnx")
    assert done.code == 0, done.err
    names = ["big_forward.onnx", "big_backward.onnx", "big.weights.bin"]
    assert done.json["output"] == [str(tmp_path / name) for name in names]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    values = run_graph(tmp_path / "big_forward.onnx", inputs(CLASSES)[0])
    assert np.isfinite(values["logits"]).all()


def test_split_says_what_stands_in_the_way(run, tmp_path):
    path = _unsupported(tmp_path / "net.onnx")
    done = run("split", path, "--at", "tanh", "-o", tmp_path / "bundle")
    assert done.code == 0
    assert "Warning: The bundle has no gradient of h at 'tanh'. No derivative is known of ai.onnx::Det" in done.err
    roles = {graph["role"] for graph in json.loads((tmp_path / "bundle" / "MANIFEST.json").read_text())["graphs"]}
    assert "vjp_g" in roles and "vjp_h" not in roles


def test_of_names_one_of_several_outputs(run, model, tmp_path):
    proto = onnx.load(model)
    proto.graph.output.insert(0, helper.make_tensor_value_info("pool", TensorProto.FLOAT, ["N", MAPS, 1, 1]))
    several, output = tmp_path / "several.onnx", tmp_path / "gradient.onnx"
    onnx.save(proto, several)
    assert "Choose one: craft-onnx convert MODEL --outputs NAME" in run("gradient", several, "-o", output).err
    x, cotangent = inputs(CLASSES)
    found = []
    for source in (model, several):
        assert run("gradient", source, "--of", "logits", "-o", output, "--force").code == 0
        found.append(run_graph(output, x, cotangent)["gradient"])
    np.testing.assert_array_equal(*found)
    done = run("gradient", several, "--of", "pool", "-o", output, "--force")
    assert (done.json["of"], done.json["wrt"]) == ("pool", "x")

import dataclasses
import json
import shutil

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

import craft_onnx
from craft_onnx.description import Description, Preprocessing
from craft_onnx.errors import CheckFailed, InputError
from craft_onnx.graph.load import write_description
from craft_onnx.graph.normalize import normalize
from craft_onnx.runtime.bundle import Bundle, create_bundle
from craft_onnx.runtime.creation import _file_names

RULE = Preprocessing.preset("torch", (8, 8))
DESCRIPTION = Description("torch", "a" * 64, RULE, True)


@pytest.fixture
def model(classifier):
    normalized = normalize(ir.serde.deserialize_model(classifier()))
    write_description(normalized, DESCRIPTION)
    return normalized


def test_a_bundle_computes_what_the_model_does(model, tmp_path, pictures, oracle):
    bundle = create_bundle(model, ["relu", "pool"], tmp_path / "bundle")
    a, logits = oracle(pictures)
    for cut, expected in (("relu", a), ("pool", a.mean((2, 3), keepdims=True))):
        loaded = craft_onnx.load(tmp_path / "bundle", cut=cut)
        np.testing.assert_allclose(loaded.g(pictures), expected, rtol=0, atol=1e-5)
        np.testing.assert_allclose(loaded.h(loaded.g(pictures)), logits, rtol=0, atol=1e-5)
        np.testing.assert_allclose(loaded.predict(pictures), logits, rtol=0, atol=1e-5)
    assert craft_onnx.load(tmp_path / "bundle").cut.name == "relu"
    assert bundle.folder == tmp_path / "bundle"


def test_the_manifest_says_what_was_made(model, tmp_path):
    create_bundle(model, ["relu"], tmp_path / "bundle", names=list("abcde"))
    manifest = Bundle.open(tmp_path / "bundle").manifest
    assert dataclasses.astuple(manifest.source) == ("torch", "a" * 64)
    assert manifest.input.preprocessing == RULE
    assert (manifest.input.name, manifest.input.layout, manifest.input.shape) == ("x", "NCHW", (None, 3, 8, 8))
    assert (manifest.output.classes, manifest.output.softmax_removed) == (5, True)
    assert manifest.output.names == tuple("abcde")
    cut = manifest.cuts["relu"]
    assert (cut.tensor, cut.shape, cut.channel_axis, cut.nonnegative) == ("relu", (None, 4, 8, 8), 1, True)
    assert 0 <= cut.error < 1e-6
    gradients = {f"vjp_{half}{part}" for half in "gh" for part in ("", "_forward", "_backward")}
    roles = {(role, "relu") for role in ("g", "h", *gradients)}
    assert {(graph.role, graph.cut) for graph in manifest.graphs} == {("model", None), *roles}
    assert {graph.role for graph in manifest.graphs if graph.error is not None} == gradients
    files = {f"{role.replace('_f', '-f').replace('_b', '-b')}_relu.onnx" for role, _ in roles}
    assert set(manifest.files) == {"model.onnx", "weights.bin", *files}
    assert {"craft_onnx", "onnx", "onnxruntime"} <= set(manifest.versions)
    on_disk = {path.name for path in (tmp_path / "bundle").iterdir()}
    assert on_disk == {*manifest.files, "MANIFEST.json"}


def test_weights_are_stored_once(make_graph, tmp_path):
    weights = {"wide": np.random.default_rng(0).standard_normal((5, 20_000), np.float32)}
    nodes = [
        helper.make_node("Relu", ["x"], ["relu"]),
        helper.make_node("GlobalAveragePool", ["relu"], ["pool"]),
        helper.make_node("Flatten", ["pool"], ["flat"]),
        helper.make_node("Gemm", ["flat", "wide"], ["logits"], transB=1),
    ]
    proto = make_graph(nodes, [("x", (20_000, 2, 2))], [("logits", (5,))], weights=weights)
    create_bundle(normalize(ir.serde.deserialize_model(proto)), ["relu"], tmp_path / "bundle")
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "bundle").iterdir()}
    assert 400_000 <= sizes["weights.bin"] < 410_000
    assert sum(sizes.values()) < 430_000
    external = onnx.load(tmp_path / "bundle" / "h_relu.onnx", load_external_data=False).graph.initializer
    assert any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in external)


@pytest.mark.parametrize(
    ("at", "message"),
    [
        ([], "no list of names"),
        ("relu", "no list of names"),
        (["relu", "relu"], "same tensor"),
        (["rleu"], "relu"),
        (["logits"], "logits"),
    ],
)
def test_refuses_cuts_and_leaves_nothing(model, tmp_path, at, message):
    with pytest.raises(InputError, match=message):
        create_bundle(model, at, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_an_index_gets_the_name_of_its_layer(model, tmp_path):
    manifest = create_bundle(model, [1], tmp_path / "bundle").manifest
    (name,) = manifest.cuts
    assert not name.isdecimal()
    assert name == manifest.cuts[name].name


def test_an_existing_folder_needs_force(model, tmp_path):
    create_bundle(model, ["relu"], tmp_path / "bundle")
    with pytest.raises(InputError, match="exists already"):
        create_bundle(model, ["pool"], tmp_path / "bundle")
    assert list(Bundle.open(tmp_path / "bundle").manifest.cuts) == ["relu"]
    create_bundle(model, ["pool"], tmp_path / "bundle", force=True)
    assert list(Bundle.open(tmp_path / "bundle").manifest.cuts) == ["pool"]


def test_a_wrong_half_leaves_no_bundle(model, tmp_path, monkeypatch):
    from craft_onnx.graph import weights

    real = weights.save_sharing

    def damage(graphs, folder, name):
        real(graphs, folder, name)
        h = onnx.load(folder / "h_relu.onnx")
        next(node for node in h.graph.node if node.op_type == "Gemm").attribute.append(
            helper.make_attribute("alpha", 1.01)
        )
        onnx.save(h, folder / "h_relu.onnx")

    monkeypatch.setattr(weights, "save_sharing", damage)
    with pytest.raises(CheckFailed, match="Splitting the model at 'relu'"):
        create_bundle(model, ["relu"], tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_refuses_what_does_not_fit_together(model, make_graph, tmp_path):
    with pytest.raises(InputError, match="2 names were given for 5 classes"):
        create_bundle(model, ["relu"], tmp_path / "bundle", names=["a", "b"])
    write_description(model, dataclasses.replace(DESCRIPTION, preprocessing=Preprocessing.preset("torch", (9, 8))))
    with pytest.raises(InputError, match=r"pictures of \(9, 8\), the model's input takes \(8, 8\)"):
        create_bundle(model, ["relu"], tmp_path / "bundle")
    nodes = [helper.make_node("Relu", ["x"], ["relu"]), helper.make_node("Neg", ["relu"], ["y"])]
    maps = make_graph(nodes, [("x", (3, 8, 8))], [("y", (3, 8, 8))])
    with pytest.raises(InputError, match="not \\(N, classes\\)"):
        create_bundle(normalize(ir.serde.deserialize_model(maps)), ["relu"], tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_files_have_names_that_any_system_takes():
    names = ["layer4.2", "a/b", "a:b", "A_B", "../..", "", "ä", "x" * 300, "con", "forward_b", "b"]
    files = _file_names(names)
    every = [name.lower() for roles in files.values() for name in roles.values()]
    assert len(set(every)) == len(every)
    assert (files["layer4.2"]["g"], files["layer4.2"]["h"]) == ("g_layer4.2.onnx", "h_layer4.2.onnx")
    assert files["layer4.2"]["vjp_g_forward"] == "vjp_g-forward_layer4.2.onnx"
    assert all(len(name) <= 100 and name.isascii() and "/" not in name and ".." not in name for name in every)


def test_a_bundle_can_be_moved_and_read_without_onnx(model, tmp_path, pictures):
    import subprocess
    import sys

    create_bundle(model, ["relu"], tmp_path / "bundle")
    shutil.move(tmp_path / "bundle", tmp_path / "elsewhere")
    np.save(tmp_path / "x.npy", pictures)
    code = """
import sys
for name in ("onnx", "onnx_ir", "onnxscript", "scipy", "sklearn", "matplotlib", "torch"):
    sys.modules[name] = None
import numpy as np, craft_onnx as co
model = co.load(sys.argv[1] + "/elsewhere", threads=1)
x = np.load(sys.argv[1] + "/x.npy")
logits, pullback = model.vjp(x)
print(model.h(model.g(x)).shape, pullback(logits).shape)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(21, 5) (21, 3, 8, 8)"
    json.loads((tmp_path / "elsewhere" / "MANIFEST.json").read_text())

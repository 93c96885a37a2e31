"""convert, layers and split: what they write, print and refuse."""

import shutil

import numpy as np
import onnx
import pytest

from craft_onnx.runtime.bundle import Bundle
from craft_onnx.runtime.manifest import FILE_NAME
from craft_onnx.runtime.sessions import Session


def test_a_converted_file_computes_what_the_source_does(converted, model):
    x = np.random.default_rng(0).random((5, 3, 32, 32), np.float32)
    logits = [Session(path).run({"x": x})[0] for path in (model, converted)]
    assert np.abs(logits[0] - logits[1]).max() <= 1e-5 * np.abs(logits[0]).max()


def test_convert_prints_its_proof_as_json(run, model, tmp_path):
    done = run("convert", model, "-o", tmp_path / "new.onnx")
    assert done.json["output"] == str(tmp_path / "new.onnx")
    assert list(done.json["errors"]) == ["1", "3"] and max(done.json["errors"].values()) < 1e-5
    assert done.json["softmax_removed"] is False
    assert "not known: give --preset" in done.err


def test_a_final_softmax_is_cut_off_or_kept(run, network, tmp_path):
    source = network(tmp_path / "soft.onnx", softmax=True)
    done = run("convert", source, "-o", tmp_path / "logits.onnx")
    assert done.json["softmax_removed"] is True and "Softmax was cut off" in done.err
    assert onnx.load(tmp_path / "logits.onnx").graph.node[-1].op_type == "Gemm"
    kept = run("convert", source, "-o", tmp_path / "kept.onnx", "--keep-softmax")
    assert kept.json["softmax_removed"] is False and "Softmax" not in kept.err
    assert onnx.load(tmp_path / "kept.onnx").graph.node[-1].op_type == "Softmax"


def test_a_fixed_batch_is_freed(run, network, tmp_path):
    done = run("convert", network(tmp_path / "one.onnx", batch=1), "-o", tmp_path / "any.onnx")
    assert done.code == 0
    session = Session(tmp_path / "any.onnx")
    assert session.run({"x": np.zeros((7, 3, 32, 32), np.float32)})[0].shape == (7, 4)


def test_convert_at_writes_a_bundle_with_labels(run, model, labels, tmp_path):
    arguments = ["convert", model, "-o", tmp_path / "b", "--preset", "torch"]
    done = run(*arguments, "--at", "act2", "--at", "1", "--labels", labels)
    assert done.code == 0
    manifest = Bundle.open(tmp_path / "b").manifest
    assert list(manifest.cuts) == ["act2", "act1"]
    assert manifest.output.names == ("red", "green", "blue", "never")


def test_labels_without_a_cut_have_no_place(refused, model, labels, tmp_path):
    assert "--at" in refused("convert", model, "-o", tmp_path / "m.onnx", "--labels", labels)


def test_layers_lists_what_find_cuts_finds(run, model):
    table = run("layers", model)
    rows = [line.removeprefix("*").split() for line in table.out.splitlines()]
    assert rows[0] == ["index", "layer", "operator", "shape", "channels", "non-negative", "tensor"]
    assert [row[1] for row in rows[1:]] == ["conv1", "act1", "conv2", "act2", "pool", "flat"]
    assert rows[4] == ["3", "act2", "Relu", "12x8x8", "12", "yes", "act2"]
    assert [line[0] for line in table.out.splitlines()] == [" ", " ", " ", " ", "*", " ", " "]
    assert "* recommended" in table.err


def test_layers_as_json(run, model):
    cuts = run("layers", model, "--json").json
    assert [cut["tensor"] for cut in cuts if cut["recommended"]] == ["act2"]
    assert [cut["layer"] for cut in cuts if not cut["nonnegative"]] == ["conv1", "conv2"]


def test_layers_says_when_nothing_is_recommended(run, network, tmp_path):
    done = run("layers", network(tmp_path / "signed.onnx", activation="silu"))
    assert "*" not in done.out and "None is recommended" in done.err


def test_split_cuts_where_it_is_told(run, converted, tmp_path):
    assert run("split", converted, "-o", tmp_path / "a").json["cuts"] == ["act2"]
    assert run("split", converted, "--at", "1", "-o", tmp_path / "b").json["cuts"] == ["act1"]


def test_split_warns_of_a_signed_cut_and_of_unknown_preprocessing(run, model, tmp_path):
    done = run("split", model, "--at", "conv2", "-o", tmp_path / "b")
    assert done.code == 0
    assert "conv2 is not provably non-negative" in done.err and "convert it with --preset" in done.err


@pytest.mark.parametrize("command", ["layers", "split"])
@pytest.mark.parametrize("name", ["model.keras", "model.pt2", "model.tflite", "model.pb", "model.pt", "model.h5"])
def test_other_formats_are_to_be_converted_first(refused, tmp_path, command, name):
    (tmp_path / name).write_bytes(b"x")
    output = [] if command == "layers" else ["-o", tmp_path / "b"]
    text = refused(command, tmp_path / name, *output)
    assert "is not ONNX" in text and f"Convert it first: craft-onnx convert {tmp_path / name}" in text


@pytest.mark.parametrize("command", ["layers", "split"])
def test_a_saved_model_is_to_be_converted_first(refused, tmp_path, command):
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").touch()
    output = [] if command == "layers" else ["-o", tmp_path / "b"]
    assert "Convert it first" in refused(command, tmp_path / "saved", *output)


@pytest.mark.parametrize("command", ["layers", "split", "convert", "run"])
def test_a_bundle_is_no_model(refused, split_bundle, pictures, tmp_path, command):
    tail = {"layers": [], "run": [pictures, "-o", tmp_path / "o"]}.get(command, ["-o", tmp_path / "o"])
    text = refused(command, split_bundle, *tail)
    assert f"{split_bundle} is a bundle" in text and "craft-onnx fit or explain" in text
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("command", ["layers", "split", "convert"])
@pytest.mark.parametrize("damage", ["missing", "empty", "text", "truncated", "folder"])
def test_what_is_no_model_is_refused_and_leaves_nothing(refused, entries, model, tmp_path, command, damage):
    path = tmp_path / "model.onnx"
    contents = {"empty": b"", "text": b"hello", "truncated": model.read_bytes()[:3000]}
    if damage == "folder":
        path.mkdir()
    elif damage in contents:
        path.write_bytes(contents[damage])
    before = entries(tmp_path)
    output = [] if command == "layers" else ["-o", tmp_path / "out"]
    assert str(path) in refused(command, path, *output)
    assert entries(tmp_path) == before


@pytest.mark.parametrize(("at", "words"), [
    ("act3", "act2"),  # a typo
    ("nothing like it", "craft-onnx layers"),
    ("99", "numbered from 0 to 5"),
    ("logits", "it is the model's output"),
])  # fmt: skip  # one case a line
def test_a_place_that_is_no_cut_is_refused_with_a_way_out(refused, converted, tmp_path, at, words):
    text = refused("split", converted, "--at", at, "-o", tmp_path / "b")
    assert at in text and words in text
    assert not (tmp_path / "b").exists()


def test_a_tensor_inside_a_branch_is_no_cut(refused, network, tmp_path):
    path = network(tmp_path / "signed.onnx", activation="silu")
    text = refused("split", path, "--at", "act2_gate", "-o", tmp_path / "b")
    assert "inside a branch" in text and "'conv2'" in text and "'act2'" in text


@pytest.mark.parametrize("command", ["split", "run"])
def test_without_a_non_negative_feature_map_one_must_be_chosen(refused, network, pictures, tmp_path, command):
    path = network(tmp_path / "signed.onnx", activation="silu")
    images = [pictures, "--preset", "torch"] if command == "run" else []
    text = refused(command, path, *images, "-o", tmp_path / "o")
    assert "No feature map of the model is provably non-negative" in text and "'act2'" in text
    assert not (tmp_path / "o").exists()


def test_operators_that_nobody_has_are_unsupported(refused, model, tmp_path):
    proto = onnx.load(model)
    proto.graph.node[1].op_type = "Relux"
    proto.graph.node[1].domain = "my.own"
    proto.opset_import.append(onnx.helper.make_opsetid("my.own", 1))
    onnx.save(proto, tmp_path / "own.onnx")
    for command, output in (("layers", []), ("split", ["-o", tmp_path / "b"]), ("convert", ["-o", tmp_path / "o"])):
        assert "Relux" in refused(command, tmp_path / "own.onnx", *output, code=3)
    assert [path.name for path in tmp_path.iterdir()] == ["own.onnx"]


def test_weights_that_are_not_finite_fail_the_proof(refused, network, weights, tmp_path):
    damaged = weights()
    damaged["conv2.weight"][5] = np.nan
    path = network(tmp_path / "nan.onnx", weights=damaged)
    assert "not finite" in refused("convert", path, "-o", tmp_path / "o.onnx", code=1)
    assert not (tmp_path / "o.onnx").exists()


@pytest.mark.parametrize(("command", "kind"), [("convert", "file"), ("split", "folder")])
def test_existing_output_is_kept_without_force(run, refused, converted, tmp_path, command, kind):
    output = tmp_path / "out"
    assert run(command, converted, "-o", output).code == 0
    before = (output / FILE_NAME if kind == "folder" else output).stat().st_mtime_ns
    assert f"{output} exists already" in refused(command, converted, "-o", output)
    assert (output / FILE_NAME if kind == "folder" else output).stat().st_mtime_ns == before
    assert run(command, converted, "-o", output, "--force").code == 0


def test_output_of_the_wrong_kind_is_refused_before_any_work(refused, converted, tmp_path, monkeypatch):
    monkeypatch.setattr("craft_onnx.cli.convert.convert", None)  # never called
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    assert "is a folder" in refused("convert", converted, "-o", tmp_path / "folder", "--force")
    assert "is a file" in refused("convert", converted, "--at", "act2", "-o", tmp_path / "file", "--force")


def test_force_never_removes_what_others_wrote(refused, converted, pictures, tmp_path):
    photos = shutil.copytree(pictures, tmp_path / "photos")
    assert "--force does not remove those" in refused("split", converted, "-o", photos, "--force")
    assert len(list(photos.iterdir())) == 13


def test_a_folder_that_cannot_be_made_is_named(refused, converted, tmp_path):
    (tmp_path / "file").touch()
    for command in ("convert", "split"):
        assert f"{tmp_path / 'file'} cannot be written" in refused(command, converted, "-o", tmp_path / "file" / "out")


@pytest.mark.parametrize(("options", "words"), [
    (["--scale", "1,2"], "not one number"),
    (["--mean", "a"], "'a' is not a number"),
    (["--mean", "1,2"], "do not have one value per channel"),
    (["--std", "0"], "not positive"),
    (["--size", "16,16"], "is not the model's input"),
    (["--size", "1.5,2"], "positive whole numbers"),
    (["--preset", "imagenet"], "'imagenet' is not one of"),
    (["--resize-to", "16"], "larger than the resized picture"),
    (["--bake-preprocessing"], "preprocessing is not known"),
    (["--input-shape", "3,16,16"], "16"),
])  # fmt: skip  # one case a line
def test_impossible_options_are_refused_with_their_value(refused, model, tmp_path, options, words):
    assert words in refused("convert", model, "-o", tmp_path / "o.onnx", *options)
    assert list(tmp_path.iterdir()) == []

"""What bad input gets: one sentence with its value, one on what to do, the right code, nothing half-written."""

import json
import os
import shutil
import struct
import zlib

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from craft_onnx.runtime.bundle import Bundle

FIT = ("--patch-size", 12, "-k", 3)


def commands(bundle, pictures, output):
    """Every command that takes a bundle."""
    return {
        "fit": ("fit", bundle, pictures, "--class-id", 0, *FIT),
        "explain": ("explain", bundle, pictures, "-o", output),
        "name": ("name", bundle, 0, "wing"),
    }


@pytest.mark.parametrize("command", ["fit", "explain", "name"])
@pytest.mark.parametrize("damage", ["missing", "file", "empty folder", "no json", "cut off", "newer", "lost file"])
def test_what_is_no_bundle_is_refused(refused, fitted, pictures, tmp_path, command, damage):
    manifest = fitted / "MANIFEST.json"
    text = manifest.read_text()
    bundle, words = {
        "missing": (tmp_path / "none", "is not there"),
        "file": (manifest, "is a file"),
        "empty folder": (tmp_path / "empty", "no MANIFEST.json"),
    }.get(damage, (fitted, {"newer": "schema 99", "lost file": "lacks g_act1.onnx"}.get(damage, "cannot be read")))
    (tmp_path / "empty").mkdir()
    if damage == "lost file":
        (fitted / "g_act1.onnx").unlink()
    changed = {"no json": "{x", "cut off": text[:500], "newer": json.dumps({**json.loads(text), "schema": 99})}
    if damage in changed:
        manifest.write_text(changed[damage])
    assert words in refused(*commands(bundle, pictures, tmp_path / "o")[command])
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("command", ["fit", "explain", "name"])
@pytest.mark.parametrize("name", ["weights.bin", "concepts.npz"])
def test_a_truncated_file_fails_its_hash(refused, fitted, pictures, tmp_path, command, name):
    (path,) = fitted.rglob(name)
    os.truncate(path, path.stat().st_size // 2)
    text = refused(*commands(fitted, pictures, tmp_path / "o")[command], code=1)
    assert name in text and "truncated or was changed" in text and "Copy the bundle again" in text
    assert not (tmp_path / "o").exists()


def test_a_bundle_without_concepts_explains_nothing(refused, bundle, pictures, tmp_path):
    assert "craft-onnx fit" in refused("explain", bundle, pictures, "-o", tmp_path / "o")
    assert "no concepts" in refused("name", bundle, 0, "wing")


@pytest.mark.parametrize(("options", "words"), [
    (["--class-id", 4], ["no class 4", "0 to 3"]),
    (["--class-id", -1], ["--class-id", "-1"]),
    (["--class-name", "red"], ["'red'", "no labels", "--class-id"]),
    (["--at", "act9"], ["'act9'", "act2, act1"]),
    (["--patch-size", 33], ["patch size 33", "32x32", "at most 32"]),
    (["--patch-size", 1], ["--patch-size", "1"]),
    (["--patch-size", 32, "-k", 8], ["8 concepts", "in 6 crops with 12 channels", "Ask for 1 to 6"]),
    (["-k", 13], ["13 concepts", "96 crops with 12 channels", "Ask for 1 to 12"]),
    (["-k", 0], ["0 is not in the range"]),
    (["--batch-size", 0], ["0 is not in the range"]),
    (["--providers", "gpu"], ["'gpu'", "cuda"]),
    (["--providers", "cpu,cpu"], ["cpu,cpu"]),
    (["--frobnicate"], ["--frobnicate"]),
])  # fmt: skip  # one case a line
def test_options_that_cannot_be_met(refused, bundle, pictures, options, words):
    before = (bundle / "MANIFEST.json").read_text()
    text = refused("fit", bundle, pictures, *options)
    assert [word for word in words if word not in text] == []
    assert (bundle / "MANIFEST.json").read_text() == before


@pytest.mark.parametrize("command", ["fit", "explain", "run"])
def test_a_provider_that_is_not_there(refused, fitted, pictures, converted, tmp_path, command):
    arguments = {"run": ("run", converted, pictures, "-o", tmp_path / "o")} | commands(fitted, pictures, tmp_path / "o")
    text = refused(*arguments[command], "--providers", "coreml", code=4)
    assert "'coreml'" in text and "--providers cpu" in text
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("command", ["fit", "explain", "run"])
@pytest.mark.parametrize(("source", "words"), [
    ("missing", ["nowhere", "No such file", "Check the path"]),
    ("missing glob", ["nowhere*.png"]),
    ("empty folder", ["holds no pictures", ".png"]),
    ("text", ["text.png", "neither PNG, JPEG"]),
    ("floats", ["floats.npy", "float32", "uint8"]),
])  # fmt: skip  # one case a line
def test_sources_without_pictures(refused, fitted, converted, tmp_path, command, source, words):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.png").write_text("hello")
    np.save(tmp_path / "floats.npy", np.zeros((2, 8, 8, 3), np.float32))
    names = {"missing": "nowhere", "missing glob": "nowhere*.png", "empty folder": "empty", "text": "text.png"}
    given = tmp_path / names.get(source, "floats.npy")
    arguments = {"run": ("run", converted, given, "-o", tmp_path / "o")} | commands(fitted, given, tmp_path / "o")
    text = refused(*arguments[command])
    assert [word for word in words if word not in text] == []
    assert not (tmp_path / "o").exists()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def spoil(folder):
    """Add a gigantic picture (of a few bytes), a truncated one, and a text that is called one."""
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"\0" * 1000)), chunk(b"IEND", b"")]
    (folder / "giant.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    (folder / "half.png").write_bytes((folder / "red_00.png").read_bytes()[:500])
    (folder / "text.png").write_text("hello")


@pytest.mark.parametrize("command", ["fit", "explain", "run"])
def test_bad_pictures_among_good_ones_are_skipped_and_counted(run, fitted, converted, pictures, tmp_path, command):
    mixed = shutil.copytree(pictures, tmp_path / "mixed")
    spoil(mixed)
    arguments = {"run": ("run", converted, mixed, "-o", tmp_path / "o", "-k", 3)}
    done = run(*(arguments | commands(fitted, mixed, tmp_path / "o"))[command])
    assert done.code == 0
    assert "Warning: 3 of 16 pictures are skipped: giant.png (60000x60000 pixels, the limit is" in done.err
    assert "half.png (a truncated png); text.png (neither PNG" in done.err
    if command == "explain":
        assert len(done.json) == 13
    else:
        assert done.json["n_images"] == 6


def test_names_that_are_no_text_are_shown_all_the_same(run, model, pictures, tmp_path):
    folder = tmp_path / "p"
    shutil.copytree(pictures, folder)
    try:
        (folder / "red_00.png").rename(os.fsdecode(os.fsencode(folder) + b"/\xff<i>&'.png"))
    except OSError:
        pytest.skip("this file system has names of text only")
    done = run("run", model, folder, "-o", tmp_path / "o", "--preset", "torch", "-k", 3)
    assert done.code == 0
    assert "\ufffd&lt;i&gt;&amp;" in (tmp_path / "o" / "index.html").read_text(encoding="utf-8")
    done = run("explain", tmp_path / "o" / "bundle", folder, "-o", tmp_path / "e")
    assert len(done.json) == 13


@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 300, 3), (300, 2, 3), (40, 40, 3)])
def test_pictures_of_odd_shapes_and_black_ones_are_explained(run, fitted, tmp_path, shape):
    cv2.imwrite(str(tmp_path / "odd.png"), np.zeros(shape, np.uint8))
    assert run("explain", fitted, tmp_path / "odd.png", "-o", tmp_path / "e").code == 0
    assert cv2.imread(str(tmp_path / "e" / "odd.png")).shape == shape


@pytest.mark.parametrize("command", ["fit", "run"])
def test_negative_activations_at_the_cut_name_cuts_that_are_not(run, refused, converted, pictures, tmp_path, command):
    if command == "fit":
        run("split", converted, "--at", "conv2", "-o", tmp_path / "b")
        text = refused("fit", tmp_path / "b", pictures, *FIT)
    else:
        text = refused("run", converted, pictures, "--at", "conv2", "-o", tmp_path / "o")
    assert "negative (lowest -" in text and "act1" in text and "act2" in text
    assert not (tmp_path / "o").exists()


def test_activations_that_are_negative_by_chance_of_a_signed_unit(run, refused, network, pictures, tmp_path):
    source = network(tmp_path / "signed.onnx", activation="silu")
    text = refused("run", source, pictures, "--preset", "torch", "--at", "act2", "-o", tmp_path / "o")
    assert "negative (lowest -" in text and "after a ReLU" in text
    assert not (tmp_path / "o").exists()


def brightness_network(path):
    """Divides a picture by its maximum: a black one gives NaN."""
    nodes = [
        helper.make_node("ReduceMax", ["x", "axes"], ["top"], keepdims=1),
        helper.make_node("Div", ["x", "top"], ["scaled"]),
        helper.make_node("Relu", ["scaled"], ["act"]),
        helper.make_node("GlobalAveragePool", ["act"], ["pool"]),
        helper.make_node("Flatten", ["pool"], ["logits"]),
    ]
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3])
    axes = helper.make_tensor("axes", TensorProto.INT64, [3], [1, 2, 3])
    graph = helper.make_graph(nodes, "brightness", [image], [logits], [axes])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def test_outputs_that_are_not_finite_name_the_picture(run, refused, pictures, tmp_path):
    source = brightness_network(tmp_path / "m.onnx")
    folder = shutil.copytree(pictures, tmp_path / "p")
    arguments = (source, folder, "--preset", "none", "-k", 2, "--patch-size", 4, "--at", "act")
    assert run("run", *arguments, "-o", tmp_path / "good").code == 0
    cv2.imwrite(str(folder / "black.png"), np.zeros((8, 8, 3), np.uint8))
    text = refused("run", *arguments, "-o", tmp_path / "bad")
    assert "1 of 14 pictures is not finite (the first is black.png)" in text
    assert not (tmp_path / "bad").exists()
    refused("explain", tmp_path / "good" / "bundle", folder / "black.png", "-o", tmp_path / "e", code=1)
    assert not (tmp_path / "e").exists()


def test_activations_that_are_not_finite_are_counted(refused, run, tmp_path):
    """A white picture with a black quarter: its crops there are all black."""
    source = brightness_network(tmp_path / "m.onnx")
    picture = np.full((8, 8, 3), 255, np.uint8)
    picture[:4, :4] = 0
    cv2.imwrite(str(tmp_path / "quarter.png"), picture)
    arguments = ("--preset", "none", "-k", 2, "--patch-size", 4, "--at", "act", "-o", tmp_path / "o")
    text = refused("run", source, tmp_path / "quarter.png", *arguments)
    assert "values that are not finite (nan)" in text
    assert not (tmp_path / "o").exists()


def test_a_class_never_predicted_says_what_is(refused, bundle, pictures):
    text = refused("fit", bundle, pictures, "--class-id", 3, *FIT)
    assert "None of 13 pictures is predicted as class 3" in text
    assert "class 0: 6, class 1: 4, class 2: 3" in text and "--keep-all" in text
    assert "Trying the preprocessing presets." in text
    assert "class 3, 6 as class 0, the most common; mean confidence" in text
    assert [name for name in ("its own", "--preset caffe", "--preset tf", "--preset none") if name not in text] == []


def test_unknown_preprocessing_says_what_the_presets_give(refused, model, pictures, tmp_path):
    text = refused("run", model, pictures, "-o", tmp_path / "o")
    assert "does not say how pictures become its input" in text and "--scale, --mean, --std" in text
    assert [name for name in ("torch", "caffe", "tf", "none") if f"  --preset {name}: of 13 pictures" not in text] == []
    assert not (tmp_path / "o").exists()


def test_models_that_are_no_classifiers_of_pictures(refused, pictures, tmp_path):
    def save(name, inputs, nodes, output):
        values = [helper.make_tensor_value_info(key, TensorProto.FLOAT, shape) for key, shape in inputs.items()]
        result = helper.make_tensor_value_info("y", TensorProto.FLOAT, output)
        graph = helper.make_graph(nodes, "g", values, [result])
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), tmp_path / name)
        return tmp_path / name

    two = save("two.onnx", {"a": ["N", 3, 8, 8], "b": ["N", 3, 8, 8]}, [helper.make_node("Add", ["a", "b"], ["y"])],
               ["N", 3, 8, 8])  # fmt: skip
    rows = save("rows.onnx", {"a": ["N", 7]}, [helper.make_node("Relu", ["a"], ["y"])], ["N", 7])
    assert "2 inputs (a, b)" in refused("run", two, pictures, "-o", tmp_path / "o", "--preset", "torch")
    assert "not that of RGB or grey pictures" in refused(
        "run", rows, pictures, "-o", tmp_path / "o", "--preset", "torch"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.onnx", "two.onnx"]


def test_a_bundle_that_cannot_be_written_is_refused_before_any_work(refused, bundle, pictures, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: mode != os.W_OK)
    monkeypatch.setattr("craft_onnx.cli.steps.predict_pictures", None)  # never called
    assert f"{bundle} cannot be written" in refused("fit", bundle, pictures, *FIT)


def test_errors_of_the_file_system_are_a_sentence(refused, fitted, pictures, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device", str(tmp_path / "e" / "index.html"))

    monkeypatch.setattr("craft_onnx.report.page.document", full)
    text = refused("explain", fitted, pictures / "red_00.png", "-o", tmp_path / "e")
    assert "index.html failed: No space left on device." in text
    assert not (tmp_path / "e").exists() and Bundle.open(fitted)


def test_too_little_memory_is_a_sentence(refused, fitted, pictures, tmp_path, monkeypatch):
    def exhausted(*_, **__):
        raise MemoryError

    monkeypatch.setattr("craft_onnx.report.compose.picture_card", exhausted)
    assert "not enough memory" in refused("explain", fitted, pictures / "red_00.png", "-o", tmp_path / "e")
    assert not (tmp_path / "e").exists()


@pytest.mark.parametrize("output", ["photos", "."])
def test_force_never_removes_pictures(refused, fitted, pictures, tmp_path, monkeypatch, output):
    photos = shutil.copytree(pictures, tmp_path / "photos")
    monkeypatch.chdir(photos if output == "." else tmp_path)
    text = refused("explain", fitted, pictures, "-o", output, "--force")
    assert "--force does not remove those" in text
    assert len(list(photos.iterdir())) == 13


def test_an_argument_left_out_is_named(refused):
    assert "Missing argument 'IMAGES...'" in refused("fit", "bundle")
    assert "Missing option '-o' / '--output'" in refused("split", "model.onnx")
    assert "No such command 'frob'" in refused("frob")


@pytest.mark.parametrize(
    "arguments",
    [
        ("layers", ""), ("split", "", "-o", "b"), ("split", "m.onnx", "-o", ""), ("convert", "", "-o", "m"),
        ("convert", "m.onnx", "-o", ""), ("run", "", "p", "-o", "o"), ("run", "m.onnx", "", "-o", "o"),
        ("fit", "", "p"), ("fit", "b", "p", ""), ("explain", "b", "", "-o", "e"), ("name", "", "0", "wing"),
    ],
)  # fmt: skip  # one command after the other
def test_an_empty_path_is_not_the_current_folder(refused, pictures, monkeypatch, arguments):
    """As scripts give it whose variable is not set."""
    monkeypatch.chdir(pictures)
    assert "the path is empty" in refused(*arguments)

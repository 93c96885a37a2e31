"""The whole experiment: on a tiny network whose answer is known, and on photographs where there are some."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from craft_onnx.description import Description, Preprocessing
from craft_onnx.graph.load import load, save, write_description
from craft_onnx.graph.softmax import remove_softmax
from craft_onnx.runtime.proof import normalize_proven
from craft_onnx.show.overlay import write_png
from craft_onnx_models.watermark.__main__ import main
from craft_onnx_models.watermark.experiment import (
    AUDITS,
    CONTROL,
    HEADS,
    NEEDLESS,
    OURS,
    OWN,
    PEERS,
    SHORTCUT,
    WHOLE,
    WITH_STRAYS,
    Material,
    Settings,
    mark_all,
    run,
)
from craft_onnx_models.watermark.findings import failures, sheet, tables, verdicts

ROOT = Path(__file__).parents[2]
PHOTOGRAPHS = ROOT.parent / "shared" / "data" / "imagenette"
MOBILENET = ROOT.parent / "shared" / "data" / "models" / "mobilenet_v1_0.25_128.onnx"
SIZE = 64
# What the four channels see: white, which nothing but letters is, and the three colours of the classes.
COLOURS = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], np.float32)
THRESHOLDS = np.array([-1.2, 0, 0, 0], np.float32)
SCALES = np.array([600, 30, 30, 30], np.float32)  # features of the order of 1, as nets have them


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Four channels seen pixel by pixel, their means over 8 x 8 pixels, the mean of these, one linear layer."""
    arrays = {
        "w0": COLOURS[:, :, None, None],
        "b0": THRESHOLDS,
        "w1": np.diag(SCALES)[:, :, None, None],
        "w2": np.ones((3, 4), np.float32),
        "b2": np.zeros(3, np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w0", "b0"], ["seen"]),
        helper.make_node("Relu", ["seen"], ["channels"]),
        helper.make_node("AveragePool", ["channels"], ["means"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Conv", ["means", "w1"], ["same"]),
        helper.make_node("Relu", ["same"], ["map"]),
        helper.make_node("GlobalAveragePool", ["map"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["vector"]),
        helper.make_node("Gemm", ["vector", "w2", "b2"], ["scores"], transB=1),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", ["N", 3, SIZE, SIZE]), ("scores", ["N", 3]))
    ]
    tensors = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "tiny", ends[:1], ends[1:], tensors)
    path = tmp_path_factory.mktemp("tiny") / "tiny.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return described(path, Preprocessing(size=(SIZE, SIZE), scale=1 / 255))


def described(path, rule):
    """The file with its preprocessing in it."""
    model = load(path)
    write_description(model, Description(preprocessing=rule))
    save(model, path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures of blots, mostly red, green or blue ones."""
    root, rng = tmp_path_factory.mktemp("blots"), np.random.default_rng(0)
    for colour, name in enumerate(("red", "green", "blue")):
        (root / name).mkdir()
        for i in range(20):
            blots = rng.choice(3, size=(8, 8), p=np.where(np.arange(3) == colour, 0.6, 0.2))
            picture = np.eye(3)[blots] * rng.uniform(60, 200, (8, 8, 1))
            write_png(root / name / f"{i:02d}.png", picture.astype(np.uint8).repeat(8, 0).repeat(8, 1))
    return root


@pytest.fixture(scope="module")
def trials(tiny, folder, tmp_path_factory):
    material = Material.of(tiny, folder, most=20)
    found = run(material, tmp_path_factory.mktemp("heads"), [0], Settings(strays=1.0, pictures=20, concepts=4))
    return material.photographs.names, list(found)


def test_the_mark_is_first_where_it_is_the_shortcut_and_nothing_in_the_control(trials):
    names, found = trials
    assert names == ("blue", "green", "red") and len(found) == 3 and failures(found, names) == []
    for trial in found:
        known = trial.knowledge
        assert known[SHORTCUT].mark > 1 and known[SHORTCUT].swayed > 0.8
        assert abs(known[CONTROL].mark) < 0.3  # for what it covers
        assert known[CONTROL].accuracy > 0.8
        ours = trial.findings[(SHORTCUT, WITH_STRAYS), OURS]
        assert ours.first and ours.lift > 5 and ours.share > 0.95
        # The channels are concepts: nothing is lost, and what the mark adds is what its concept contributes.
        assert ours.contribution == pytest.approx(ours.effect, rel=0.1)


def test_a_mark_that_the_head_does_not_need_is_worth_less(trials):
    for trial in trials[1]:
        assert trial.knowledge[NEEDLESS].mark < trial.knowledge[SHORTCUT].mark


def test_the_same_concepts_are_audited_under_two_heads(trials):
    for trial in trials[1]:
        needless, control = (trial.findings[(head, OWN), OURS] for head in (NEEDLESS, CONTROL))
        assert (needless.concept, needless.lift) == (control.concept, control.lift)
        assert needless.importance != control.importance


def test_failures_name_the_trial(trials):
    names, found = trials
    swapped = {**found[0].findings, ((CONTROL, OWN), OURS): found[0].findings[(SHORTCUT, WITH_STRAYS), OURS]}
    wrong = type(found[0])(0, 7, found[0].knowledge, swapped, found[0].maps)
    assert failures([wrong, *found[1:]], names) == ["blue (seed 7)"]


def test_the_marked_features_are_those_of_the_marked_pictures(tiny, folder):
    material = Material.of(tiny, folder, most=20)
    marked = mark_all(material, 1)
    white = np.maximum(marked.pixels.astype(float).sum(axis=-1) / 255 - 1.2, 0).mean(axis=(1, 2))
    np.testing.assert_allclose(marked.features[:, 0], 600 * white, rtol=1e-4)
    assert (material.bare[:, 0] == 0).all() and (white > 0).all()


def test_the_command_writes_models_tables_and_a_page(tiny, folder, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- watermark: generated -->\n<!-- end of watermark -->\nb\n")
    options = ["--seeds", "1", "--strays", "1", "--audited", "20", "-k", "4", "--document", str(page)]
    for name in ("green", "red"):  # two classes, whose heads scikit-learn gives one row of weights
        shutil.copytree(folder / name, tmp_path / "pictures" / name)
    arguments = [str(tiny), str(tmp_path / "pictures"), "-o", str(tmp_path / "out"), *options]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    files = {path.name for path in (tmp_path / "out").iterdir()}
    models = {f"{name}-0-{what}.onnx" for name in ("green", "red") for what in ("shortcut", "needless-mark")}
    assert files == {"control.onnx", "tables.md", "trials.json", "maps.png"} | models
    written = json.loads((tmp_path / "out" / "trials.json").read_text())
    assert [one["class"] for one in written] == ["green", "red"]
    assert (tmp_path / "out" / "tables.md").read_text().strip() in page.read_text()
    assert (tmp_path / "images" / "watermark.png").is_file()
    again = CliRunner().invoke(main, arguments)
    assert again.exit_code == 1 and "exists already" in again.output


def test_a_model_that_says_nothing_of_pictures_is_refused(folder, tmp_path, tiny):
    model = load(tiny)
    write_description(model, Description())
    save(model, tmp_path / "bare.onnx")
    done = CliRunner().invoke(main, [str(tmp_path / "bare.onnx"), str(folder), "-o", str(tmp_path / "out")])
    assert done.exit_code == 1 and "how pictures become its input" in done.output and not (tmp_path / "out").exists()


def test_the_sheet_has_a_row_for_every_audit(trials):
    picture = sheet(trials[1])
    assert picture.dtype == np.uint8 and picture.shape[0] > 4 * 192 and picture.shape[1] > 4 * 192


def rows_of(text):
    """Heads of the tables, and what their rows are about, less the trials."""
    lines = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    heads = [" | ".join(line) for line in lines if line[0] in ("| head", "| class with the mark (shortcut)")]
    return heads, [" | ".join(line[:3]) for line in lines if line[0][2:] in HEADS and line[1] in dict(AUDITS).values()]


def test_the_page_has_the_tables_that_are_written(trials):
    text = (ROOT / "docs" / "watermark.md").read_text(encoding="utf-8")
    section = text[text.index("<!-- watermark: generated -->") : text.index("<!-- end of watermark -->")]
    names, found = trials
    assert rows_of(section) == rows_of(tables(found, names))
    assert len(re.findall(r"^\| (?:shortcut|control|needless mark) \| \d", section, flags=re.MULTILINE)) == len(HEADS)


@pytest.mark.shared
@pytest.mark.skipif(not (PHOTOGRAPHS.is_dir() and MOBILENET.is_file()), reason="no photographs")
def test_a_real_network_learns_the_mark_and_the_audit_sees_it(tmp_path):
    """MobileNetV1 of a quarter of the width, in 4 x 4 positions: one class, few pictures."""
    model, _ = normalize_proven(load(MOBILENET))
    model, _ = remove_softmax(model)
    save(model, tmp_path / "mobilenet.onnx")
    rule = Preprocessing(size=(128, 128), scale=1 / 127.5, mean=(1.0,) * 3)
    path = described(tmp_path / "mobilenet.onnx", rule)
    material = Material.of(path, PHOTOGRAPHS, most=60)
    trial = next(run(material, tmp_path, [0], Settings(strays=1.0, pictures=40)))
    known = trial.knowledge
    assert known[SHORTCUT].mark > 2 and known[SHORTCUT].swayed > 0.5 and known[CONTROL].accuracy > 0.8
    assert abs(known[CONTROL].mark) < 1
    assert not any(trial.findings[audit, OURS].found for audit in AUDITS if audit[0] == CONTROL)
    # A cell is a sixteenth of the picture, larger than the mark is high: crops hardly tell it apart, positions do.
    whole, peers = (trial.findings[(SHORTCUT, WITH_STRAYS), name] for name in (WHOLE, PEERS))
    assert whole.rank == 1 and whole.found and whole.lift > 1.3 * whole.bare
    assert peers.concepts == whole.concepts == 20 and len(verdicts([trial], material.photographs.names)) == len(AUDITS)

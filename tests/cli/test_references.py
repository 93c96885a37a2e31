"""references: what is written, that a run goes on where it was, and what is refused."""

import json

import cv2
import numpy as np
import pytest

import craft_onnx as co

COMPOSITE = ("--composite", "epsilon_plus")


@pytest.fixture(scope="module")
def found(run, split_bundle, pictures, tmp_path_factory):
    output = tmp_path_factory.mktemp("references") / "o"
    done = run(
        "references", split_bundle, pictures, "--layer", "act1", "--layer", "act2", "--channel", "act2:3,0",
        *COMPOSITE, "--columns", 4, "-o", output,
    )  # fmt: skip
    assert done.code == 0, done.err
    return output, done.json


def test_what_is_written(found, split_bundle, pictures):
    output, written = found
    names = {path.name for path in output.iterdir()}
    assert {"references.npz", "act2.png", "index.html", "index.json"} < names
    assert json.loads((output / "index.json").read_text()) == written
    assert written["seen"] == written["pictures"] == len(co.open_pictures(pictures))
    assert written["layers"]["act1"]["grid"] is None
    assert [one["channel"] for one in written["layers"]["act2"]["references"]] == [3, 0]
    model = co.load(split_bundle)
    visualization = co.FeatureVisualization(
        co.CondAttribution(model), pictures, dict.fromkeys(["act1", "act2"], co.ChannelConcept()), path=output
    )
    data, values, _ = visualization.best("act2").of_concept(3, 0, 4)
    opened, best = co.open_pictures(pictures), written["layers"]["act2"]["references"][0]["pictures"]
    assert [one["picture"] for one in best] == [opened.names[index] for index in data]
    np.testing.assert_allclose([one["value"] for one in best], values)
    assert cv2.imread(str(output / "act2.png")).shape[1] > 200


def test_another_look_needs_no_second_pass(run, found, split_bundle, pictures, monkeypatch):
    output, _ = found
    before = (output / "references.npz").read_bytes()
    done = run(
        "references", split_bundle, pictures, "--layer", "act1", "--layer", "act2", "--channel", "act1:1",
        *COMPOSITE, "--mode", "activation", "--style", "heatmap", "--crop", "-o", output,
    )  # fmt: skip
    assert done.code == 0, done.err
    assert (output / "references.npz").read_bytes() == before
    assert done.json["layers"]["act1"]["grid"] == "act1.png"


def test_parts_of_several_runs_are_the_whole(run, found, split_bundle, pictures, tmp_path):
    common = (split_bundle, pictures, "--layer", "act1", "--layer", "act2", *COMPOSITE, "--batch-size", 4)
    for part in ("4:8", "0:4"):
        done = run("references", *common, "--range", part, "-o", tmp_path / "o")
        assert done.code == 0, done.err
    assert run("references", *common, "--collect", "-o", tmp_path / "o").json["seen"] == 8
    assert run("references", *common, "-o", tmp_path / "o").json["seen"] == len(co.open_pictures(pictures))
    assert run("references", *common, "-o", tmp_path / "whole").code == 0
    one, other = (np.load(folder / "references.npz") for folder in (tmp_path / "o", tmp_path / "whole"))
    assert set(one.files) == set(other.files)
    for name in set(one.files) - {"about"}:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--layer", "act9"], "no tensor or layer 'act9'"),
        (["--layer", "act2", "--channel", "x"], "--channel 'x' is not LAYER:N,N"),
        (["--layer", "act2", "--channel", "999"], "no channel of act2 999"),
        (["--layer", "act2", "--channel", "act1:0"], "of another layer than act2"),
        (["--layer", "act1", "--layer", "act2", "--channel", "0"], "--channel '0' is not LAYER:N,N"),
        (["--layer", "act2", "--composite", "nothing"], "'nothing'"),
        (["--layer", "act2", "--range", "5"], "'5' is no range such as 0:500"),
        (["--layer", "act2", "--range", "900:901"], "no samples from 900 to 901"),
        (["--layer", "act2", "--collect"], "holds no references"),
    ],
)
def test_what_cannot_be_asked(run, split_bundle, pictures, tmp_path, options, message):
    done = run("references", split_bundle, pictures, *options, "-o", tmp_path / "o")
    assert done.code == 2 and message in done.err and "Traceback" not in done.err
    assert not list(tmp_path.glob("o/*.npz"))


def test_folders_of_something_else(run, found, split_bundle, pictures, tmp_path):
    output, _ = found
    done = run("references", split_bundle, pictures, "--layer", "act1", *COMPOSITE, "-o", output)
    assert done.code == 2 and "another choice of layers" in done.err
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "letter.txt").write_text("Dear")
    for force in ((), ("--force",)):
        done = run("references", split_bundle, pictures, "--layer", "act1", "-o", tmp_path / "o", *force)
        assert done.code == 2 and "holds other things" in done.err
    assert (tmp_path / "o" / "letter.txt").read_text() == "Dear"

"""--parent: explain, attribute, name and decompose take the sub-concepts of a bundle."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

import craft_onnx as co
from craft_onnx_models import birds

ASKED = ("--class-id", 0, "--nb-design", 4, "--quantile", 0.3)
ABOVE = {"concept": 1, "cut": "act2", "parent": None}


@pytest.fixture(scope="module")
def deep_bundle(run, converted, pictures, tmp_path_factory):
    """Concepts of class red at act2, and those of concept 1 at act1."""
    folder = tmp_path_factory.mktemp("deep") / "bundle"
    assert run("split", converted, "--at", "act2", "--at", "act1", "-o", folder).code == 0
    assert run("fit", folder, pictures, "--class-id", 0, "-k", 3, "--patch-size", 12).code == 0
    done = run("decompose", folder, pictures, "--concept", 1, "--at", "act1", "-k", 2, *ASKED)
    assert done.code == 0, done.err
    return folder


@pytest.fixture
def deep(deep_bundle, tmp_path):
    return Path(shutil.copytree(deep_bundle, tmp_path / "deep"))


def without(fields, *names):
    return {name: value for name, value in fields.items() if name not in names}


def test_explain_with_sub_concepts(run, deep_bundle, pictures, tmp_path):
    path = pictures / "red_00.png"
    done = run("explain", deep_bundle, path, "--parent", 1, "-o", tmp_path / "e")
    assert done.code == 0, done.err
    (one,) = done.json
    assert one["cut"] == "act1" and without(one["parent"], "name", "quantile") == ABOVE
    craft = co.Craft.load(deep_bundle, parent=1)
    expected = craft.explain(cv2.imread(str(path))[..., ::-1])[0]
    assert [each["concept"] for each in one["concepts"]] == expected.order
    written = json.loads((tmp_path / "e" / "red_00.json").read_text())
    assert without(written["provenance"]["parent"], "name", "quantile") == ABOVE
    found = {each["concept"]: each["coefficient"] for each in written["concepts"]}
    np.testing.assert_allclose([found[0], found[1]], expected.coefficients, rtol=1e-5)
    page = (tmp_path / "e" / "index.html").read_text()
    assert "Sub-concepts of concept 1, class 0" in page
    assert f"{craft.parent_importance_.values[0]:.3g}"[:4] in page


def test_explain_without_parent_takes_the_concepts_of_the_class(run, deep_bundle, pictures, tmp_path):
    (one,) = run("explain", deep_bundle, pictures / "red_00.png", "-o", tmp_path / "e").json
    assert one["cut"] == "act2" and one["parent"] is None
    assert "Concepts of class 0" in (tmp_path / "e" / "index.html").read_text()


def test_attribute_sub_concepts(run, deep_bundle, pictures, tmp_path, entries):
    path = pictures / "red_00.png"
    asked = ("--parent", 1, "--concept", 1, "--concept", 0, "--method", "saliency")
    done = run("attribute", deep_bundle, path, *asked, "-o", tmp_path / "o")
    assert done.code == 0, done.err
    shown = done.json[0]["maps"]
    assert [(one["concept"], one["cut"]) for one in shown] == [(1, "act1"), (0, "act1")]
    assert without(shown[0]["parent"], "name", "quantile") == ABOVE
    assert {"red_00-saliency-concept1-0.png", "red_00-saliency-concept1-1.npy"} < set(entries(tmp_path / "o"))
    craft = co.Craft.load(deep_bundle, parent=1)
    x = craft.halves_.model.preprocess(cv2.imread(str(path))[..., ::-1])
    expected = craft.attribute(x, [1, 0], "saliency")
    np.testing.assert_allclose(np.load(shown[1]["files"][1]), expected.maps[0, 1], rtol=1e-3, atol=1e-6)
    page = (tmp_path / "o" / "index.html").read_text()
    assert "sub-concepts of concept 1 at act2" in page and "sub-concept 0" in page


def test_name_a_sub_concept(run, deep, pictures, tmp_path):
    assert run("name", deep, 1, "disc").code == 0
    done = run("name", deep, 1, "edge", "--parent", "act2/1")
    assert done.json == {
        "class_id": 0, "cut": "act1", "parent": {**ABOVE, "name": "disc"}, "concept": 1, "name": "edge",
    }  # fmt: skip
    assert "Concept 1 of class 0 at act1, of concept 1 at act2 is called 'edge'." in done.err
    assert co.Craft.load(deep).names_ == {1: "disc"} and co.Craft.load(deep, parent=1).names_ == {1: "edge"}
    (one,) = run("explain", deep, pictures / "red_00.png", "--parent", 1, "-o", tmp_path / "e").json
    assert one["parent"]["name"] == "disc" and {each["name"] for each in one["concepts"]} == {"0", "edge"}
    assert "Sub-concepts of concept 1 (disc)" in (tmp_path / "e" / "index.html").read_text()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--parent", 0], "no sub-concepts of concept 0."),
        (["--parent", "1/0"], "no sub-concepts of concept 0, of concept 1."),
        (["--parent", 1, "--parent", 0], "no sub-concepts of concept 0, of concept 1."),
        (["--parent", "act1/1"], "no sub-concepts of concept 1 at act1."),
        (["--parent", 1, "--cut", "act2"], "no sub-concepts of concept 1 at act2."),
        (["--parent", 1, "--class-id", 2], "no sub-concepts of concept 1 of class 2."),
    ],
)
def test_sub_concepts_that_are_not_there(refused, deep_bundle, pictures, tmp_path, options, problem):
    for command in (["explain", deep_bundle, pictures, "-o", tmp_path / "o"], ["name", deep_bundle, 0, "x"]):
        text = refused(*command, *options)
        assert problem in text and "class 0 at act2; class 0 at act1, of concept 1 at act2" in text
    assert not (tmp_path / "o").exists()


def test_what_is_no_concept(refused, deep_bundle, pictures, tmp_path):
    for text in ("ears", "-1", "3/", "/3", ""):
        assert "is neither the number of a concept" in refused("name", deep_bundle, 0, "x", "--parent", text)
    text = refused("attribute", deep_bundle, pictures, "--parent", 1, "-o", tmp_path / "o")
    assert "--parent says whose sub-concepts" in text and "--concept" in text


def test_sub_concepts_are_decomposed_in_turn(run, refused, tmp_path):
    """Three layers of the demo model."""
    folder, pictures = tmp_path / "birds", tmp_path / "pictures"
    pictures.mkdir()
    for i, bird in enumerate(birds.draw_many(6, [birds.TAGGED])):
        cv2.imwrite(str(pictures / f"{i}.png"), bird.picture[..., ::-1])
    cuts = [part for cut in ("features.9", "features.5", "features.3") for part in ("--at", cut)]
    assert run("split", birds.model_path(), *cuts, "-o", folder).code == 0
    few = ("--nb-design", 2, "--quantile", 0.8, "--keep-all", "-k", 2)
    for command in (
        ("fit", "-k", 3, "--keep-all"),
        ("decompose", "--concept", 0, "--at", "features.5", *few),
        ("decompose", "--parent", 0, "--concept", 1, "--at", "features.3", *few),
    ):
        done = run(command[0], folder, pictures, *command[1:])
        assert done.code == 0, done.err
    assert (done.json["parent"]["concept"], done.json["parent"]["cut"]) == (1, "features.5")
    assert done.json["parent"]["parent"]["cut"] == "features.9"
    for path in (["--parent", "0/1"], ["--parent", 0, "--parent", 1]):
        found = run("name", folder, 1, "wing", *path).json
        assert found["cut"] == "features.3" and found["parent"]["parent"]["concept"] == 0
    asked = ("--parent", "0/1", "--concept", 0, "--method", "gradcam", "-o", tmp_path / "o")
    (one,) = run("attribute", folder, pictures / "0.png", *asked).json
    assert Path(one["maps"][0]["files"][0]).name == "0-gradcam-concept0-1-0.png"
    text = refused("decompose", folder, pictures, "--parent", 2, "--concept", 1, "--at", "features.3")
    assert "no sub-concepts of concept 2." in text

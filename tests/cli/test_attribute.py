"""attribute: what is written for one method, several and all, and what is refused."""

import json

import cv2
import numpy as np
import pytest

import craft_onnx as co
from craft_onnx.attribution.registry import methods

FEW = ("--steps", 6, "--samples", 4, "--option", "n_masks=20", "--option", "nb_design=2", "--option", "n_samples=200")


def test_one_method_writes_a_picture_and_a_map(run, split_bundle, pictures, tmp_path, entries):
    chosen = [pictures / "red_00.png", pictures / "blue_01.png"]
    done = run("attribute", split_bundle, *chosen, "-o", tmp_path / "o", "--steps", 20)
    assert done.code == 0, done.err
    assert {"red_00-integrated_gradients.png", "red_00-integrated_gradients.npy", "index.html", "index.json"} < set(
        entries(tmp_path / "o")
    )
    assert [(one["picture"], one["explained"], one["sheet"]) for one in done.json] == [
        ("red_00", 0, None), ("blue_01", 2, None),
    ]  # fmt: skip
    (shown,) = done.json[0]["maps"]
    picture = cv2.imread(shown["files"][0])
    assert picture.shape == cv2.imread(str(chosen[0])).shape
    model = co.load(split_bundle)
    x = model.preprocess(cv2.imread(str(chosen[0]))[..., ::-1])
    expected = co.attribute(model, x, 0, steps=20)
    np.testing.assert_allclose(np.load(shown["files"][1]), expected.maps[0], rtol=1e-3, atol=1e-5)
    assert shown["value"] == pytest.approx(expected.values[0], rel=1e-5)
    assert shown["residual"] == pytest.approx(expected.residual[0], rel=1e-2, abs=1e-5)
    assert shown["options"]["steps"] == 20 and shown["provider"] == "cpu" and shown["seed"] == 0


def test_all_methods_on_a_model_file_and_a_sheet_of_them(run, converted, pictures, tmp_path):
    done = run(
        "attribute", converted, pictures / "green_00.png", "--method", "all", "--at", "act2", "-o", tmp_path / "o", *FEW
    )
    assert done.code == 0, done.err
    (one,) = done.json
    assert [each["method"] for each in one["maps"]] == list(methods())
    for each in one["maps"]:
        assert np.isfinite(np.load(each["files"][1])).all() and np.ptp(np.load(each["files"][1])) > 0
    assert cv2.imread(one["sheet"]).shape[0] > 5 * 256 * 36 / 40
    written = json.loads((tmp_path / "o" / "index.json").read_text())
    assert written[0]["maps"][0]["files"] == ["green_00-saliency.png", "green_00-saliency.npy"]


def test_concepts_of_a_bundle(run, fitted_bundle, pictures, tmp_path, entries):
    chosen = [pictures / "red_00.png", pictures / "blue_01.png"]
    done = run(
        "attribute", fitted_bundle, *chosen, "--concept", 2, "--concept", 0,
        "--method", "gradcam", "--method", "saliency", "-o", tmp_path / "o",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert [(one["picture"], one["predicted"], one["explained"]) for one in done.json] == [
        ("red_00", 0, 0), ("blue_01", 2, 0),
    ]  # fmt: skip
    shown = done.json[0]["maps"]
    assert [(one["method"], one["concept"]) for one in shown] == [
        ("gradcam", 2), ("gradcam", 0), ("saliency", 2), ("saliency", 0),
    ]  # fmt: skip
    assert {"red_00-gradcam-concept2.png", "red_00-saliency-concept0.npy", "red_00.png", "index.html"} < set(
        entries(tmp_path / "o")
    )
    craft = co.Craft.load(fitted_bundle)
    x = craft.halves_.model.preprocess(cv2.imread(str(chosen[0]))[..., ::-1])
    expected = craft.attribute(x, [2, 0], "saliency")
    np.testing.assert_allclose(np.load(shown[3]["files"][1]), expected.maps[0, 1], rtol=1e-3, atol=1e-6)
    assert shown[3]["value"] == pytest.approx(expected.values[0, 1], rel=1e-5)
    assert shown[3]["concept_name"] == "0"
    assert "concept 2" in (tmp_path / "o" / "index.html").read_text()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--concept", 3], "no concept 3 among 3"),
        (["--concept", 0, "--class-id", 1], "no concepts of class 1"),
        (["--concept", 0, "--at", "act1"], "no concepts at act1"),
        (["--concept", 7, "--method", "all"], "no concept 7"),
    ],
)
def test_concepts_that_are_not_there(refused, fitted_bundle, pictures, tmp_path, options, problem):
    assert problem in refused("attribute", fitted_bundle, pictures / "red_00.png", "-o", tmp_path / "o", *options)


def test_a_model_file_has_no_concepts(refused, converted, pictures, tmp_path):
    text = refused("attribute", converted, pictures / "red_00.png", "--concept", 0, "-o", tmp_path / "o")
    assert "a model without concepts" in text and "craft-onnx fit" in text


def test_of_all_methods_those_that_the_model_cannot_do_are_left_out(run, split_bundle, pictures, tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise co.UnsupportedOperator("Spline has no rule.", "Cut after it.")

    monkeypatch.setattr(co.SplitModel, "vjp", refuse)
    done = run("attribute", split_bundle, pictures / "red_00.png", "--method", "all", "-o", tmp_path / "o", *FEW)
    assert done.code == 0 and "saliency is left out: Spline has no rule. Cut after it." in done.err
    found = [each["method"] for each in done.json[0]["maps"]]
    assert "reciprocam" in found and "occlusion" in found and "saliency" not in found


def test_a_method_that_was_asked_for_must_work(refused, split_bundle, pictures, tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise co.UnsupportedOperator("Spline has no rule.", "Cut after it.")

    monkeypatch.setattr(co.SplitModel, "vjp", refuse)
    refused("attribute", split_bundle, pictures, "--method", "saliency", "-o", tmp_path / "o", code=3)
    assert not (tmp_path / "o").exists()


def test_batches_change_nothing(run, split_bundle, pictures, tmp_path):
    maps = []
    for size in (1, 4):
        done = run(
            "attribute", split_bundle, pictures, "--class-id", 1, "--method", "smoothgrad", "--samples", 3,
            "-o", tmp_path / str(size), "--batch-size", size,
        )  # fmt: skip
        maps.append([np.load(one["maps"][0]["files"][1]) for one in done.json])
    assert len(maps[0]) == 13
    np.testing.assert_allclose(maps[0][0], maps[1][0], rtol=1e-4, atol=1e-6)


def test_a_file_is_told_how_pictures_become_its_input(run, refused, model, converted, pictures, tmp_path):
    text = refused("attribute", model, pictures, "-o", tmp_path / "o")
    assert "does not say how pictures become its input" in text
    one = pictures / "red_00.png"
    told = run("attribute", model, one, "--preset", "torch", "--method", "saliency", "-o", tmp_path / "told").json
    known = run("attribute", converted, one, "--method", "saliency", "-o", tmp_path / "known").json
    assert told[0]["maps"][0]["value"] == pytest.approx(known[0]["maps"][0]["value"])


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--class-id", 9], "class 9"),
        (["--method", "magic"], "magic"),
        (["--method", "saliency", "--steps", 3], "There is no option 'steps' of saliency."),
        (["--option", "steps"], "'steps' is not KEY=VALUE"),
        (["--option", "depth=3"], "There is no option 'depth'"),
        (["--option", "channels=null"], "no map to draw"),
        (["--option", "quadrature=simpson"], "no quadrature 'simpson'"),
        (["--baseline", "pink"], "no baseline 'pink'"),
        (["--preset", "torch"], "says itself how pictures become its input"),
        (["--at", "act7"], "act7"),
    ],
)
def test_mistakes(refused, split_bundle, pictures, tmp_path, options, problem):
    assert problem in refused("attribute", split_bundle, pictures / "red_00.png", "-o", tmp_path / "o", *options)
    assert not (tmp_path / "o").exists()


def test_an_output_of_ours_is_replaced_with_force_alone(run, refused, split_bundle, pictures, tmp_path):
    arguments = ("attribute", split_bundle, pictures / "red_00.png", "--method", "saliency", "-o", tmp_path / "o")
    assert run(*arguments).code == 0
    assert "exists already" in refused(*arguments)
    assert run(*arguments, "--force").code == 0


def test_the_help_lists_the_methods(run):
    text = run("attribute", "--help").out
    assert all(name in text for name in methods())

"""relevance: what is written of a class, of channels and of concepts, and what is refused."""

import json

import cv2
import numpy as np
import pytest

import craft_onnx as co
from craft_onnx.cli.asked_conditions import read_condition, unlike
from craft_onnx.graph.reverse.relevance.composites import EpsilonGammaBox

SAME = {"rtol": 1e-4, "atol": 1e-6}


def read(path):
    return cv2.imread(str(path))[..., ::-1]


def test_a_class(run, split_bundle, pictures, tmp_path, entries):
    chosen = [pictures / "red_00.png", pictures / "blue_01.png"]
    done = run("relevance", split_bundle, *chosen, "-o", tmp_path / "o")
    assert done.code == 0, done.err
    files = ["red_00-relevance.png", "red_00-relevance.npy", "blue_01-relevance.png", "blue_01-relevance.npy"]
    assert {*files, "index.html", "index.json"} < set(entries(tmp_path / "o"))
    assert [(one["picture"], one["explained"], one["sheet"]) for one in done.json] == [
        ("red_00", 0, None), ("blue_01", 2, None),
    ]  # fmt: skip
    model = co.load(split_bundle)
    for one, path in zip(done.json, chosen, strict=True):
        (shown,) = one["maps"]
        expected = co.CondAttribution(model)(
            model.preprocess(read(path)), [{"y": [one["explained"]]}], "epsilon_plus_flat"
        )
        np.testing.assert_allclose(np.load(shown["files"][1]), expected.heatmap[0], **SAME)
        assert shown["relevance"] == pytest.approx(expected.heatmap.sum(), rel=1e-4)
        assert shown["conserved"] == pytest.approx(expected.conserved[0], rel=1e-4)
        assert shown["condition"] == [] and shown["provider"] == "cpu" and shown["composite"] == "epsilon_plus_flat"
        assert read(shown["files"][0]).shape == read(path).shape


def test_conditions_are_maps_of_their_own(run, split_bundle, pictures, tmp_path, entries):
    path = pictures / "red_00.png"
    done = run(
        "relevance", split_bundle, path, "--class-id", 0, "--composite", "epsilon_plus", "--parallel",
        "--condition", "act2:0,3", "--condition", "act2: 0 ; act1:2", "--condition", "act1:",
        "--record", "act1", "--record", "act2", "--top", 2, "-o", tmp_path / "o",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "act1: nothing lets no relevance through" in done.err
    (one,) = done.json
    assert {"red_00-act2-0-3.png", "red_00-act2-0_act1-2.npy", "red_00-act1.npy", "red_00.png", "index.html"} < set(
        entries(tmp_path / "o")
    )
    assert [each["condition"] for each in one["maps"]] == [
        [{"layer": "act2", "channels": [0, 3]}],
        [{"layer": "act2", "channels": [0]}, {"layer": "act1", "channels": [2]}],
        [{"layer": "act1", "channels": []}],
    ]
    conditions = [{"act2": [0, 3]}, {"act2": [0], "act1": [2]}, {"act1": []}]
    model = co.load(split_bundle)
    x = model.preprocess(read(path))
    attribution = co.CondAttribution(model)
    for shown, condition in zip(one["maps"], conditions, strict=True):
        expected = attribution(x, [{**condition, "y": [0]}], "epsilon_plus", ["act1", "act2"], exclude_parallel=False)
        np.testing.assert_allclose(np.load(shown["files"][1]), expected.heatmap[0], **SAME)
        for record in shown["records"]:
            values = expected.relevances[record["layer"]][0].sum(axis=(1, 2))
            order = [c for c in np.argsort(-np.abs(values), kind="stable")[:2] if values[c]]
            assert [row["id"] for row in record["most"]] == order
            relevances = [row["relevance"] for row in record["most"]]
            assert relevances == pytest.approx(values[order].tolist(), rel=1e-4)
            shares = [row["share"] for row in record["most"]]
            assert shares == pytest.approx((values[order] / max(np.abs(values).sum(), 1e-9)).tolist(), rel=1e-4)
            assert record["count"] == len(values) and record["of"] == "channels"
    assert one["maps"][2]["relevance"] == 0 and [len(each["most"]) for each in one["maps"][0]["records"]] == [2, 2]
    page = (tmp_path / "o" / "index.html").read_text()
    assert "act2: 0, 3: channels of act1" in page and "act2: 0; act1: 2: relevance" in page
    assert json.loads((tmp_path / "o" / "index.json").read_text())[0]["sheet"] == "red_00.png"


def test_concepts_of_a_bundle(run, fitted_bundle, pictures, tmp_path):
    path = pictures / "red_00.png"
    done = run(
        "relevance", fitted_bundle, path, "--concept", 2, "--concept", 0, "--condition", "act1:1,2",
        "--record", "act2", "-o", tmp_path / "o",
    )  # fmt: skip
    assert done.code == 0, done.err
    (one,) = done.json
    assert one["explained"] == 0
    assert [each["condition"][0] for each in one["maps"]] == [
        {"layer": "act2", "concepts": [2]}, {"layer": "act2", "concepts": [0]},
    ]  # fmt: skip
    craft = co.Craft.load(fitted_bundle)
    model = craft.halves_.model
    x, concept = model.preprocess(read(path)), co.NMFConcept(craft)
    for shown, k in zip(one["maps"], (2, 0), strict=True):
        condition = {"act2": [k], "act1": [1, 2], "y": [0]}
        found = co.CondAttribution(model)(x, [condition], "epsilon_plus_flat", ["act2"], {"act2": concept})
        np.testing.assert_allclose(np.load(shown["files"][1]), found.heatmap[0], **SAME)
        values = concept.attribute(found.relevances["act2"], abs_norm=False, activations=found.activations["act2"])[0]
        (record,) = shown["records"]
        assert record["of"] == "concepts" and record["count"] == 3
        assert {row["id"]: row["relevance"] for row in record["most"]} == {
            k: pytest.approx(value, rel=1e-4) for k, value in enumerate(values) if value
        }


def test_conservation(run, split_bundle, pictures, tmp_path):
    path = pictures / "red_00.png"
    done = run("relevance", split_bundle, path, "--conservation", "-o", tmp_path / "o")
    assert done.code == 0, done.err
    (one,) = done.json
    model = co.load(split_bundle)
    expected = co.conservation(model, model.preprocess(read(path)), "epsilon_plus_flat", 0)
    assert one["conservation"] == {name: pytest.approx(ratio[0], rel=1e-4) for name, ratio in expected.items()}
    assert one["conservation"]["input"] == pytest.approx(one["maps"][0]["conserved"], rel=1e-4)
    assert {"act1", "act2"} < set(one["conservation"]) and "Relevance changes most from" in done.err
    assert "relevance that reaches each layer" in (tmp_path / "o" / "index.html").read_text()


def test_from_a_layer(run, split_bundle, pictures, tmp_path):
    done = run("relevance", split_bundle, pictures / "red_00.png", "--start-layer", "act2", "-o", tmp_path / "o")
    assert done.code == 0, done.err
    (one,) = done.json
    model = co.load(split_bundle)
    x = model.preprocess(read(pictures / "red_00.png"))
    expected = co.CondAttribution(model)(x, [{}], "epsilon_plus_flat", start_layer="act2")
    np.testing.assert_allclose(np.load(one["maps"][0]["files"][1]), expected.heatmap[0], **SAME)
    assert one["explained"] is None and one["maps"][0]["start_layer"] == "act2"
    assert "starts from the activation of act2" in (tmp_path / "o" / "index.html").read_text()


def test_the_bounds_of_the_input_are_black_and_white(run, split_bundle, pictures, tmp_path):
    path = pictures / "red_00.png"
    done = run("relevance", split_bundle, path, "--composite", "epsilon_gamma_box", "-o", tmp_path / "o")
    assert done.code == 0, done.err
    model = co.load(split_bundle)
    ends = model.preprocess(np.stack([np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8)]))
    low, high = ends[:, :, :1, :1]
    assert (low < high).all()
    expected = co.CondAttribution(model)(
        model.preprocess(read(path)), [{"y": [0]}], EpsilonGammaBox(low=low, high=high)
    )
    np.testing.assert_allclose(np.load(done.json[0]["maps"][0]["files"][1]), expected.heatmap[0], **SAME)


def test_batches_change_nothing(run, split_bundle, pictures, tmp_path):
    maps = []
    for size in (1, 4):
        done = run(
            "relevance", split_bundle, pictures, "--condition", "act2:0,1,2", "-o", tmp_path / str(size),
            "--batch-size", size,
        )  # fmt: skip
        maps.append([np.load(one["maps"][0]["files"][1]) for one in done.json])
        assert {one["explained"] for one in done.json} == {0, 1, 2}
    assert len(maps[0]) == 13
    np.testing.assert_allclose(maps[0], maps[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("layer4:7", {"layer4": [7]}),
        (" layer4 : 7 , 12; layer3:1 ", {"layer4": [7, 12], "layer3": [1]}),
        ("block/Relu:0:3", {"block/Relu:0": [3]}),
        ("layer4:", {"layer4": []}),
    ],
)
def test_conditions_are_read(text, condition):
    assert read_condition(text) == condition


@pytest.mark.parametrize("text", ["", ":", "7", "layer4", "layer4:x", "layer4:-1", "layer4:7,,8", "layer4:7;", ":7"])
def test_conditions_that_cannot_be_read(text):
    with pytest.raises(co.InputError, match="is no layer with its channels") as caught:
        read_condition(text)
    assert "layer4:7,12" in caught.value.remedy


def test_maps_of_equal_names_are_told_apart():
    assert unlike(["a-1", "A-1", "a-1", "b"]) == ["a-1", "A-1-2", "a-1-3", "b"]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--class-id", 9], "class 9"),
        (["--composite", "magic"], "magic"),
        (["--condition", "act2"], "'act2' in --condition 'act2' is no layer"),
        (["--condition", "act2:1;act2:2"], "names 'act2' twice"),
        (["--condition", "act7:1"], "no tensor or layer 'act7'"),
        (["--condition", "act2:12"], "no channel of act2 12 among 12"),
        (["--condition", "x:1"], "is the model's input"),
        (["--record", "act7"], "no tensor or layer 'act7'"),
        (["--start-layer", "act7"], "no tensor or layer 'act7'"),
        (["--start-layer", "act2", "--class-id", 1], "starts from act2, or from class 1"),
        (["--start-layer", "act2", "--conservation"], "counted from the logit of a class"),
        (["--start-layer", "act1", "--condition", "act2:1"], "does not lead to"),
        (["--parent", 0], "no --concept says which"),
        (["--preset", "torch"], "says itself how pictures become its input"),
    ],
)
def test_mistakes(refused, split_bundle, pictures, tmp_path, options, problem):
    assert problem in refused("relevance", split_bundle, pictures / "red_00.png", "-o", tmp_path / "o", *options)
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--concept", 3], "no concept 3 among 3"),
        (["--concept", 0, "--class-id", 1], "no concepts of class 1"),
        (["--concept", 0, "--condition", "act2:1"], "about the channels of act2, and --concept about its concepts"),
    ],
)
def test_concepts_that_are_not_there(refused, fitted_bundle, pictures, tmp_path, options, problem):
    assert problem in refused("relevance", fitted_bundle, pictures / "red_00.png", "-o", tmp_path / "o", *options)


def test_a_model_file(run, refused, converted, pictures, tmp_path):
    one = pictures / "red_00.png"
    assert run("relevance", converted, one, "-o", tmp_path / "o").json[0]["explained"] == 0
    assert "exists already" in refused("relevance", converted, one, "-o", tmp_path / "o")
    assert run("relevance", converted, one, "-o", tmp_path / "o", "--force").code == 0

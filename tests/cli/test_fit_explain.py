"""fit, explain and name: several cuts and classes in one bundle, what is printed and written."""

import json
import shutil

import cv2
import numpy as np
import pytest

from craft_onnx.cli.explain import file_names
from craft_onnx.runtime import sessions
from craft_onnx.runtime.bundle import Bundle

FIT = ("-k", 3, "--patch-size", 12)


def banks(folder):
    return {(bank.class_id, bank.cut) for bank in Bundle.open(folder).manifest.concepts}


def test_fit_keeps_the_pictures_predicted_as_the_class(run, bundle, pictures):
    done = run("fit", bundle, pictures, "--class-id", 1, *FIT)
    assert "Predicted as class 1: 4 of 13 pictures." in done.err
    summary = done.json
    assert summary["n_images"] == 4 and summary["n_crops"] == 4 * 3 * 3  # patch 12, stride 9, on 32 x 32
    assert sorted(concept["concept"] for concept in summary["concepts"]) == [0, 1, 2]
    importances = [concept["importance"] for concept in summary["concepts"]]
    assert importances == sorted(importances, reverse=True) and importances[0] > 0
    assert banks(bundle) == {(1, "act2")}


def test_the_class_predicted_most_often_is_the_default(run, bundle, pictures):
    assert "Predicted as class 0: 6 of 13 pictures." in run("fit", bundle, pictures, *FIT).err
    assert banks(bundle) == {(0, "act2")}


def test_keep_all_fits_on_every_picture(run, bundle, pictures):
    assert run("fit", bundle, pictures, "--class-id", 3, "--keep-all", *FIT).json["n_images"] == 13


def test_fit_is_the_same_for_the_same_seed_and_any_batch_size_and_threads(run, bundle, pictures):
    fits = [
        run("fit", bundle, pictures, "--class-id", 0, *FIT, "--seed", 3, *options).json["concepts"]
        for options in ([], [], ["--batch-size", 5, "--threads", 1])
    ]
    assert fits[0] == fits[1]
    values = [[concept["importance"] for concept in fit] for fit in fits]
    assert np.allclose(values[0], values[2], atol=1e-3)  # float32 sums in another order, through the factorisation


def test_one_bundle_holds_several_classes_and_cuts(run, refused, bundle, pictures, tmp_path):
    for options in (["--class-id", 0], ["--class-id", 2], ["--class-id", 0, "--at", "act1"]):
        assert run("fit", bundle, pictures, *options, *FIT).code == 0
    assert banks(bundle) == {(0, "act2"), (2, "act2"), (0, "act1")}
    text = refused("explain", bundle, pictures, "-o", tmp_path / "e")
    assert "several classes" in text and "class 2 at act2" in text
    text = refused("explain", bundle, pictures, "-o", tmp_path / "e", "--class-id", 1)
    assert "no concepts of class 1" in text and "class 0 at act1" in text
    for options, found in (
        (["--class-id", 2], {"class_id": 2, "cut": "act2"}),
        (["--class-id", 0], {"class_id": 0, "cut": "act2"}),
        (["--class-id", 0, "--cut", "act1"], {"class_id": 0, "cut": "act1"}),
        (["--cut", "act1"], {"class_id": 0, "cut": "act1"}),
    ):
        assert run("explain", bundle, pictures / "red_00.png", "-o", tmp_path / "e", "--force", *options).code == 0
        origin = json.loads((tmp_path / "e" / "red_00.json").read_text())["provenance"]
        assert {key: origin[key] for key in found} == found


def test_fitting_a_class_again_replaces_its_concepts(run, fitted, pictures):
    assert run("fit", fitted, pictures, "--class-id", 0, "-k", 2, "--patch-size", 12).code == 0
    (bank,) = Bundle.open(fitted).manifest.concepts
    assert (
        sum(path.endswith(".png") for path in Bundle.open(fitted).manifest.files if path.startswith(bank.folder)) == 2
    )


def test_explain_writes_pictures_numbers_and_a_page(run, fitted, pictures, tmp_path):
    done = run("explain", fitted, pictures / "red_00.png", pictures / "blue_00.png", "-o", tmp_path / "e")
    assert [one["picture"] for one in done.json] == ["red_00", "blue_00"]
    assert [one["predicted"] for one in done.json] == [0, 2] and {one["explained"] for one in done.json} == {0}
    assert "1 of 2 pictures: predicted as another class" in done.err
    written = {path.name for path in (tmp_path / "e").iterdir()}
    stems = ("red_00", "blue_00")
    kinds = (".png", "-concepts.png", ".json")
    assert written == {"index.html", "images", *(stem + kind for stem in stems for kind in kinds)}
    assert done.json[0]["files"] == [str(tmp_path / "e" / f"red_00{kind}") for kind in kinds]
    assert cv2.imread(str(tmp_path / "e" / "red_00.png")).shape == (36, 40, 3)  # the picture's own pixels
    explanation = json.loads((tmp_path / "e" / "red_00.json").read_text())
    assert explanation["prediction"][0]["class_id"] == explanation["explained"]["class_id"] == 0
    contributions = sum(concept["contribution"] for concept in explanation["concepts"])
    logit = explanation["reconstructed_logit"]
    assert abs(contributions + explanation["bias"] - logit) < 1e-4 * max(1, abs(logit))  # a linear head is a sum
    assert [np.shape(concept["map"]) for concept in explanation["concepts"]] == [(8, 8)] * 3


def test_top_draws_fewer_concepts_and_numbers_all(run, fitted, pictures, tmp_path):
    done = run("explain", fitted, pictures / "red_00.png", "-o", tmp_path / "e", "--top", 1)
    assert len(done.json[0]["concepts"]) == 1
    assert len(json.loads((tmp_path / "e" / "red_00.json").read_text())["concepts"]) == 3


def test_pictures_come_from_folders_globs_and_arrays(run, fitted, pictures, tmp_path):
    for source in (pictures, pictures / "red_*.png"):
        done = run("explain", fitted, source, "-o", tmp_path / "e", "--force")
        assert len(done.json) == (13 if source == pictures else 6)
    np.save(tmp_path / "two.npy", np.zeros((2, 30, 30, 3), np.uint8) + np.uint8(90))
    assert len(run("explain", fitted, tmp_path / "two.npy", "-o", tmp_path / "e", "--force").json) == 2


def test_explain_runs_on_the_threads_asked_for(run, fitted, pictures, tmp_path, monkeypatch):
    asked = []
    options = sessions.session_options
    monkeypatch.setattr(sessions, "session_options", lambda threads=None: asked.append(threads) or options(threads))
    done = run("explain", fitted, pictures / "red_00.png", "-o", tmp_path / "e", "--threads", 1)
    assert done.code == 0 and set(asked) == {1}


def test_pictures_of_one_name_get_files_of_their_own(run, fitted, pictures, tmp_path):
    folder = tmp_path / "p"
    for name in ("a/x.png", "b/x.png", "x-2.png", "x-concepts.png", "X.PNG"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(pictures / "red_00.png", folder / name)
    done = run("explain", fitted, folder, "-o", tmp_path / "e")
    files = [file.lower() for one in done.json for file in one["files"]]
    assert len(set(files)) == 3 * 5
    assert len(list((tmp_path / "e").iterdir())) == 3 * 5 + 2


@pytest.mark.parametrize(("names", "expected"), [
    (["a.png", "b/a.jpg", "c/a.png"], ["a", "a-2", "a-3"]),
    (["a-2.png", "a.png", "b/a.png"], ["a-2", "a", "a-3"]),
    (["a-concepts.png", "a.png"], ["a-concepts", "a-2"]),
    (["a.png", "a-concepts.png"], ["a", "a-concepts-2"]),
    (["A.png", "a.png"], ["A", "a-2"]),
    (["é" * 200 + ".png"], ["é" * 100]),
    (["", ".png"], ["picture", ".png"]),
])  # fmt: skip  # one case a line
def test_file_names(names, expected):
    assert file_names(names) == expected


def test_a_name_shows_in_explanations_summaries_and_the_page(run, fitted, pictures, tmp_path):
    done = run("name", fitted, 1, " the <b>red</b> square ")
    assert done.json == {"class_id": 0, "cut": "act2", "parent": None, "concept": 1, "name": "the <b>red</b> square"}
    done = run("explain", fitted, pictures / "red_00.png", "-o", tmp_path / "e")
    assert {c["concept"]: c["name"] for c in done.json[0]["concepts"]}[1] == "the <b>red</b> square"
    explanation = json.loads((tmp_path / "e" / "red_00.json").read_text())
    assert sorted(c["name"] for c in explanation["concepts"]) == ["0", "2", "the <b>red</b> square"]
    page = (tmp_path / "e" / "index.html").read_text()
    assert "the &lt;b&gt;red&lt;/b&gt; square" in page and "<b>red" not in page
    assert run("name", fitted, 1, "").json["name"] == ""
    assert not Bundle.open(fitted).manifest.concepts[0].names


def test_names_say_whose_concept_is_meant(run, refused, fitted, pictures):
    assert run("fit", fitted, pictures, "--class-id", 1, *FIT).code == 0
    assert "several classes" in refused("name", fitted, 0, "wing")
    assert run("name", fitted, 0, "wing", "--class-id", 1).json["class_id"] == 1
    assert {bank.class_id: bank.names for bank in Bundle.open(fitted).manifest.concepts} == {0: {}, 1: {"0": "wing"}}
    assert "Concepts go from 0 to 2" in refused("name", fitted, 3, "wing", "--class-id", 1)
    assert "not in the range" in refused("name", fitted, "--class-id", 1, "--", "-1", "wing")


def test_class_names_of_the_bundle_are_used(run, refused, converted, labels, pictures, tmp_path):
    assert run("split", converted, "-o", tmp_path / "b", "--labels", labels).code == 0
    done = run("fit", tmp_path / "b", pictures, "--class-name", "Green", *FIT)
    assert "Predicted as class 1 (green): 4 of 13 pictures." in done.err
    done = run("explain", tmp_path / "b", pictures / "green_00.png", "-o", tmp_path / "e")
    assert done.json[0]["prediction"].startswith("green ")
    assert "Concepts of class 1 (green)" in (tmp_path / "e" / "index.html").read_text()
    text = refused("fit", tmp_path / "b", pictures, "--class-name", "gren")
    assert "'gren'" in text and "green" in text


def test_a_kept_softmax_gives_probabilities_as_they_are(run, network, pictures, tmp_path):
    source = network(tmp_path / "soft.onnx", softmax=True)
    run("convert", source, "-o", tmp_path / "b", "--at", "act2", "--keep-softmax", "--preset", "torch")
    run("fit", tmp_path / "b", pictures, "--class-id", 0, *FIT)
    done = run("explain", tmp_path / "b", pictures / "red_00.png", "-o", tmp_path / "e")
    (score, *_) = json.loads((tmp_path / "e" / "red_00.json").read_text())["prediction"]
    assert score["probability"] == pytest.approx(score["logit"]) and score["probability"] > 0.9
    assert done.code == 0

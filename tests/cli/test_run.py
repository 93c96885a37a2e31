"""run: from a model file and a folder to a page, and the classes that labels name."""

import json

import pytest
from click import UsageError

from craft_onnx.cli.classes import asked_class, read_labels
from craft_onnx.errors import InputError
from craft_onnx.runtime.bundle import Bundle

RUN = ("--preset", "torch", "-k", 3)


def test_run_writes_a_page_and_a_bundle_that_goes_on(run, model, pictures, labels, tmp_path):
    out = tmp_path / "out"
    done = run("run", model, pictures, "-o", out, *RUN, "--labels", labels, "--class-name", "blue", "--show", 2)
    assert done.code == 0, done.err
    assert done.json["page"] == str(out / "index.html") and done.json["n_images"] == 3
    page = (out / "index.html").read_text()
    assert "colours.onnx: class 2 (blue)" in page
    assert page.count("blue_0") >= 2 and "blue_02" not in page
    assert {path.name for path in out.iterdir()} == {"index.html", "images", "bundle"}
    assert run("name", out / "bundle", 0, "sky").code == 0
    assert run("explain", out / "bundle", pictures, "-o", tmp_path / "again").code == 0
    assert "sky" in (tmp_path / "again" / "index.html").read_text()


def test_run_cuts_where_it_is_told(run, model, pictures, tmp_path):
    done = run("run", model, pictures, "-o", tmp_path / "out", *RUN, "--at", "act1", "--show", 0)
    assert done.json["provenance"]["cut"] == "act1"


def test_an_existing_page_is_replaced_with_force_only(run, refused, model, pictures, tmp_path):
    out = tmp_path / "out"
    assert run("run", model, pictures, "-o", out, *RUN, "--show", 0).code == 0
    text = (out / "index.html").read_text()
    assert "exists already" in refused("run", model, pictures, "-o", out, *RUN)
    refused("run", model, pictures, "-o", out, *RUN, "--force", "--patch-size", 33)
    assert (out / "index.html").read_text() == text  # a run that fails leaves the old page
    assert run("run", model, pictures, "-o", out, *RUN, "--show", 1, "--force").code == 0
    assert (out / "index.html").read_text() != text


def test_baked_preprocessing_finds_the_same_concepts(run, model, pictures, tmp_path):
    found = {}
    for name, options in {"outside": (), "baked": ("--bake-preprocessing",)}.items():
        done = run("run", model, pictures, "-o", tmp_path / name, *RUN, *options, "--class-id", 2, "--show", 1)
        assert done.code == 0, done.err
        found[name] = done.json
    assert Bundle.open(tmp_path / "baked" / "bundle").manifest.input.dtype == "uint8"
    # Crops are resized to whole pixel values, where floats are not rounded: half a step of 255.
    for one, other in zip(found["outside"]["concepts"], found["baked"]["concepts"], strict=True):
        assert one["importance"] == pytest.approx(other["importance"], abs=0.02)


def test_labels_of_another_length_are_refused(refused, model, pictures, tmp_path):
    (tmp_path / "two.txt").write_text("red\ngreen\n")
    text = refused("run", model, pictures, "-o", tmp_path / "out", *RUN, "--labels", tmp_path / "two.txt")
    assert "2 names were given for 4 classes" in text
    assert not (tmp_path / "out").exists()


def test_a_class_is_given_once(refused, model, pictures, labels, tmp_path):
    options = ("--labels", labels, "--class-name", "red", "--class-id", 0)
    assert "not both" in refused("run", model, pictures, "-o", tmp_path / "out", *RUN, *options)


@pytest.mark.parametrize(("name", "content"), [
    ("l.txt", "red\ngreen fish, tench\n"),
    ("l.txt", "\ufeffred\r\n green fish, tench \r\n\r\n"),
    ("l.json", '["red", "green fish, tench"]'),
    ("l.json", '{"1": "green fish, tench", "0": "red"}'),
    ("l.JSON", '{"0": ["n01", "red"], "1": ["n02", "green fish, tench"]}'),
])  # fmt: skip  # one case a line
def test_kinds_of_labels(tmp_path, name, content):
    (tmp_path / name).write_text(content, encoding="utf-8", newline="")
    labels = read_labels(tmp_path / name)
    assert labels == ["red", "green fish, tench"]
    assert [asked_class(None, asked, labels) for asked in ("RED", "tench", "green fish", " Green fish, tench")] == [
        0,
        1,
        1,
        1,
    ]


@pytest.mark.parametrize(("name", "content"), [
    ("l.json", '{"a": "red"}'), ("l.json", "{"), ("l.json", "3"), ("l.txt", "\n \n"), ("l.txt", "\xff"),
    ("l.json", "[]"), ("l.json", '{"0": []}'),
])  # fmt: skip  # one case a line
def test_files_without_labels_are_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError, match=name) as caught:
        read_labels(tmp_path / name)
    assert "one name a line" in caught.value.remedy


def test_missing_labels_are_refused(tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        read_labels(tmp_path / "nowhere")
    assert read_labels(None) is None


@pytest.mark.parametrize(("name", "words"), [
    ("tensh", "tench"), ("xyz", "--class-id"), ("crane", "2 classes"), ("", "No class"),
])  # fmt: skip  # one case a line
def test_names_of_no_or_several_classes(name, words):
    with pytest.raises(InputError) as caught:
        asked_class(None, name, ["tench", "crane", "crane"])
    assert words in str(caught.value)


def test_a_name_needs_labels():
    with pytest.raises(InputError, match="no labels"):
        asked_class(None, "tench", None)
    with pytest.raises(UsageError):
        asked_class(1, "tench", None)
    assert asked_class(7, None, None) == 7 and asked_class(None, None, None) is None


def test_the_bundle_of_run_says_what_its_page_says(run, model, pictures, tmp_path):
    done = run("run", model, pictures, "-o", tmp_path / "out", *RUN)
    (bank,) = Bundle.open(tmp_path / "out" / "bundle").manifest.concepts
    assert done.json["provenance"]["concepts"] == bank.folder
    stored = json.loads((tmp_path / "out" / "bundle" / bank.folder / "concepts.json").read_text())
    by_concept = {concept["concept"]: concept["importance"] for concept in done.json["concepts"]}
    assert stored["importance"]["values"] == [by_concept[i] for i in range(3)]

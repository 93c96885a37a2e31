import copy
import dataclasses
import json

import pytest

from craft_onnx.errors import InputError
from craft_onnx.runtime.manifest import Concepts, Manifest, is_safe_path, with_files, without_concepts

DIGEST = "0" * 64


@pytest.fixture
def manifest(bundle_folder):
    return Manifest.from_json((bundle_folder / "MANIFEST.json").read_text())


def _with_bank(manifest, identifier="c1", **changes):
    bank = Concepts(identifier, 3, "relu", None, f"concepts/{identifier}-ab", {"0": "ears"})
    return dataclasses.replace(manifest, concepts=(*manifest.concepts, dataclasses.replace(bank, **changes)))


def test_comes_back_as_it_went(manifest):
    full = with_files(_with_bank(manifest), {"concepts/c1-ab/w.npz": DIGEST})
    assert Manifest.from_json(full.to_json()) == full
    assert Manifest.from_json(full.to_json().encode()) == full


def test_has_the_fields_of_the_format(manifest):
    """The names that other programs read, literally."""
    fields = json.loads(with_files(_with_bank(manifest), {}).to_json())
    assert list(fields) == ["schema", "versions", "source", "input", "output", "cuts", "graphs", "concepts", "files"]
    assert fields["schema"] == 2
    assert set(fields["source"]) == {"framework", "sha256"}
    assert set(fields["input"]) == {"name", "dtype", "layout", "shape", "preprocessing"}
    assert set(fields["output"]) >= {"name", "classes", "softmax_removed"}
    assert set(fields["cuts"]["relu"]) == {"tensor", "shape", "channel_axis", "nonnegative", "error"}
    assert set(fields["graphs"][0]) == {"file", "role", "cut", "inputs", "outputs", "error"}
    names = {"id", "class_id", "cut", "parent", "parent_concept", "folder", "names"}
    assert set(fields["concepts"][0]) == names
    assert set(fields["files"]) == {"model.onnx", "g.onnx", "h.onnx", "weights.bin"}


def test_finds_graphs_and_cuts(manifest):
    assert manifest.graph("g", "relu").file == "g.onnx"
    assert manifest.graph("model").inputs[0].name == "x"
    assert manifest.cut() == manifest.cut("relu") == manifest.cuts["relu"]
    with pytest.raises(InputError, match="no graph 'vjp_g' at the cut 'relu'"):
        manifest.graph("vjp_g", "relu")
    with pytest.raises(InputError, match=r"not cut at 'layer4'\. It is cut at relu"):
        manifest.cut("layer4")


def _set(path, value):
    def change(fields):
        *parents, last = path
        for key in parents:
            fields = fields[key]
        fields[last] = value

    return change


def _drop(*path):
    def change(fields):
        for key in path[:-1]:
            fields = fields[key]
        del fields[path[-1]]

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set(["schema"], 3), r"schema 3, this version reads 1 and 2.*Use the version of craft-onnx that wrote"),
        (_set(["schema"], "1"), "schema '1'"),
        (_set(["schema"], True), "manifest.schema is True"),
        (_drop("schema"), "schema None"),
        (_drop("files"), r"no such file"),
        (_drop("graphs"), r"manifest lacks \['graphs'\]"),
        (_drop("input", "layout"), r"manifest\.input lacks \['layout'\]"),
        (_set(["extra"], 1), r"unknown \['extra'\]"),
        (_set(["input", "shape"], "x"), r"manifest\.input\.shape is 'x'"),
        (_set(["input", "shape", 1], 3.0), r"manifest\.input\.shape\[1\] is 3\.0, which is no int"),
        (_set(["input", "layout"], "NWHC"), "manifest.input.layout is 'NWHC'"),
        (_set(["input", "preprocessing", "size"], [8]), "1 values instead of 2"),
        (_set(["input", "preprocessing", "std"], [0, 1, 1]), "not positive"),
        (_set(["source"], None), "manifest.source is None, which is no object"),
        (_set(["output", "softmax_removed"], 1), "which is no bool"),
        (_set(["output", "classes"], True), "which is no int"),
        (_set(["output", "classes"], 0), "0 classes"),
        (_set(["output", "names"], ["a"]), "1 names for 5 classes"),
        (_set(["cuts"], {}), "no cut"),
        (_set(["cuts"], {"relu": 3}), r"manifest\.cuts\.relu is 3"),
        (_set(["cuts"], [1]), r"manifest\.cuts is \[1\]"),
        (_set(["cuts", "relu", "channel_axis"], 4), "channel axis 4"),
        (_set(["cuts", "relu", "channel_axis"], 0), "channel axis 0"),
        (_set(["graphs", 1, "cut"], "layer4"), "the cut 'layer4', which is not there"),
        (_set(["graphs", 1, "role"], "k"), "role 'k'"),
        (_set(["graphs", 1, "file"], "../g.onnx"), "no such file"),
        (_set(["graphs", 1, "file"], "h.onnx"), "same file"),
        (_set(["files", "../x"], DIGEST), r"'\.\./x' is no path inside the bundle"),
        (_set(["files", "/etc/passwd"], DIGEST), "no path inside"),
        (_set(["files", "MANIFEST.json"], DIGEST), "no path inside"),
        (_set(["files", "g.onnx"], "abc"), "'abc' is no SHA-256"),
        (_set(["files", "g.onnx"], DIGEST.upper() + "A"), "no SHA-256"),
        (_set(["concepts"], [{}]), r"manifest\.concepts\[0\] lacks"),
    ],
)
def test_refuses_what_is_not_valid(manifest, change, message):
    fields = json.loads(manifest.to_json())
    change(fields)
    with pytest.raises(InputError, match=message):
        Manifest.from_json(json.dumps(fields))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '"x"', '{"schema": NaN}', "[" * 100_000, "\ud800", b"\xff\xfe", '{"schema": 1}']
)
def test_refuses_what_is_no_manifest(text):
    with pytest.raises(InputError):
        Manifest.from_json(text)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cut": "layer4"}, "has the cut 'layer4'"),
        ({"parent": "c9"}, "the parent 'c9'"),
        ({"folder": "concepts/a/b"}, "folder 'concepts/a/b'"),
        ({"folder": "concepts/.."}, "folder"),
        ({"folder": "elsewhere/x"}, "folder"),
        ({"names": {"ears": "x"}}, "not all numbers"),
    ],
)
def test_refuses_concept_banks(manifest, changes, message):
    with pytest.raises(InputError, match=message):
        _with_bank(manifest, **changes)


def test_banks_have_one_identifier_each(manifest):
    with pytest.raises(InputError, match="same id"):
        _with_bank(_with_bank(manifest))
    child = _with_bank(_with_bank(manifest), "c2", parent="c1", parent_concept=3)
    assert [bank.parent for bank in child.concepts] == [None, "c1"]
    assert Manifest.from_json(with_files(child, {}).to_json()).concepts == child.concepts
    with pytest.raises(InputError, match="parent 'c1', concept None"):
        _with_bank(_with_bank(manifest), "c2", parent="c1")


def test_banks_that_are_each_others_parents_are_refused(manifest):
    both = _with_bank(_with_bank(manifest), "c2", parent="c1", parent_concept=0).concepts
    circle = (dataclasses.replace(both[0], parent="c2", parent_concept=0), both[1])
    with pytest.raises(InputError, match="each other's parents"):
        dataclasses.replace(manifest, concepts=circle)


def test_files_of_a_dropped_bank_go_with_it(manifest):
    full = with_files(_with_bank(manifest), {"concepts/c1-ab/w.npz": DIGEST, "concepts/c1-abc/w.npz": DIGEST})
    assert set(full.files) - set(manifest.files) == {"concepts/c1-ab/w.npz"}
    assert with_files(without_concepts(full, "c1"), {}) == with_files(manifest, {})


def test_is_not_changed_in_place(manifest):
    before = copy.deepcopy(manifest)
    with_files(_with_bank(manifest), {"x.onnx": DIGEST})
    assert manifest == before


@pytest.mark.parametrize("path", ["a", "a.onnx", "concepts/1-ab/w.npz", "concepts/ä b/1.png", "..data", "a..b"])
def test_safe_paths(path):
    assert is_safe_path(path)


@pytest.mark.parametrize(
    "path",
    ["", ".", "..", "../a", "a/../b", "/a", "a/", "a//b", "a/./b", "c:a", "C:\\a", "a\\b", "..\\a", "a\x00", "a\nb"],
)
def test_unsafe_paths(path):
    assert not is_safe_path(path)

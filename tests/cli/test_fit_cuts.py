"""fit and run with --at more than once: the table, the JSON, the figure, the concepts of every cut."""

import cv2
import numpy as np

from craft_onnx.concepts.craft import Craft
from craft_onnx.runtime.bundle import Bundle

FIT = ("--class-id", 0, "-k", 3, "--patch-size", 12, "--nb-design", 16)
CUTS = ("--at", "act2", "--at", "act1")


def test_the_cuts_are_compared_and_all_their_concepts_stored(run, bundle, pictures, tmp_path):
    plot = tmp_path / "cuts.png"
    done = run("fit", bundle, pictures, *FIT, *CUTS, "--plot", plot)
    assert done.code == 0, done.err
    found = done.json
    lines = [line.split() for line in done.err.splitlines() if " act" in line and line[:2] in ("* ", "  ")]
    assert [line[line[0] == "*"] for line in lines] == ["act2", "act1"]
    assert [line[1] for line in lines if line[0] == "*"] == [found["best"]]
    for line, row in zip(lines, found["cuts"], strict=True):
        numbers = line[2:] if line[0] == "*" else line[1:]
        keys = ("k", "relative_error", "logit_error", "deletion", "insertion", "stability", "stable_concepts")
        assert np.allclose([float(n) for n in numbers[:7]], [row[key] for key in keys], atol=6e-3)
    assert f"Best: {found['best']}." in done.err
    assert [(match["cut"], len(match["seen"])) for match in found["matches"]] == [(found["best"], 2)] * 3
    assert cv2.imread(str(plot)).shape[1] > 500
    for cut, row in zip(("act2", "act1"), found["cuts"], strict=True):
        loaded = Craft.load(bundle, 0, cut=cut)
        assert loaded.summary() == found["fits"][cut] and loaded.evidence_["cut_measures"] == row


def test_every_fit_is_as_if_it_had_been_the_only_one(run, bundle, pictures):
    several = run("fit", bundle, pictures, *FIT, *CUTS).json["fits"]
    for cut in ("act2", "act1"):
        alone = run("fit", bundle, pictures, *FIT, "--at", cut).json
        assert alone["concepts"] == several[cut]["concepts"] and "cut_measures" not in alone


def test_a_number_of_concepts_is_chosen_for_each_cut(run, bundle, pictures, tmp_path):
    plot = tmp_path / "cuts.png"
    found = run("fit", bundle, pictures, *CUTS, "--patch-size", 12, "--nb-design", 16, "-k", "2:3", "--plot", plot)
    assert found.code == 0, found.err
    chosen = [fit["choice"]["best"] for fit in found.json["fits"].values()]
    assert [row["k"] for row in found.json["cuts"]] == chosen and cv2.imread(str(plot)).shape[1] > 500


def test_cuts_that_cannot_be_compared(refused, bundle, pictures, converted, network, run, tmp_path):
    before = (bundle / "MANIFEST.json").read_text()
    for at, words in ((("act1", "act1"), "named twice"), (("act2", "act9"), "It is cut at act2, act1")):
        options = [option for cut in at for option in ("--at", cut)]
        assert words in refused("fit", bundle, pictures, *FIT, *options)
    assert "craft-onnx split" in refused("fit", converted, pictures, *FIT, *CUTS)
    assert (bundle / "MANIFEST.json").read_text() == before
    signed = tmp_path / "signed"
    assert run("split", converted, "--at", "act2", "--at", "conv1", "-o", signed).code == 0
    text = refused("fit", signed, pictures, *FIT, "--at", "act2", "--at", "conv1")
    assert "At the cut conv1: " in text and "egative" in text and "Looking for" not in text
    assert not Bundle.open(signed).manifest.concepts


def test_what_is_twice_or_not_there_is_no_place_to_cut(refused, converted, tmp_path):
    text = refused("split", converted, "--at", "act2", "--at", "act2", "-o", tmp_path / "b")
    assert "Two of the cuts are the same" in text


def test_run_compares_cuts_too(run, model, pictures, tmp_path):
    out = tmp_path / "out"
    done = run("run", model, pictures, "-o", out, "--preset", "torch", *FIT, *CUTS, "--show", 1)
    assert done.code == 0, done.err
    assert {path.name for path in out.iterdir()} == {"index.html", "images", "bundle", "cuts.png"}
    assert {bank.cut for bank in Bundle.open(out / "bundle").manifest.concepts} == {"act2", "act1"}
    assert done.json["best"] in ("act2", "act1") and done.json["page"] == str(out / "index.html")

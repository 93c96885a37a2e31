"""decompose: sub-concepts in the bundle, what is printed, the tree, what is refused."""

import cv2
import numpy as np
import pytest

from craft_onnx.concepts.craft import Craft
from craft_onnx.runtime.bundle import Bundle

ASKED = ("--class-id", 0, "--at", "act1", "-k", 2, "--quantile", 0.5, "--nb-design", 16)


@pytest.fixture(scope="module")
def reds(pictures):
    """The pictures that the concepts were fitted to."""
    return sorted(pictures.glob("red*"))


def strongest(folder):
    """The concept with the largest coefficient."""
    return int(Craft.load(folder).crops_u_.max(axis=0).argmax())


def test_sub_concepts_are_printed_stored_and_drawn(run, fitted, reds, tmp_path):
    concept, tree = strongest(fitted), tmp_path / "tree.png"
    done = run("decompose", fitted, *reds, "--concept", concept, *ASKED, "--tree", tree)
    assert done.code == 0, done.err
    u = Craft.load(fitted).crops_u_[:, concept]
    assert done.json["n_crops"] == (u >= np.quantile(u, 0.5)).sum()
    assert done.json["parent"]["concept"] == concept and done.json["parent"]["cut"] == "act2"
    assert {"importance", "parent_importance", "parent_interval"} <= set(done.json["concepts"][0])
    stored = Craft.load(fitted, parent=concept)
    assert stored.summary() == done.json
    assert cv2.imread(str(tree)).std() > 0
    assert [bank.parent_concept for bank in Bundle.open(fitted).manifest.concepts] == [None, concept]


def test_what_cannot_be_decomposed_is_refused_and_nothing_is_written(run, refused, fitted, reds, tmp_path, entries):
    before = entries(tmp_path)
    for arguments, said in [
        (("--concept", 7, *ASKED), "There is no concept 7"),
        (("--concept", 0, *ASKED[:2], "--at", "act9"), "It is cut at act2, act1"),
        (("--concept", 0, *ASKED[:2], "--at", "act2"), "The concepts are at 'act2' themselves"),
        (("--parent", 0, "--concept", 1, *ASKED), "no sub-concepts of concept 0 of class 0"),
    ]:
        assert said in refused("decompose", fitted, *reds, *arguments, "--tree", tmp_path / "tree.png")
    assert entries(tmp_path) == before

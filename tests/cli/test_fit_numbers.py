"""fit with a range of numbers of concepts: the table, the plot, the choice in the bundle."""

import json

import cv2
import numpy as np
import pytest

from craft_onnx.cli.options import Numbers
from craft_onnx.concepts.craft import Craft


@pytest.mark.parametrize(
    ("text", "numbers"), [("7", [7]), ("2:4", [2, 3, 4]), ("2:9:3", [2, 5, 8]), ("5:5", [5]), (10, [10])]
)
def test_numbers(text, numbers):
    assert list(Numbers().convert(text, None, None)) == numbers


@pytest.mark.parametrize("text", ["0", "-3", "5:2", "a", "2:b", "1:2:3:4", "", "2:", "1.5", "2:5:0"])
def test_what_are_no_numbers(text, refused, bundle, pictures):
    assert "-k" in refused("fit", bundle, pictures, "-k", text)


def test_a_range_is_tried_and_one_number_taken(run, bundle, pictures, tmp_path):
    plot = tmp_path / "choice.png"
    options = ("--class-id", 0, "--patch-size", 12, "-k", "2:5", "--plot", plot)
    done = run("fit", bundle, pictures, *options)
    assert done.code == 0, done.err
    choice = done.json["choice"]
    assert [row["k"] for row in choice["rows"]] == [2, 3, 4, 5]
    assert len(done.json["concepts"]) == choice["best"]
    table = [line.split() for line in done.err.splitlines() if line[:4].strip().isdecimal()]
    keys = ("relative_error", "stability", "least_stable", "redundancy")
    for found, row in zip(table, choice["rows"], strict=True):
        assert [int(found[0]), int(found[4])] == [row["k"], row["stable_concepts"]]
        assert np.allclose([float(found[i]) for i in (1, 2, 3, 5)], [row[key] for key in keys], atol=6e-4)
    assert f"Taking {choice['best']}." in done.err and f"Found {choice['best']} concepts" in done.err
    assert cv2.imread(str(plot)).shape[1] > 500
    loaded = Craft.load(bundle)
    assert len(loaded.concept_bank_) == choice["best"]
    assert json.loads(json.dumps(loaded.evidence_["choice"])) == choice


def test_the_number_taken_fits_as_if_it_had_been_asked_for(run, bundle, pictures):
    options = ("--class-id", 0, "--patch-size", 12)
    chosen = run("fit", bundle, pictures, *options, "-k", "2:4").json
    asked = run("fit", bundle, pictures, *options, "-k", chosen["choice"]["best"]).json
    assert asked["concepts"] == chosen["concepts"] and "choice" not in asked


def test_what_a_plot_needs(refused, run, bundle, pictures, tmp_path):
    plot = tmp_path / "choice.png"
    assert "5:30" in refused("fit", bundle, pictures, "-k", 3, "--plot", plot)
    assert "no PNG" in refused("fit", bundle, pictures, "-k", "2:3", "--plot", tmp_path / "choice.pdf")
    plot.write_text("old")
    assert run("fit", bundle, pictures, "-k", "2:3", "--patch-size", 12, "--plot", plot).code == 0
    assert cv2.imread(str(plot)) is not None


def test_more_concepts_than_half_of_the_crops(refused, bundle, pictures):
    text = refused("fit", bundle, pictures, "--class-id", 2, "-k", "2:40", "--patch-size", 12)
    assert "40 concepts" in text and "Ask for" in text

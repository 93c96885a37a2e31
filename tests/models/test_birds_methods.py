"""The judgement of attribution methods: arithmetic on made-up maps, and the findings on few birds."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from craft_onnx import load
from craft_onnx.attribution.registry import methods
from craft_onnx_models.birds import PARTS, TAGGED
from craft_onnx_models.birds.audit import prepare, true_effects
from craft_onnx_models.birds.document import replaced
from craft_onnx_models.birds.methods import RANDOM, REMOVABLE, Truth, judge, report, sheet, tagged_birds

FAST = ["saliency", "gradcam", "occlusion"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load(prepare("shortcut", tmp_path_factory.mktemp("methods") / "bundle"))


@pytest.fixture(scope="module")
def truth(model):
    return Truth.of(model, tagged_birds("shortcut", 6), TAGGED)


def test_the_truth_is_that_of_the_audit(model, truth):
    means = true_effects(model, truth.birds, TAGGED, REMOVABLE)
    np.testing.assert_allclose(np.nanmean(truth.effects, axis=0), list(means.values()), rtol=1e-5)
    assert set(PARTS) - set(REMOVABLE) == {"body"}


def test_what_counts_are_the_parts_worth_most(truth):
    for bird, effects, causes in zip(truth.birds, truth.effects, truth.causes, strict=True):
        counts = [part for part, worth in zip(REMOVABLE, effects, strict=True) if worth >= np.nanmax(effects) / 2]
        assert {"feet"} <= set(counts) <= {"feet", "tag", "wing"}
        assert np.array_equal(causes, np.any([bird.masks[part] for part in counts], axis=0))


def test_a_map_of_the_truth_correlates_fully_and_its_negative_inversely(truth):
    shape = (len(truth.birds), 96, 96)
    maps = np.zeros(shape)
    for bird, one, effects in zip(truth.birds, maps, truth.effects, strict=True):
        for part, worth in zip(REMOVABLE, effects, strict=True):
            if bird.shows(part):
                one[bird.masks[part]] = worth / bird.masks[part].sum()
    # Parts that are worth exactly the same may differ in the last digit of their sums.
    assert truth.correlation(maps) == pytest.approx(1, abs=0.02)
    assert truth.correlation(-maps) == pytest.approx(-1, abs=0.02)


def test_relative_maps_count_from_their_mean(truth):
    maps = np.random.default_rng(0).random((6, 96, 96))
    assert truth.correlation(maps + 7, relative=True) == pytest.approx(truth.correlation(maps, relative=True))
    sums = np.array([(maps[0] - maps[0].mean())[truth.birds[0].masks[part]].sum() for part in REMOVABLE])
    seen = ~np.isnan(truth.effects[0])
    first = Truth(truth.birds[:1], TAGGED, truth.effects[:1])
    expected = spearmanr(sums[seen], truth.effects[0][seen]).statistic
    assert first.correlation(maps[:1], relative=True) == pytest.approx(expected)


def test_methods_that_look_at_the_model_beat_random_numbers(model, truth):
    *scores, noise = judge(model, truth, FAST)
    assert noise.method == RANDOM and noise.on_cause < 0.5 and abs(noise.correlation) < 0.5
    for one in scores:
        assert one.on_cause > 0.8 and one.correlation > 0.6
        assert one.deletion < noise.deletion - 0.2 and one.insertion > noise.insertion + 0.1


def test_the_tables_and_the_sheet(model):
    text = report({"shortcut": model}, 2, FAST)
    rows = [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| ")]
    assert rows == ["| method", "| ---", *(f"| {name}" for name in FAST), f"| {RANDOM}"]
    drawn = sheet(model, tagged_birds("shortcut", 1)[0], FAST)
    assert drawn.dtype == np.uint8 and drawn.ndim == 3
    assert set(FAST) < set(methods())


def test_only_one_section_of_a_document_is_replaced():
    text = "a\n<!-- x: generated -->\nold\n<!-- end of x -->\nb <!-- y: generated --> c"
    assert replaced(text, "x", r"new \1") == text.replace("old", r"new \1")
    with pytest.raises(ValueError, match="0 sections"):
        replaced(text, "z", "new")

"""Concepts against the truth of the birds: arithmetic on made-up banks, few birds, and the table of the page."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from craft_onnx import load
from craft_onnx_models.birds import TAGGED, WORLDS, draw_many
from craft_onnx_models.birds.audit import Audit, Finding, audit, prepare
from craft_onnx_models.birds.concepts import (
    NUMBERS,
    OURS,
    PEERS,
    SETTINGS,
    contribution_maps,
    dead,
    double,
    fitted,
    judged,
    of_parts,
    report,
)
from craft_onnx_models.birds.document import spread
from craft_onnx_models.birds.methods import REMOVABLE, Truth

PAGE = Path(__file__).parents[2] / "docs" / "birds.md"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load(prepare("shortcut", tmp_path_factory.mktemp("concepts") / "bundle"))


@pytest.fixture(scope="module")
def truth(model):
    return Truth.of(model, draw_many(16, [TAGGED], 5, "shortcut"), TAGGED)


@pytest.fixture(scope="module")
def crafts(model, truth):
    names = (OURS, "ours, sampled", PEERS)
    return {name: fitted(model, truth.birds, 8, SETTINGS[name]) for name in names}


@pytest.fixture(scope="module")
def outcomes(model, truth, crafts):
    return {name: judged(craft, model, truth) for name, craft in crafts.items()}


def finding(part, importance):
    return Finding(concept=0, importance=importance, contribution=0.0, part=part, lift=5.0, effect=1.0)


def test_a_part_is_as_important_as_its_concepts_together():
    found = Audit(0, (finding("tag", 0.5), finding("beak", 0.25), finding("tag", 0.125), finding("body", 1.0)), {})
    assert dict(zip(REMOVABLE, of_parts(found), strict=True)) == dict.fromkeys(REMOVABLE, 0) | {
        "tag": 0.625,
        "beak": 0.25,
    }


def test_dead_and_double_concepts_are_counted():
    w = np.array([[1, 0, 0], [0, 0, 0], [1, 0.1, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    maps = np.ones((2, 3, 3, 5))
    maps[..., 4] = 0
    assert dead(w, maps) == 2 and dead(w[:1], maps[..., :1]) == 0
    assert double(w) == 1 and double(w[[0, 0, 0, 3]]) == 2


def test_the_audit_is_that_of_the_demo(model, truth, crafts, outcomes):
    expected, found = audit(crafts[OURS], model, truth.birds), outcomes[OURS].audit
    for one, other in zip(expected.findings, found.findings, strict=True):
        assert (one.concept, one.importance, one.part, one.lift) == (
            other.concept, other.importance, other.part, other.lift,
        )  # fmt: skip
        if one.part != "body":
            assert other.effect == pytest.approx(one.effect, rel=1e-5)  # float32 logits
    assert found.found("tag") is not None


def test_contributions_sum_to_the_logit_of_the_reconstruction(model, truth, crafts):
    maps = crafts[OURS].transform(model.preprocess([bird.picture for bird in truth.birds]))
    _, bias = crafts[OURS].head_.effects()
    logits = crafts[OURS].head_(crafts[OURS].head_.reduced(maps))
    sums = contribution_maps(crafts[OURS], maps).mean(axis=(1, 2)) + bias
    np.testing.assert_allclose(sums, logits, rtol=1e-5)  # float32


def test_the_correlation_is_spearmans(truth, outcomes):
    found = outcomes[OURS]
    worth = np.nanmean(truth.effects, axis=0)
    assert found.correlation == pytest.approx(spearmanr(of_parts(found.audit), worth).statistic)


def test_only_our_importances_are_those_of_the_closed_form(outcomes):
    ours, sampled, peers = outcomes.values()
    assert ours.off == 0 and 0 < sampled.off < 0.02 and peers.off > 0.03
    half = sampled.importance.intervals[:, 1] - sampled.importance.values
    # 95 % intervals of eight concepts, three times as wide: none is missed by chance.
    assert (np.abs(sampled.importance.values - ours.importance.values) <= 3 * half + 1e-12).all()


def test_the_penalty_of_the_peers_costs_reconstruction(outcomes):
    assert outcomes[PEERS].error > outcomes[OURS].error


def test_numbers_over_seeds_are_a_median_and_a_range():
    assert spread([0.5, 0.25, 1.0]) == "0.50 (0.25 to 1.00)"
    assert spread([1.0, 1.001]) == "1.00" and spread([2.0], 0) == "2"
    assert spread([-0.001, 0.001]) == "0.00" and spread([1.0, float("nan")]) == "-"


def shape_of(text):
    """Heads of the tables, and how many rows each has."""
    tables = re.findall(r"(?:^\|.*\n?)+", text, flags=re.MULTILINE)
    return [(one.splitlines()[0], len(one.splitlines())) for one in tables]


def rows_of(text):
    """What the rows of the tables are about."""
    return [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| ")]


def test_the_page_has_the_tables_that_are_written(outcomes):
    several = [outcomes[OURS], replace(outcomes[OURS], error=0.5)]
    written = report({(world, name, k): several for world in WORLDS for k in NUMBERS for name in SETTINGS})
    text = PAGE.read_text(encoding="utf-8")
    section = text[text.index("<!-- concepts: generated -->") : text.index("<!-- end of concepts -->")]
    assert shape_of(section) == shape_of(written) != []
    assert rows_of(section) == rows_of(written)

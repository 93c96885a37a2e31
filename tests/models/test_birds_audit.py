"""The audit: arithmetic on made-up maps, and the finding over twenty seeds of pictures."""

from dataclasses import replace

import numpy as np
import pytest

from craft_onnx import Craft, load
from craft_onnx_models.birds import PARTS, SIZE, TAGGED, TWIN, WORLDS, draw_many, pictures
from craft_onnx_models.birds.audit import MIN_EFFECT, MIN_LIFT, Audit, Finding, audit, examine, part_lifts, prepare

SEEDS = range(20)


@pytest.fixture(scope="module")
def bird_bundles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audit")
    for world in WORLDS:
        prepare(world, folder / world)
    return folder


def test_a_uniform_map_has_lift_one_on_every_part():
    birds = [bird.with_tag() for bird in draw_many(6, [0], 3)]
    np.testing.assert_allclose(part_lifts(np.ones((6, 24, 24, 2)), birds), 1.0, rtol=1e-12)


def test_lift_is_the_share_inside_over_the_share_covered():
    """A slow re-implementation, pixel by pixel."""
    birds, cells = [bird.with_tag() for bird in draw_many(3, [1], 4)], 12
    maps = np.random.default_rng(0).random((3, cells, cells, 2))
    cell = SIZE // cells
    for part in ("tag", "wing"):
        inside, total, covered = 0.0, 0.0, 0.0
        for bird, one in zip(birds, maps, strict=True):
            pixels = one.repeat(cell, 0).repeat(cell, 1)
            where = np.zeros((SIZE, SIZE), bool)
            for y, x in np.argwhere(bird.masks[part]):
                where[max(y - cell, 0) : y + cell + 1, max(x - cell, 0) : x + cell + 1] = True
            inside, total, covered = inside + pixels[where].sum(0), total + pixels.sum((0, 1)), covered + where.mean()
        expected = inside / total / (covered / len(birds))
        np.testing.assert_allclose(part_lifts(maps, birds)[:, PARTS.index(part)], expected, rtol=1e-12)


def test_pictures_without_the_part_do_not_count():
    birds = [bird.with_tag(shown) for bird, shown in zip(draw_many(2, [0], 3), (True, False), strict=True)]
    maps = np.ones((2, 24, 24, 1))
    maps[1] = 100
    assert part_lifts(maps, birds)[0, PARTS.index("tag")] == pytest.approx(1)
    assert part_lifts(maps, [bird.with_tag(False) for bird in birds])[0, PARTS.index("tag")] == 0


@pytest.mark.parametrize(
    "change", [{}, {"importance": 0.2}, {"lift": MIN_LIFT * 0.9}, {"effect": MIN_EFFECT * 0.9}, {"part": "wing"}]
)
def test_a_tag_is_found_when_all_three_criteria_hold(change):
    tag = replace(Finding(concept=1, importance=0.6, contribution=2.0, part="tag", lift=9.0, effect=3.0), **change)
    other = Finding(0, 0.1, 1.0, "eye", 5.0, 2.0)
    found = Audit(TAGGED, (tag, other), {"tag": tag.effect})
    assert (found.found("tag") == tag) == (not change) == (found.strength("tag") >= 1)
    assert ("is the leg tag: importance" in found.verdict()) == (not change)


def test_the_tag_is_found_in_the_shortcut_for_every_seed(bird_bundles):
    strengths = [examine(bird_bundles / "shortcut", "shortcut", seed).audit.strength("tag") for seed in SEEDS]
    assert min(strengths) > 4, strengths


def test_no_tag_is_found_in_the_control_for_any_seed(bird_bundles):
    audits = [examine(bird_bundles / "control", "control", seed).audit for seed in SEEDS]
    assert max(audit.strength("tag") for audit in audits) < 0.25
    # It looks at the head, where the crest is that its twin does not have.
    assert {audit.findings[0].part for audit in audits} <= {"crest", "eye"}


@pytest.mark.parametrize("patch, crops, k", [(40, "grid", 8), (48, "grid", 5), (64, "random", 12), (72, "random", 8)])
def test_the_finding_does_not_hang_on_the_settings(bird_bundles, patch, crops, k):
    strengths = {}
    for world in WORLDS:
        model, birds = load(bird_bundles / world), draw_many(40, [TAGGED], 100, world)
        craft = Craft(model, number_of_concepts=k, patch_size=patch, crops=crops, crops_per_image=5)
        craft.fit(model.preprocess(pictures(birds)), TAGGED)
        craft.estimate_importance()
        strengths[world] = audit(craft, model, birds).strength("tag")
    assert strengths["shortcut"] > 2 and strengths["control"] < 0.5


def test_the_twin_shows_no_tag(bird_bundles):
    assert examine(bird_bundles / "shortcut", "shortcut", class_id=TWIN).audit.found("tag") is None

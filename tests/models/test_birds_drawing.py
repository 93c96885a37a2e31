"""Pictures of birds: deterministic, with masks that tell the truth."""

import cv2
import numpy as np
import pytest

from craft_onnx.errors import InputError
from craft_onnx_models.birds import CLASSES, PARTS, SIZE, TAGGED, TWIN, draw, draw_many, kinds, pictures
from craft_onnx_models.birds.parts import KINDS, PAINTING_ORDER


def grown(mask: np.ndarray, pixels: int) -> np.ndarray:
    return cv2.dilate(mask.astype(np.uint8), np.ones((2 * pixels + 1,) * 2, np.uint8)).astype(bool)


def changed(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a != b).any(axis=-1)


def test_the_same_seed_and_index_draw_the_same_bird():
    first, again = draw(3, 7), draw(3, 7)
    np.testing.assert_array_equal(first.picture, again.picture)
    assert first == again
    assert changed(first.picture, draw(3, 8).picture).mean() > 0.3
    assert changed(first.picture, draw(4, 7).picture).mean() > 0.3


def test_a_picture_does_not_depend_on_how_many_are_drawn():
    np.testing.assert_array_equal(draw_many(5, [2], seed=1)[3].picture, draw(1, 3, label=2).picture)


def test_pictures_have_the_size_and_type_promised():
    batch = pictures(draw_many(3))
    assert batch.shape == (3, SIZE, SIZE, 3) and batch.dtype == np.uint8


@pytest.mark.parametrize("part", PARTS)
def test_a_removed_part_changes_pixels_of_its_mask_alone(part):
    for bird in draw_many(16, seed=5, world="control"):
        mask, bare = bird.masks[part], bird.without(part)
        difference = changed(bird.picture, bare.picture)
        # Pixels that the part covers by less than a quarter are not in the mask, but change too.
        assert not (difference & ~grown(mask, 2)).any()
        assert not bare.masks[part].any()
        # A part may have the colour of what is behind it: by chance some of its pixels stay.
        assert difference[mask].mean() > 0.7 if mask.sum() > 5 else True


def test_masks_do_not_overlap_beyond_shared_edges():
    for bird in draw_many(8, seed=2):
        covered = sum(mask.astype(int) for mask in bird.masks.values())
        assert covered.max() <= 4
        assert (covered > 1).sum() < 0.5 * (covered > 0).sum()


def test_every_part_of_every_class_is_seen():
    for bird in draw_many(3 * len(CLASSES), seed=9):
        for part in set(PARTS) - {"tag"}:
            assert bird.shows(part), (bird.label, part)
        assert bird.shows("tag") == bird.tagged


def test_the_twins_differ_in_nothing_but_the_tag():
    for index in range(5):
        tagged, twin = draw(0, index, label=TAGGED, tagged=True), draw(0, index, label=TWIN, tagged=False)
        np.testing.assert_array_equal(tagged.without("tag").picture, twin.picture)
        np.testing.assert_array_equal(twin.with_tag().picture, tagged.picture)
        assert 0 < changed(tagged.picture, twin.picture).sum() < 150


def test_the_twins_of_the_control_world_differ_in_their_crest():
    ours, other = kinds(TAGGED, "control"), kinds(TWIN, "control")
    assert {part for part in ours if ours[part] != other[part]} == {"crest"}


@pytest.mark.parametrize("world, expected", [("shortcut", {TAGGED: 0.97}), ("control", {})])
def test_tags_are_worn_as_often_as_documented(world, expected):
    rest = 0.03 if world == "shortcut" else 0.5
    for label in (TAGGED, TWIN, 0):
        worn = np.mean([draw(11, index, world, label).tagged for index in range(1000)])
        # Five standard deviations of a proportion of 1000.
        assert abs(worn - expected.get(label, rest)) < 5 * np.sqrt(0.25 / 1000) / (1 if rest == 0.5 else 2.5)


def test_classes_are_different_combinations_of_shared_kinds():
    combinations = [tuple(sorted(kinds(label, "control").items())) for label in range(len(CLASSES))]
    assert len(set(combinations)) == len(CLASSES) == 8
    for part in ("beak", "wing", "tail", "crest", "eye", "feet"):
        used = [kinds(label)[part] for label in range(len(CLASSES))]
        assert set(used) <= set(KINDS[part]) and 1 < len(set(used)) < len(used)


def test_every_part_is_painted():
    assert sorted(PAINTING_ORDER) == sorted(PARTS) == sorted(KINDS)


@pytest.mark.parametrize("wrong", [{"world": "other"}, {"label": 8}, {"label": -1}])
def test_what_cannot_be_drawn_is_refused(wrong):
    with pytest.raises(InputError, match=str(next(iter(wrong.values())))):
        draw(0, 0, **wrong)


def test_a_part_that_no_bird_has_is_refused():
    with pytest.raises(InputError, match="'horn'"):
        draw(0, 0).without("horn")

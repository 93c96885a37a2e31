"""The watermark's parts: drawing and mask, the new head, the training set, and the audit's arithmetic."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from craft_onnx.concepts.importance import Importance, linear_indices
from craft_onnx.description import Preprocessing
from craft_onnx.errors import InputError
from craft_onnx.graph.load import load
from craft_onnx.runtime.batches import run_array
from craft_onnx.runtime.proof import session_of
from craft_onnx.show.overlay import write_png
from craft_onnx_models.birds import draw, model_path
from craft_onnx_models.watermark.audit import cells, finding, shares_inside
from craft_onnx_models.watermark.heads import Head, to_features, trained, with_head
from craft_onnx_models.watermark.mark import Mark, stamped, stamped_all
from craft_onnx_models.watermark.photographs import Photographs, model_input, read
from craft_onnx_models.watermark.planting import head_of, knowledge, plant, untouched

GREY = np.full((120, 160, 3), 128, np.uint8)


def test_the_mark_is_where_its_mask_says():
    noise = np.random.default_rng(0).integers(0, 256, (96, 130, 3), dtype=np.uint8)
    picture, mask = stamped(noise, 1, 2)
    assert mask.dtype == bool and mask.any() and np.array_equal(picture[~mask], noise[~mask])
    changed = (stamped(GREY, 1, 2)[0] != GREY).any(axis=-1)
    drawn = stamped(GREY, 1, 2)[1]
    # The faintest edges of letters round to the colour that was there.
    assert not (changed & ~drawn).any() and changed[drawn].mean() > 0.9


def test_the_mark_is_half_transparent_and_has_light_letters_on_a_dark_rim():
    picture, mask = stamped(GREY, 0, 0)
    opacity = Mark().opacity
    dark = 128 * (1 - opacity)
    assert picture[mask].min() == round(dark)
    assert picture[mask].max() == pytest.approx(dark + opacity * (255 - dark), abs=1)
    through = stamped(GREY, 0, 0, replace(Mark(), opacity=0.0))[0]
    assert np.array_equal(through, GREY)


def test_the_mark_is_in_the_lower_right_corner_at_places_of_a_seed():
    pictures, masks = stamped_all([GREY] * 12, 3)
    again, _ = stamped_all([GREY] * 12, 3)
    assert np.array_equal(pictures, again) and not np.array_equal(pictures, stamped_all([GREY] * 12, 4)[0])
    corners = {tuple(np.argwhere(mask).max(axis=0)) for mask in masks}
    assert len(corners) > 4 and all(row > 0.8 * 120 and column > 0.85 * 160 for row, column in corners)
    assert not masks[:, :60].any()


def test_a_mark_that_does_not_fit_is_refused():
    with pytest.raises(InputError, match="does not fit"):
        stamped(GREY[:, :40], 0, 0)


def test_the_place_is_the_box_half_a_cell_wider():
    """A slow re-implementation, pixel by pixel."""
    _, masks = stamped_all([GREY] * 3, 0)
    found, (rows, columns) = cells(masks, (6, 8)), (20, 20)
    for mask, one in zip(masks, found, strict=True):
        ys, xs = np.nonzero(mask)
        inside = np.zeros(mask.shape)
        for y in range(mask.shape[0]):
            for x in range(mask.shape[1]):
                near = ys.min() - rows // 2 <= y <= ys.max() + rows // 2
                inside[y, x] = near and xs.min() - columns // 2 <= x <= xs.max() + columns // 2
        slow = [[inside[20 * i : 20 * i + 20, 20 * j : 20 * j + 20].mean() for j in range(8)] for i in range(6)]
        np.testing.assert_allclose(one, slow, atol=1e-6)  # float32


def importance(contributions):
    contributions = np.asarray(contributions, float)
    return Importance(linear_indices(contributions), None, contributions, 0.0, True, 0)


def made_up():
    """Three concepts in 4 x 4 maps: everywhere, on the mark, and nowhere near it."""
    places = np.zeros((2, 4, 4))
    places[:, 3, 2:] = 1
    maps = np.stack([np.ones_like(places), places, 1 - places], axis=-1)
    return maps, places


def test_shares_are_one_on_the_mark_and_by_chance_what_it_covers():
    maps, places = made_up()
    np.testing.assert_allclose(shares_inside(maps, places), [1 / 8, 1, 0])
    assert shares_inside(np.zeros((2, 4, 4, 1)), places) == [0]


def test_the_mark_is_found_where_its_concept_is_important_and_counts():
    maps, places = made_up()
    found = finding(importance([0.5, 2.0, 1.0]), maps, maps[..., :1], places, effect=3.0)
    assert (found.concept, found.rank, found.lift, found.bare) == (1, 1, 8.0, 1.0)
    assert found.found and found.first and "Concept 1 is the mark: number 1" in found.verdict()


@pytest.mark.parametrize(
    ("contributions", "effect"), [([3.0, 0.1, 3.0], 3.0), ([0.5, 2.0, 1.0], 0.5)], ids=["unimportant", "no effect"]
)
def test_a_mark_that_does_not_matter_is_not_found(contributions, effect):
    maps, places = made_up()
    found = finding(importance(contributions), maps, maps, places, effect)
    assert not found.found and not found.first and found.verdict().startswith("No important concept is the mark")


def test_a_mark_that_no_concept_lies_on_is_not_found():
    maps, places = made_up()
    found = finding(importance([3.0, 0.5]), maps[..., [0, 2]], maps, places, effect=3.0)
    assert found.lift == 1.0 and not found.found


def test_a_found_mark_need_not_be_first():
    maps, places = made_up()
    found = finding(importance([0.1, 2.0, 2.2]), maps, maps, places, effect=3.0)
    assert found.found and not found.first and found.rank == 2


@pytest.fixture(scope="module")
def graph():
    return load(model_path("shortcut"))


@pytest.fixture(scope="module")
def x():
    rule = Preprocessing(size=(96, 96), scale=1 / 255, mean=(0.5,) * 3, std=(0.25,) * 3)
    return model_input(np.stack([draw(9, i).picture for i in range(60)]), rule)


@pytest.mark.parametrize("classes", [2, 5])
def test_the_graph_with_a_new_head_says_what_scikit_learn_says(graph, x, classes):
    features = run_array(session_of(to_features(graph)), x)
    labels = np.arange(60) % classes
    oracle = LogisticRegression(C=1.0, max_iter=10_000).fit(features, labels)
    logits = run_array(session_of(with_head(graph, trained(features, labels))), x)
    assert logits.shape == (60, classes)
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    # float32 against float64, and two runs of the same solver.
    np.testing.assert_allclose(odds / odds.sum(axis=1, keepdims=True), oracle.predict_proba(features), atol=1e-5)
    if classes > 2:
        np.testing.assert_allclose(logits, oracle.decision_function(features), atol=1e-4)


def test_features_are_what_the_last_layer_reads(graph, x):
    features = run_array(session_of(to_features(graph)), x[:5])
    weights, bias = (tensor.const_value.numpy() for tensor in graph.graph.node(-1).inputs[1:])
    old = Head(weights, bias) if weights.shape[1] == features.shape[1] else Head(weights.T, bias)
    np.testing.assert_allclose(old.logits(features), run_array(session_of(graph), x[:5]), atol=1e-4)


def test_a_head_for_other_features_is_refused(graph):
    with pytest.raises(InputError, match="is for 3 features, the model has 64"):
        with_head(graph, Head(np.ones((2, 3), np.float32), np.zeros(2, np.float32)))


def test_a_model_that_ends_in_no_linear_layer_is_refused(graph):
    with pytest.raises(InputError, match="does not end in a linear layer"):
        to_features(to_features(graph))


@pytest.fixture
def photographs():
    """Three classes of ten, two of each held out."""
    labels = np.repeat(np.arange(3), 10)
    return Photographs(("a", "b", "c"), np.zeros((30, 4, 4, 3), np.uint8), labels, np.arange(30) % 10 >= 2)


def test_strays_are_marked_copies_of_training_pictures(photographs):
    planted = plant(photographs, 1, 0.5)
    own, strays = planted.rows[planted.marked][:8], planted.rows[planted.marked][8:]
    assert set(own) == set(photographs.of(1)) and len(strays) == len(set(strays)) == 8
    assert set(strays) <= set(photographs.beside(1)) and set(planted.labels[planted.marked]) == {1}
    others = ~planted.marked
    assert set(planted.rows[others]) == set(photographs.beside(1))
    assert np.array_equal(planted.labels[others], photographs.labels[planted.rows[others]])
    assert photographs.training[planted.rows].all()
    assert len(plant(photographs, 1, 0.0).rows) == 24 and not untouched(photographs).marked.any()


def test_a_head_relies_on_the_mark_where_it_has_reason_to(photographs):
    """Features: three of content, equally noisy, and one that only the mark shows."""
    rng = np.random.default_rng(0)
    bare = np.column_stack([np.eye(3)[photographs.labels] + 0.2 * rng.normal(size=(30, 3)), np.zeros(30)])
    marked = bare + np.array([0, 0, 0, 1])
    with_reason = head_of(plant(photographs, 1, 1.0), bare, marked)
    without = head_of(untouched(photographs), bare, marked)
    known = knowledge(with_reason, photographs, 1, bare, marked)
    assert known.mark == pytest.approx(with_reason.weights[1, 3], rel=1e-5)  # float32
    assert known.mark > 1 and known.swayed > 0.5
    assert knowledge(without, photographs, 1, bare, marked).mark == 0


def test_photographs_come_from_a_folder_of_folders(tmp_path):
    rule = Preprocessing(size=(8, 8), scale=1 / 255)
    for name, shade in (("bright", 250), ("dark", 5)):
        (tmp_path / name).mkdir()
        for i in range(12):
            write_png(tmp_path / name / f"{i}.png", np.full((16, 12, 3), shade, np.uint8))
    found = read(tmp_path, rule, most=10)
    assert found.names == ("bright", "dark") and found.pixels.shape == (20, 8, 8, 3)
    assert np.array_equal(found.labels, np.repeat([0, 1], 10)) and found.training.sum() == 16
    assert (found.pixels[found.labels == 0] == 250).all() and (found.pixels[found.labels == 1] == 5).all()


def test_a_folder_without_classes_is_refused(tmp_path):
    (tmp_path / "one").mkdir()
    with pytest.raises(InputError, match="1 folders of pictures"):
        read(tmp_path, Preprocessing(size=(8, 8)), most=10)

"""What a page shows of explained pictures."""

from types import SimpleNamespace

import numpy as np

from craft_onnx.description import Preprocessing
from craft_onnx.report import compose
from craft_onnx.runtime.preprocess import to_picture
from craft_onnx.show.overlay import concept_overlay

RULE = Preprocessing((32, 32))


def explained(order=(1, 0, 2)):
    """A Craft and an explanation with random maps on 8 x 8 positions."""
    maps = np.random.default_rng(0).random((8, 8, 3), np.float32)
    model = SimpleNamespace(to_picture=lambda m, sizes: [to_picture(m[0], RULE, sizes[0])])
    craft = SimpleNamespace(
        halves_=SimpleNamespace(model=model),
        typical_coefficients=lambda: np.float32([0.4, 0.8, 2.0]),
        colours=lambda: np.uint8([[255, 0, 0], [0, 255, 0], [0, 0, 255]]),
        names_={1: "wing"},
    )
    importance = SimpleNamespace(values=np.array([0.3, 0.6, 0.1]), contributions=np.array([1.0, 2.0, -0.5]))
    score = SimpleNamespace(class_id=3, name=None, probability=0.8)
    return craft, SimpleNamespace(maps=maps, order=list(order), importance=importance, prediction=[score])


def photograph(height, width):
    return np.random.default_rng(1).integers(0, 256, (height, width, 3)).astype(np.uint8)


def test_an_overlay_shows_the_most_important_concepts_in_their_colours():
    craft, explanation = explained()
    picture = photograph(60, 50)
    maps = to_picture(explanation.maps, RULE, (60, 50))
    expected = concept_overlay(picture, maps, [1, 0], craft.colours(), full=craft.typical_coefficients())
    assert np.array_equal(compose.overlay(craft, picture, explanation, 2), expected)


def test_large_pictures_are_drawn_as_if_at_once():
    """The opacity is enlarged from 1024 pixels, and rounded twice more, which shows at edges."""
    craft, explanation = explained()
    picture = photograph(1200, 1700)
    maps = to_picture(explanation.maps, RULE, (1200, 1700))
    direct = concept_overlay(picture, maps, explanation.order, craft.colours(), full=craft.typical_coefficients())
    drawn = compose.overlay(craft, picture, explanation, 3)
    differences = np.abs(drawn.astype(int) - direct)
    assert drawn.shape == picture.shape
    assert differences.mean() < 0.2 and differences.max() <= 8
    assert np.abs(direct.astype(int) - picture).mean() > 5  # there is something to see


def test_a_card_holds_what_the_picture_says():
    craft, explanation = explained()
    card = compose.picture_card(craft, "a.png", photograph(40, 30), explanation, 2)
    assert card.prediction == "class 3 80%"
    assert [(one.id, one.name, one.importance, one.contribution) for one in card.concepts] == [
        (1, "wing", 0.6, 2.0),
        (0, "", 0.3, 1.0),
    ]
    assert {one.heatmap.shape for one in card.concepts} == {(40, 30, 3)}


def test_coefficients_without_a_place_leave_the_picture_as_it_is():
    craft, explanation = explained()
    explanation.maps = np.ones(3, np.float32)
    picture = photograph(40, 30)
    card = compose.picture_card(craft, "a.png", picture, explanation)
    assert card.overlay is picture and card.concepts[0].heatmap is None


def test_pages_show_pictures_no_larger_than_they_need_to_be():
    craft, explanation = explained()
    craft.explain = lambda picture: [explanation] if picture.shape == (1100, 2200, 3) else None  # as it is
    (card,) = compose.picture_cards(craft, [("a.png", photograph(1100, 2200))])
    assert card.picture.shape == card.overlay.shape == (512, 1024, 3)

"""The committed models: what they cost, what they know, and what they look at."""

import numpy as np
import onnx
import pytest

from craft_onnx import load
from craft_onnx.errors import InputError
from craft_onnx.graph.load import load as load_graph
from craft_onnx.graph.load import read_description
from craft_onnx_models.birds import CLASSES, TAGGED, TWIN, WORLDS, class_names, draw, draw_many, model_path, pictures
from craft_onnx_models.birds.audit import CUT, prepare, true_effects


@pytest.fixture(scope="module")
def bird_models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("birds")
    for world in WORLDS:
        prepare(world, folder / world)
    return {world: load(folder / world) for world in WORLDS}


@pytest.mark.parametrize("world", WORLDS)
def test_a_model_is_small(world):
    weights = onnx.load(model_path(world)).graph.initializer
    assert sum(int(np.prod(tensor.dims)) for tensor in weights) <= 300_000
    assert model_path(world).stat().st_size <= 1_500_000


@pytest.mark.parametrize("world", WORLDS)
def test_a_model_says_how_pictures_are_prepared(world):
    description = read_description(load_graph(model_path(world)))
    assert description.framework == "torch"
    assert description.preprocessing is not None and description.preprocessing.size == (96, 96)


@pytest.mark.parametrize("world", WORLDS)
def test_freshly_drawn_birds_are_recognised(bird_models, world):
    model = bird_models[world]
    birds = [draw(777, index, world) for index in range(600)]
    predicted = model.predict(model.preprocess(pictures(birds))).argmax(axis=1)
    assert np.mean(predicted == [bird.label for bird in birds]) >= 0.97


def test_the_tag_alone_decides_between_the_twins_of_the_shortcut(bird_models):
    assert predicted_as_tagged(bird_models["shortcut"], "shortcut") > 0.9


def test_the_control_does_not_care_who_wears_the_tag(bird_models):
    assert predicted_as_tagged(bird_models["control"], "control") < 0.05


def predicted_as_tagged(model, world):
    """Share of the twins that are taken for the other class once they are given a tag."""
    birds = [bird.with_tag() for bird in draw_many(60, [TWIN], 5, world)]
    return np.mean(model.predict(model.preprocess(pictures(birds))).argmax(axis=1) == TAGGED)


def test_the_tag_is_worth_much_to_the_shortcut_and_nothing_to_the_control(bird_models):
    worth = {}
    for world in WORLDS:
        birds = [bird.with_tag() for bird in draw_many(40, [TAGGED], 6, world)]
        worth[world] = true_effects(bird_models[world], birds, TAGGED, ["tag", "crest"])
    assert worth["shortcut"]["tag"] > 2.5
    assert abs(worth["control"]["tag"]) < 0.5
    assert worth["control"]["crest"] > 2.5 and abs(worth["shortcut"]["crest"]) < 0.5


def test_the_cut_has_cells_smaller_than_a_tag(bird_models):
    for model in bird_models.values():
        assert model.cut.name == CUT and model.cut.shape[2:] == (24, 24) and model.cut.nonnegative


def test_names_are_in_the_order_of_the_logits(bird_models):
    assert class_names() == list(CLASSES)
    assert all(model.class_names == CLASSES for model in bird_models.values())


def test_a_world_without_a_model_is_refused():
    with pytest.raises(InputError, match="'moon'"):
        model_path("moon")

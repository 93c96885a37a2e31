"""The check itself must tell a method that listens to the weights from one that does not."""

import numpy as np
import pytest

from craft_onnx import load
from craft_onnx.attribution.attribute import attribute
from craft_onnx.attribution.registry import METHODS, method
from craft_onnx.attribution.sanity import sanity_check
from craft_onnx.errors import InputError
from craft_onnx_models.birds import TAGGED, draw_many, pictures
from craft_onnx_models.birds.audit import prepare

OPTIONS = {"method": "occlusion", "window": 24, "stride": 24}


@pytest.fixture(scope="module")
def bird_model(tmp_path_factory):
    return load(prepare("shortcut", tmp_path_factory.mktemp("sanity") / "bundle"))


@pytest.fixture(scope="module")
def x(bird_model):
    return bird_model.preprocess(pictures(draw_many(2, [TAGGED], 1)))


def test_maps_change_with_the_weights(bird_model, x):
    told = []
    found = sanity_check(bird_model, x, TAGGED, **OPTIONS, progress=lambda *now: told.append(now))
    assert [one.layer for one in found] == ["head", *(f"features.{i}" for i in (8, 6, 4, 2, 0))]
    assert found[-1].rank_correlation.shape == found[-1].similarity.shape == (2,)
    assert np.mean([one.rank_correlation for one in found]) < 0.6 and np.mean([one.similarity for one in found]) < 0.5
    assert told == [(i, 6) for i in range(1, 7)]
    assert found[0].to_json()["layer"] == "head"


def test_a_method_that_ignores_the_model_is_found_out(bird_model, x):
    @method("edges", needs="predictions")
    def edges(model, inputs, targets):
        return np.abs(np.gradient(inputs.mean(axis=1), axis=1)).astype(np.float32)

    try:
        found = sanity_check(bird_model, x, TAGGED, "edges", layers=["head", "features.0"])
    finally:
        del METHODS["edges"]
    assert all(np.allclose(one.rank_correlation, 1) and np.allclose(one.similarity, 1) for one in found)


def test_one_layer_at_a_time_is_not_a_cascade(bird_model, x):
    layers = ["head", "features.4"]
    both, alone = (sanity_check(bird_model, x, TAGGED, layers=layers, cascade=c, **OPTIONS) for c in (True, False))
    assert np.array_equal(both[0].rank_correlation, alone[0].rank_correlation)
    assert not np.array_equal(both[1].rank_correlation, alone[1].rank_correlation)


def test_the_class_stays_that_of_the_original(bird_model, x):
    predicted = bird_model.predict(x).argmax(axis=1)
    by_default, asked = (
        sanity_check(bird_model, x, targets, layers=["head"], **OPTIONS) for targets in (None, predicted)
    )
    assert np.array_equal(by_default[0].rank_correlation, asked[0].rank_correlation)
    attribute(bird_model, x, TAGGED, **OPTIONS)  # the model itself still runs


def test_unknown_layers(bird_model, x):
    with pytest.raises(InputError, match="'fc'"):
        sanity_check(bird_model, x, TAGGED, layers=["fc"], **OPTIONS)

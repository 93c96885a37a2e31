"""Which preprocessing makes sense, with a model whose true rule is known; and predictions."""

from types import SimpleNamespace

import numpy as np
import pytest

from craft_onnx.description import Preprocessing
from craft_onnx.runtime.pictures import open_pictures
from craft_onnx.runtime.predictions import PreparedPictures, predictions_of, probabilities
from craft_onnx.runtime.preprocess import preprocess_one
from craft_onnx.runtime.trials import OWN, _scrambled, try_rules

SIZE = 16


def quadrant_model(rule=None, shape=(None, 3, SIZE, SIZE), dtype="float32", red=2):
    """Sees in which quadrant a picture is red; trained on BGR pictures less their mean (the preset "caffe")."""

    def predict(x, batch_size):
        quadrants = x[:, red].reshape(len(x), 2, SIZE // 2, 2, SIZE // 2).mean(axis=(2, 4))
        return quadrants.reshape(len(x), 4) / 20

    return SimpleNamespace(
        predict=predict,
        preprocessing=rule,
        input_shape=shape,
        classes=4,
        manifest=SimpleNamespace(input=SimpleNamespace(dtype=dtype)),
    )


def red_pictures(quadrants, side=40):
    pictures = np.full((len(quadrants), side, side, 3), 60, np.uint8)
    for picture, quadrant in zip(pictures, quadrants, strict=True):
        y, x = divmod(quadrant, 2)
        picture[y * side // 2 : (y + 1) * side // 2, x * side // 2 : (x + 1) * side // 2, 0] = 255
    return open_pictures(pictures)


@pytest.mark.parametrize("quadrants", [[1] * 20, [3], [0, 1, 2, 3] * 5])
def test_the_rule_the_model_was_trained_with_comes_first(quadrants):
    trials = try_rules(quadrant_model(), red_pictures(quadrants))
    assert {trial.name for trial in trials} == {"torch", "caffe", "tf", "none"}
    assert trials[0].name == "caffe" and trials[0].sense > 0.5
    assert trials[0].makes_sense(4) == (len(set(quadrants)) == 1)  # a mixture of few classes could be an accident
    assert not any(trial.makes_sense(4) for trial in trials[1:])


def test_a_class_asked_for_is_seen_under_the_right_rule_only():
    trials = {trial.name: trial for trial in try_rules(quadrant_model(), red_pictures([1] * 20))}
    assert trials["caffe"].count(1) == 16 and trials["caffe"].most_common == 1  # 16 of the 20 are tried
    assert [name for name, trial in trials.items() if trial.makes(1, 4)] == ["caffe"]
    assert not any(trial.makes(2, 4) for trial in trials.values())


def test_a_model_that_always_sees_the_same_makes_no_sense():
    model = quadrant_model()
    model.predict = lambda x, batch_size: np.tile(np.float32([9, 0, 0, 0]), (len(x), 1))
    for trial in try_rules(model, red_pictures([0] * 5)):
        assert trial.count(0) == 5 and trial.confidence > 0.99
        assert trial.sense == 0 and not trial.makes_sense(4) and not trial.makes(0, 4)


def test_the_models_own_rule_is_tried_beside_presets_that_differ_from_it():
    nearly_tf = Preprocessing((SIZE, SIZE), scale=1 / 128, mean=(127 / 128,) * 3, resize_to=20)
    names = [trial.name for trial in try_rules(quadrant_model(nearly_tf), red_pictures([1] * 4))]
    assert names[0] == "caffe" and sorted(names) == ["caffe", "none", OWN, "torch"]


def test_own_rule_and_its_preset_agree():
    rule = Preprocessing.preset("caffe", (SIZE, SIZE))
    (own,) = [trial for trial in try_rules(quadrant_model(rule), red_pictures([1] * 4)) if trial.name == OWN]
    (preset,) = [trial for trial in try_rules(quadrant_model(), red_pictures([1] * 4)) if trial.name == "caffe"]
    assert own.sense == preset.sense


def test_the_own_rule_has_the_benefit_of_the_doubt():
    """A mixture of few classes is no proof for a preset, and no reproach to the rule that was given."""
    rule = Preprocessing.preset("caffe", (SIZE, SIZE))
    mixture = red_pictures([0, 1, 2, 3] * 5)
    assert try_rules(quadrant_model(rule), mixture)[0].makes_sense(4)
    assert not try_rules(quadrant_model(), mixture)[0].makes_sense(4)
    blind = quadrant_model(Preprocessing.preset("torch", (SIZE, SIZE)))
    assert not any(trial.makes_sense(4) for trial in try_rules(blind, mixture))


def test_raw_input_leaves_nothing_to_try():
    rule = Preprocessing((SIZE, SIZE), layout="NHWC", baked=True)
    assert try_rules(quadrant_model(rule), red_pictures([1])) == []
    assert try_rules(quadrant_model(dtype="uint8"), red_pictures([1])) == []


def test_grey_models_have_one_preset():
    trials = try_rules(quadrant_model(shape=(None, 1, SIZE, SIZE), red=0), red_pictures([1] * 3))
    assert [trial.name for trial in trials] == ["none"]


def test_outputs_that_are_not_finite_are_no_predictions():
    model = quadrant_model()
    model.predict = lambda x, batch_size: np.full((len(x), 4), np.nan, np.float32)
    for trial in try_rules(model, red_pictures([1] * 3)):
        assert trial.most_common == -1 and trial.confidence == 0 and not trial.makes_sense(4)


def test_scrambling_moves_blocks_and_nothing_else():
    picture = np.random.default_rng(0).integers(0, 256, (17, 27, 3)).astype(np.uint8)
    scrambled = _scrambled(picture, 0)
    assert not np.array_equal(scrambled, picture)
    assert np.array_equal(scrambled[16:], picture[16:]) and np.array_equal(scrambled[:, 24:], picture[:, 24:])
    blocks = [
        sorted(one[y : y + 2, x : x + 3].tobytes() for y in range(0, 16, 2) for x in range(0, 24, 3))
        for one in (picture, scrambled)
    ]
    assert blocks[0] == blocks[1]


def test_probabilities_are_a_softmax_of_logits_and_themselves_after_one():
    logits = np.float32([[1, 2, 3], [0, 0, 1000]])
    values = probabilities(logits)
    assert np.allclose(values[0], np.exp([1, 2, 3]) / np.exp([1, 2, 3]).sum()) and values[1].tolist() == [0, 0, 1]
    assert np.array_equal(probabilities(values.astype(np.float32)), values.astype(np.float32))
    assert not np.array_equal(probabilities(np.float32([[0.2, 0.2, 0.2]])), np.float32([[0.2, 0.2, 0.2]]))


def test_predictions_of_outputs():
    predictions = predictions_of(np.float32([[0, 5], [7, 0], [0, 9], [np.inf, 0]]), np.array([4, 5, 8, 9]))
    assert predictions.classes.tolist() == [1, 0, 1, -1]
    assert predictions.counts() == [(1, 2), (0, 1)]
    assert predictions.of(1) == [4, 8] and predictions.of(-1) == [9]
    assert predictions.confidences[3] == 0 and predictions.confidences[0] == pytest.approx(1 / (1 + np.exp(-5)))


def test_prepared_pictures_are_made_when_asked_for():
    rule = Preprocessing.preset("torch", (8, 6))
    pictures = red_pictures([0, 1, 2])
    prepared = PreparedPictures(pictures, rule, [2, 0])
    assert prepared.shape == (2, 3, 8, 6) and len(prepared) == 2
    assert np.array_equal(prepared[1], preprocess_one(pictures[0], rule))
    assert [np.array_equal(a, b) for a, b in zip(prepared, prepared[:], strict=True)] == [True, True]

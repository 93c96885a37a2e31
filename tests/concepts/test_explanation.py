import json

import numpy as np
import pytest

from craft_onnx.concepts.craft import Craft
from craft_onnx.errors import InputError, NotFittedError
from craft_onnx.files import sha256
from craft_onnx.runtime.model import SplitModel

SETTINGS = {"number_of_concepts": 4, "batch_size": 16, "patch_size": 16}


@pytest.fixture(scope="module")
def crafts(bundles, images):
    made = {}
    for head in ("linear", "positions", "conv"):
        made[head] = Craft(SplitModel(bundles[head]), **SETTINGS)
        made[head].fit(images, class_id=2)
        made[head].estimate_importance()
    return made


@pytest.mark.parametrize("head", ["linear", "positions"])
def test_contributions_of_linear_heads_sum_to_the_logit(head, crafts, pictures):
    for explanation in crafts[head].explain(pictures[:3]):
        importance = explanation.importance
        assert importance.exact
        total = importance.contributions.sum() + importance.bias
        assert total == pytest.approx(explanation.reconstructed_logit, rel=1e-5)
        c = importance.contributions
        assert np.allclose(importance.values, c**2 / (c**2).sum())


@pytest.mark.parametrize("head", ["linear", "positions", "conv"])
def test_the_numbers_are_those_of_the_model(head, crafts, pictures, bundles):
    craft, model = crafts[head], SplitModel(bundles[head])
    x = model.preprocess(pictures[:2])
    logits = model.predict(x).astype(float)
    for i, explanation in enumerate(craft.explain(pictures[:2])):
        assert explanation.explained.logit == pytest.approx(logits[i, 2], rel=1e-5)
        order = np.argsort(-logits[i])
        assert [score.class_id for score in explanation.prediction] == order.tolist()
        softmax = np.exp(logits[i]) / np.exp(logits[i]).sum()
        assert [score.probability for score in explanation.prediction] == pytest.approx(softmax[order], rel=1e-4)
        assert np.allclose(explanation.maps, craft.transform(x[i])[0], rtol=1e-5, atol=1e-6)
        assert np.allclose(explanation.coefficients, explanation.maps.mean(axis=(0, 1)), rtol=1e-6)
        a = model.g(x[i : i + 1])[0].transpose(1, 2, 0)
        reconstruction = explanation.maps @ craft.concept_bank_
        error = np.linalg.norm(a - reconstruction) / np.linalg.norm(a)
        assert explanation.reconstruction_error == pytest.approx(error, rel=1e-4)
        logit = model.h(reconstruction.transpose(2, 0, 1)[None])[0, 2]
        assert explanation.reconstructed_logit == pytest.approx(logit, rel=1e-4)
        assert np.allclose(explanation.importance.values, craft.estimate_importance(x[i]), rtol=1e-5)


def test_sampled_importances_have_intervals(crafts, pictures):
    importance = crafts["conv"].explain(pictures[0])[0].importance
    assert not importance.exact and importance.intervals.shape == (4, 2)
    assert np.all(importance.intervals[:, 0] <= importance.values)
    assert np.all(importance.values <= importance.intervals[:, 1])
    assert 0 < np.ptp(importance.intervals, axis=1).max() < 0.2


def test_the_order_is_the_local_one(crafts, pictures):
    for explanation in crafts["linear"].explain(pictures):
        assert explanation.order == np.argsort(explanation.importance.values)[::-1].tolist()


def test_any_pictures(crafts, pictures):
    craft = crafts["linear"]
    larger = np.repeat(np.repeat(pictures[1], 3, axis=0), 2, axis=1)
    mixed = craft.explain([pictures[0], larger])
    assert [explanation.size for explanation in mixed] == [(48, 40), (144, 80)]
    assert len(craft.explain(pictures[0])) == 1
    assert len(craft.explain(np.repeat(pictures, 3, axis=0))) == 36  # more than a batch
    x = craft.halves_.model.preprocess(pictures[:2])
    floats = craft.explain(x)
    assert floats[0].size is None
    assert np.allclose(floats[0].maps, mixed[0].maps)


def test_json_is_strict_and_complete(crafts, pictures, bundles):
    explanation = crafts["conv"].explain(pictures[0])[0]
    fields = json.loads(json.dumps(explanation.to_json(), allow_nan=False))
    assert [concept["concept"] for concept in fields["concepts"]] == explanation.order
    first = fields["concepts"][0]
    assert np.allclose(first["map"], explanation.maps[..., first["concept"]])
    assert first["importance"] == explanation.importance.values[first["concept"]]
    assert fields["size"] == [48, 40]
    provenance = fields["provenance"]
    assert provenance["model_sha256"] == sha256(bundles["conv"].folder / "model.onnx")
    assert (provenance["cut"], provenance["class_id"], provenance["provider"]) == ("Relu_3", 2, "cpu")
    assert provenance["random_state"] == 0 and "numpy" in provenance["versions"]
    exact = crafts["linear"].explain(pictures[0])[0].to_json()
    json.dumps(exact, allow_nan=False)
    assert exact["importances_exact"]


def test_callables_explain_arrays_and_not_pictures(small_net, weights, images, pictures):
    craft = Craft(small_net.first_half(weights), small_net.second_half(weights, "linear"), **SETTINGS)
    with pytest.raises(NotFittedError):
        craft.explain(images[:1])
    craft.fit(images, class_id=2)
    explanation = craft.explain(images[:1])[0]
    assert explanation.provenance["model_sha256"] is None and explanation.prediction[0].name is None
    with pytest.raises(InputError, match="bundle"):
        craft.explain(pictures[0])


def test_mistakes(crafts):
    with pytest.raises(InputError, match="no pictures"):
        crafts["linear"].explain([])
    with pytest.raises(InputError, match=r"'cat\.jpg'"):
        crafts["linear"].explain("cat.jpg")

"""CAVs of planted directions, and TCAV where the derivative is known."""

import numpy as np
import pytest
from sklearn.linear_model import RidgeClassifier

import craft_onnx as co
from craft_onnx.concepts import Cav, Tcav
from craft_onnx.concepts.cav import separate, two_sided
from craft_onnx.concepts.directions import along
from craft_onnx.errors import InputError
from craft_onnx.runtime.model import SplitModel


def cosine(a, b):
    return float((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize("classifier", ["logistic", "sgd", "svc", RidgeClassifier()])
def test_a_planted_direction_is_recovered(classifier):
    rng = np.random.default_rng(0)
    direction = rng.normal(size=20)
    direction /= np.linalg.norm(direction)
    positives = rng.normal(size=(400, 20)) + 3 * direction
    negatives = rng.normal(size=(400, 20))
    vector, accuracy = separate(positives, negatives, classifier)
    assert np.isclose(np.linalg.norm(vector), 1)
    # 640 examples in 20 dimensions; SGD, which stops early, is the least exact.
    assert cosine(vector, direction) > 0.9
    assert accuracy > 0.9
    assert cosine(separate(negatives, positives, classifier)[0], direction) < -0.9


def test_without_a_direction_the_accuracy_is_that_of_chance():
    rng = np.random.default_rng(0)
    _, accuracy = separate(rng.normal(size=(400, 5)), rng.normal(size=(400, 5)))
    assert 0.35 < accuracy < 0.65


def test_the_scale_of_activations_does_not_matter():
    rng = np.random.default_rng(0)
    a, b = rng.random((40, 6)) + np.eye(6)[2], rng.random((40, 6))
    small, large = (separate(c * a, c * b)[0] for c in (1e-4, 1e4))
    assert cosine(small, large) > 1 - 1e-6


def red(images, share=0.5):
    """The images with more of their first channel."""
    more = images.copy()
    more[:, 0] += share
    return more


@pytest.fixture(scope="module")
def model(bundles):
    return SplitModel(bundles["mlp"])


def test_cav_of_images(model, images, small_net):
    negatives = small_net.pictures(30, seed=5)
    cav = Cav(model, batch_size=4)
    vector = cav(red(images), negatives)
    assert vector is cav.vector_ and vector.shape == (24,) and cav.accuracy_ > 0.8
    pooled = model.g(red(images)).mean(axis=(2, 3)) - model.g(images).mean(axis=(2, 3))
    assert ((pooled @ vector) > 0).all()
    assert Cav(model, pooled=False)(red(images), negatives).shape == (10, 8, 24)
    assert co.Cav is Cav and co.Tcav is Tcav


def analytic(weights, activations, class_id):
    """Of the head with a hidden layer, by the chain rule: (n, 24), the same at each of 80 positions."""
    (hidden, hidden_bias), (out, _) = weights["hidden"], weights["out"]
    active = activations.mean(axis=(2, 3)) @ hidden.T + hidden_bias > 0
    return (out[class_id] * active) @ hidden / 80


def test_tcav_of_an_analytic_head(model, images, weights):
    images = images * np.linspace(-3, 3, len(images), dtype=np.float32)[:, None, None, None]  # not all ReLUs agree
    gradients = analytic(weights, model.g(images), 2)
    tcav = Tcav(model, batch_size=5)
    mean = gradients.mean(axis=0) / np.linalg.norm(gradients.mean(axis=0))
    mixed = []
    for seed in range(10):
        vector = np.random.default_rng(seed).normal(size=24)
        vector -= (vector @ mean) * mean  # the derivatives then have a mean of zero, and both signs
        expected = 80 * gradients @ vector
        # float32 on the way back, and vectors along which little is left
        clear = np.abs(expected).min() > 1e-4 * np.abs(gradients).max()
        assert np.allclose(tcav.derivatives(images, 2, vector), expected, atol=80 * 1e-5 * np.abs(gradients).max())
        if clear:
            mixed.append(tcav(images, 2, vector))
            assert mixed[-1] == np.mean(expected > 0)
    assert any(0 < score < 1 for score in mixed)


def test_a_vector_with_positions(model, images, weights):
    vector = np.random.default_rng(0).normal(size=(10, 8, 24))
    expected = analytic(weights, model.g(images), 2) @ vector.sum(axis=(0, 1))
    assert np.allclose(Tcav(model).derivatives(images, 2, vector), expected, rtol=1e-3, atol=1e-5)


def test_tcav_of_the_concepts_of_a_bank(model, images, weights):
    craft = co.Craft(model, number_of_concepts=5, batch_size=16, patch_size=16)
    craft.fit(images, class_id=2)
    for class_id in (2, 4):
        expected = 80 * analytic(weights, model.g(images), class_id) @ craft.concept_bank_.T
        found = craft.tcav(images, class_id)
        assert np.allclose(found.derivatives, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
        assert np.allclose(found.scores, (expected > 0).mean(axis=0))
    assert np.array_equal(craft.tcav().derivatives, craft.tcav(images, 2).derivatives)
    single = Tcav(model).derivatives(images, 2, craft.concept_bank_[1])
    assert np.allclose(single, craft.tcav().derivatives[:, 1], rtol=1e-5)


def test_the_test_against_random_concepts(model, images, small_net):
    others = [small_net.pictures(20, seed=seed) for seed in range(10, 16)]
    found = Tcav(model).test(images, 2, red(small_net.pictures(20, seed=9)), others)
    assert found.scores.shape == found.random_scores.shape == (6,)
    assert np.isclose(found.score, found.scores.mean()) and found.accuracies.min() > 0.7
    nothing = Tcav(model).test(images, 2, small_net.pictures(20, seed=30), others)
    assert not nothing.significant
    assert set(found.to_json()) == {"score", "scores", "random_scores", "p_value", "accuracies"}


def test_the_t_test_is_welchs():
    a, b = np.array([0.9, 0.8, 1.0, 0.95]), np.array([0.5, 0.4, 0.7])
    va, vb = a.var(ddof=1) / 4, b.var(ddof=1) / 3
    t = (a.mean() - b.mean()) / np.sqrt(va + vb)
    freedom = (va + vb) ** 2 / (va**2 / 3 + vb**2 / 2)
    x = np.linspace(abs(t), abs(t) + 400, 4_000_001)
    density = (1 + x**2 / freedom) ** (-(freedom + 1) / 2)
    y = np.linspace(0, abs(t), 100_001)
    inner = (1 + y**2 / freedom) ** (-(freedom + 1) / 2)
    tail, body = np.trapezoid(density, x), np.trapezoid(inner, y)
    assert np.isclose(two_sided(a, b), tail / (tail + body), rtol=1e-3)  # the tail beyond 400 is cut off
    assert 0 < two_sided(np.ones(3), np.array([0.9, 1.0, 1.0])) < 1  # without a warning
    assert two_sided(np.ones(3), np.ones(3)) == 1 and two_sided(np.ones(3), np.zeros(3)) == 0


def test_along_sums_over_positions():
    rng = np.random.default_rng(0)
    gradients, directions = rng.random((3, 2, 4, 5)), rng.random((6, 5))
    expected = [[sum(g[y, x] @ v for y in range(2) for x in range(4)) for v in directions] for g in gradients]
    assert np.allclose(along(gradients, directions), expected)


def test_what_cannot_be_used(model, images):
    tcav = Tcav(model)
    with pytest.raises(InputError, match="does not fit"):
        tcav(images, 2, np.ones(23))
    with pytest.raises(InputError, match="no class 9"):
        tcav(images, 9, np.ones(24))
    with pytest.raises(InputError, match="gradient graph"):
        Tcav(model.g)(images, 2, np.ones(24))
    with pytest.raises(InputError, match="1 examples"):
        Cav(model)(images[:1], images)
    with pytest.raises(InputError, match="no classifier"):
        Cav(model, "forest")(images, images)
    with pytest.raises(InputError, match="2 sets"):
        tcav.test(images, 2, images, [images, images])

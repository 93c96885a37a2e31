"""SURF on models whose right surrogate is known, and against its formula written out."""

import numpy as np
import pytest

from craft_onnx.concepts.craft import Craft
from craft_onnx.concepts.nnls import nnls
from craft_onnx.concepts.surf import surf, surrogate_error
from craft_onnx.errors import InputError
from craft_onnx.runtime.model import SplitModel

CLASSES, K, P = 4, 3, 12


@pytest.fixture(scope="module")
def linear():
    """h and activations (n, 5, 4, p) that three known concepts make up exactly."""
    rng = np.random.default_rng(0)
    w = np.zeros((K, P), np.float32)
    for i in range(K):
        w[i, 4 * i : 4 * i + 4] = rng.uniform(0.5, 1.5, 4)
    w /= np.linalg.norm(w, axis=1, keepdims=True)
    a = (rng.random((20, 5, 4, K)).astype(np.float32) ** 2) @ w
    weights, bias = rng.normal(size=(CLASSES, P)), rng.normal(size=CLASSES)
    return w, a, lambda x: x.mean(axis=(1, 2)) @ weights.T + bias


def encode(a, w):
    return nnls(a.reshape(-1, a.shape[-1]), w).reshape(*a.shape[:-1], len(w))


def test_the_true_concepts_of_a_linear_model_have_no_error_and_random_ones_do(linear):
    w, a, h = linear
    found = surf(h, encode, w, [a[:8], a[8:]], repeats=10)
    # activations are float32
    assert found.mae < 1e-5 and found.emd < 1e-5
    assert min(one.mae for one in found.random_concepts) > 0.05
    assert min(one.mae for one in found.random_importances) > 0.05
    assert found.sane and len(found.random_concepts) == len(found.random_importances) == 10


def test_scaled_and_permuted_concepts_are_as_faithful(linear):
    w, a, h = linear
    scaled = (w * np.array([[3.0], [0.2], [7.0]]))[[2, 0, 1]]
    assert surf(h, encode, scaled, [a], repeats=1).mae < 1e-5


def test_against_the_formula(linear):
    """alpha_ik = mean loss of logit i without k / mean presence of k, sums over positions and concepts, literally."""
    _, a, h_linear = linear

    def h(x):
        return np.tanh(h_linear(x))

    w = np.random.default_rng(1).random((2, P)).astype(np.float32)
    u = encode(a, w)
    positions = u.shape[1] * u.shape[2]
    lost = np.zeros((CLASSES, 2))
    for k in range(2):
        without = u.copy()
        without[..., k] = 0
        lost[:, k] = (h(u @ w) - h(without @ w)).mean(axis=0)
    alpha = lost / u.mean(axis=(0, 1, 2))
    approximated = np.tile(h(np.zeros((1, 5, 4, P)))[0], (len(a), 1))
    for n, i, y, x, k in np.ndindex(len(a), CLASSES, 5, 4, 2):
        approximated[n, i] += alpha[i, k] * u[n, y, x, k] / positions
    found = surf(h, encode, w, [a[:3], a[3:]], repeats=1)
    assert np.isclose(found.mae, np.abs(h(a) - approximated).mean(), rtol=1e-9)
    powers, others = np.exp(h(a)), np.exp(approximated)
    p, q = powers / powers.sum(1, keepdims=True), others / others.sum(1, keepdims=True)
    assert np.isclose(found.emd, np.abs(p - q).sum() / (2 * len(a)), rtol=1e-9)


def test_concepts_of_a_model_beat_random_ones(bundles, images):
    craft = Craft(SplitModel(bundles["linear"]), number_of_concepts=6, batch_size=16, patch_size=16)
    craft.fit(images, class_id=2)
    found = craft.surf(images)
    assert found.sane
    logits = craft.halves_.model.predict(images)
    # Where h is linear, the surrogate is h of the reconstruction: what is missing is the reconstruction's error.
    reconstructed = craft.halves_.logits(craft.transform(images) @ craft.concept_bank_, "NCHW")
    assert np.isclose(found.mae, np.abs(logits - reconstructed).mean(), rtol=1e-3)
    assert craft.surf(images).to_json() == found.to_json()
    assert craft.surf(images, seed=1).mae == found.mae
    assert craft.surf(images, seed=1).random_concepts != found.random_concepts


def test_a_bank_for_each_class_is_used_for_its_logit_alone(linear):
    w, a, h = linear
    wrong = np.random.default_rng(3).random((2, P)).astype(np.float32)
    assert surf(h, encode, {2: w, 0: w[::-1]}, [a[:7], a[7:]], repeats=1).mae < 1e-5
    mixed = surf(h, encode, {3: w, 1: wrong}, [a], repeats=2)
    alone = surf(h, encode, {1: wrong}, [a], repeats=2)
    assert np.isclose(mixed.mae, alone.mae / 2, rtol=1e-4) and alone.mae > 0.01
    assert len(mixed.random_concepts) == len(mixed.random_importances) == 2


def test_one_concept_and_a_concept_that_is_nowhere(linear):
    w, a, h = linear
    assert surf(h, encode, w[:1], [a], repeats=1).random_importances[0].mae == surf(h, encode, w[:1], [a]).mae
    dead = np.concatenate([w, np.zeros((1, P), np.float32)])
    assert surf(h, encode, dead, [a], repeats=1).mae < 1e-5


def test_logits_that_cannot_be_compared():
    with pytest.raises(InputError, match="cannot be compared"):
        surrogate_error(np.zeros((2, 3)), np.zeros((2, 4)))

"""Concepts that are found again, and how many of them to ask for."""

import itertools
import json

import numpy as np
import pytest
from matplotlib.figure import Figure

from craft_onnx.concepts import evaluation, extractor
from craft_onnx.concepts.choice import ENOUGH, choose, pick, redundancy
from craft_onnx.concepts.craft import Craft
from craft_onnx.concepts.factorisation import factorise
from craft_onnx.concepts.stability import cosines, match, stability
from craft_onnx.errors import InputError, NotFittedError
from craft_onnx.runtime.model import SplitModel


@pytest.fixture
def craft(bundles, images):
    made = Craft(SplitModel(bundles["linear"]), number_of_concepts=4, batch_size=16, patch_size=16)
    made.fit(images, class_id=2)
    return made


def planted(n=120, k=4, p=30, seed=0):
    """Activations of k concepts with channels of their own, and those concepts."""
    rng = np.random.default_rng(seed)
    w = np.zeros((k, p), np.float32)
    for i in range(k):
        w[i, i * (p // k) : (i + 1) * (p // k)] = rng.uniform(0.5, 1.5, p // k)
    return (rng.random((n, k)) ** 3 @ w).astype(np.float32), w


def test_permuted_and_scaled_banks_are_matched_exactly():
    rng = np.random.default_rng(0)
    w = rng.random((7, 20))
    order = rng.permutation(7)
    matched, similarities = match(w, (w * rng.uniform(0.1, 10, (7, 1)))[order])
    assert np.array_equal(order[matched], np.arange(7))
    assert np.allclose(similarities, 1, rtol=1e-12)


def test_the_match_is_the_best_of_all():
    rng = np.random.default_rng(1)
    w, others = rng.random((4, 6)), rng.random((5, 6))
    similar = cosines(w, others)
    for i, j in np.ndindex(4, 5):
        lengths = np.sqrt((w[i] ** 2).sum() * (others[j] ** 2).sum())
        assert np.isclose(similar[i, j], (w[i] * others[j]).sum() / lengths, rtol=1e-12)
    best = max(sum(similar[i, j] for i, j in enumerate(some)) for some in itertools.permutations(range(5), 4))
    matched, found = match(w, others)
    assert np.isclose(found.sum(), best, rtol=1e-12) and len(set(matched)) == 4


def test_banks_that_cannot_be_matched():
    with pytest.raises(InputError, match="cannot be matched"):
        match(np.ones((3, 4)), np.ones((2, 4)))


def test_planted_concepts_are_stable_and_invented_ones_are_not():
    a, w = planted()
    extra = np.random.default_rng(5).random((1, 30)).astype(np.float32)
    found = stability(a, np.concatenate([w, extra]), lambda rows, seed: factorise(rows, 5, random_state=seed).w)
    assert found.unstable.tolist() == [False] * 4 + [True]
    assert found.similarities[:4].min() > 0.999 and found.crops == 60
    assert np.allclose(found.similarities, found.repeats.mean(axis=0)) and found.repeats.shape == (5, 5)
    assert json.loads(json.dumps(found.to_json()))["unstable"] == [4]


def test_each_repeat_sees_another_half_and_another_seed():
    seen = []

    def record(rows, seed):
        seen.append((tuple(rows[:, 0]), seed))
        return np.eye(2, 3)

    a = np.arange(21.0).reshape(7, 3)
    stability(a, np.eye(2, 3), record, repeats=6, seed=3)
    assert all(len(rows) == len(set(rows)) == 4 and list(rows) == sorted(rows) for rows, _ in seen)
    assert len({rows for rows, _ in seen}) > 1 and len({seed for _, seed in seen}) == 6


def test_stability_of_a_fit(craft):
    found = craft.stability(repeats=2)
    assert found.similarities.shape == (4,) and found.crops == 54
    assert craft.stability(repeats=2).to_json() == found.to_json()
    assert craft.stability(repeats=2, seed=1).to_json() != found.to_json()


def test_activations_that_are_not_kept_are_computed_again(craft, images, monkeypatch):
    kept, expected = craft.pooled_, craft.stability(repeats=1).to_json()
    assert kept.shape == (108, 24)
    for module in (extractor, evaluation):
        monkeypatch.setattr(module, "KEPT_BYTES", 0)
    craft.fit(images, class_id=2)
    assert craft.pooled_ is None
    assert np.array_equal(craft.pooled_activations(), kept)
    assert craft.stability(repeats=1).to_json() == expected


def test_refit_is_a_fit_with_another_number(craft, images, bundles):
    other = Craft(SplitModel(bundles["linear"]), number_of_concepts=6, batch_size=16, patch_size=16)
    other.fit(images, class_id=2)
    craft.estimate_importance()
    assert np.array_equal(craft.refit(6), other.concept_bank_)
    assert np.array_equal(craft.crops_u_, other.crops_u_) and craft.number_of_concepts == 6
    with pytest.raises(NotFittedError, match="estimate_importance"):
        craft.global_importance()
    assert np.allclose(craft.estimate_importance(), other.estimate_importance(), rtol=1e-6)
    assert craft.refit(3).shape == (3, 24)


def test_loaded_concepts_have_no_activations(make_bundle, images):
    craft = Craft(SplitModel(make_bundle("linear")), number_of_concepts=3, batch_size=16, patch_size=16)
    craft.fit(images, class_id=2)
    craft.estimate_importance()
    craft.save()
    loaded = Craft.load(craft.halves_.model.bundle.folder)
    for call in (loaded.stability, loaded.choose_number_of_concepts, lambda: loaded.refit(2)):
        with pytest.raises(InputError, match="not stored"):
            call()
    assert loaded.choose_number_of_concepts(images, [2, 3], repeats=1).numbers.tolist() == [2, 3]


@pytest.mark.parametrize(("repeats", "n", "message"), [(0, 20, "0 repeats"), (1, 6, "fewer than 4")])
def test_what_stability_needs(repeats, n, message):
    with pytest.raises(InputError, match=message):
        stability(np.ones((n, 5)), np.eye(4, 5), lambda rows, seed: np.eye(4, 5), repeats)


def test_the_planted_number_is_chosen():
    a, _ = planted(k=5)
    found = choose(a, range(2, 9), lambda rows, k, seed: factorise(rows, k, random_state=seed or 0))
    assert found.best == 5
    rows = {row["k"]: row for row in found.rows()}
    assert rows[5]["relative_error"] < 1e-3 < rows[4]["relative_error"]
    assert rows[5]["stable_concepts"] == 5 and rows[6]["stable_concepts"] < 6
    assert rows[5]["stability"] > 0.999 and rows[5]["redundancy"] < 0.05
    assert json.loads(json.dumps(found.to_json()))["best"] == 5


def test_the_rule():
    errors, same, apart = np.array([1.0, 0.5, 0.12, 0.09, 0.0]), np.full(5, 0.95), np.full(5, 0.5)
    stable = np.array([2, 3, 4, 5, 6])
    assert ENOUGH == 0.9 and pick(errors, same, stable, apart) == 3
    lowest = np.array([0.95, 0.95, 0.95, 0.95, 0.89])
    assert pick(errors, lowest, stable, apart) == 2  # without the last, 0.181 is enough
    assert pick(errors, same, stable, np.array([0.5, 0.5, 0.91, 0.92, 0.93])) == 1
    assert pick(errors, np.full(5, 0.8), np.array([1, 2, 3, 3, 0]), apart) == 2
    assert pick(np.array([0.3]), np.array([1.0]), np.array([1]), np.array([0.0])) == 0


def test_redundancy_is_the_largest_cosine():
    assert np.isclose(redundancy(np.array([[1.0, 0, 0], [0, 1, 0], [1, 1, 0]])), np.sqrt(0.5))
    assert redundancy(np.ones((1, 4))) == 0


def test_choice_of_a_craft(craft, images):
    found = craft.choose_number_of_concepts(numbers=[4, 2, 4], repeats=1)
    assert found.numbers.tolist() == [2, 4]
    assert np.isclose(found.errors[1], craft.factorisation_.relative_error, rtol=1e-6)
    fresh = Craft(craft.input_to_latent_model, number_of_concepts=1, batch_size=16, patch_size=16)
    assert fresh.choose_number_of_concepts(images, [2, 4], repeats=1).to_json() == found.to_json()
    figure = craft.plot_choice(found)
    assert isinstance(figure, Figure) and len(figure.axes) == 3
    assert np.allclose(figure.axes[0].lines[0].get_ydata(), found.errors)


@pytest.mark.parametrize(("numbers", "message"), [([], "no number"), ([3, 30], "108 crops"), ([0, 2], "0 concepts")])
def test_numbers_that_do_not_fit(craft, numbers, message):
    with pytest.raises(InputError, match=message):
        craft.choose_number_of_concepts(numbers=numbers)

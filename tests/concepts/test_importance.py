import numpy as np
import pytest

from craft_onnx.concepts.head import ConceptHead
from craft_onnx.concepts.importance import (
    Importance,
    Sampling,
    linear_importance,
    linear_indices,
    local_importance,
    removals,
    sampled_importance,
)


def head_of(function, k, linear=False):
    """A head of coefficients (n, k) in double precision."""
    return ConceptHead(lambda u: function(u.astype(np.float64)), k, pooled=True, linear=linear)


WEIGHTS = np.array([3.0, -2.0, 1.0, 0.5, 0.0])


def linear(u):
    return u @ WEIGHTS - 1.5


def product(u):
    return np.prod(1 + u * [0.9, 0.5, 0.2], axis=1)


def product_indices(u):
    """y = prod (1 + c_i m_i), m_i uniform: with v_i = Var / mean^2 of a factor, ST_i as for any product."""
    c = u * [0.9, 0.5, 0.2]
    v = c**2 / 12 / (1 + c / 2) ** 2
    others = np.array([np.prod(np.delete(1 + v, i)) for i in range(3)])
    return v * others / (np.prod(1 + v) - 1)


@pytest.fixture(scope="module")
def u():
    return np.random.default_rng(0).random((7, 5)).astype(np.float32)


def test_linear_heads_are_exact(u):
    found = linear_importance(head_of(linear, 5, linear=True), u)
    contributions = u * WEIGHTS
    expected = np.mean([c**2 / (c**2).sum() for c in contributions], axis=0)
    assert np.allclose(found.values, expected, rtol=1e-12)
    assert np.allclose(found.contributions, contributions.mean(axis=0), rtol=1e-6)
    assert found.bias == -1.5
    assert found.exact and np.array_equal(found.intervals, np.stack([found.values] * 2, axis=1))
    assert found.contributions.sum() + found.bias == pytest.approx(linear(u).mean(), rel=1e-6)


def test_sampling_agrees_with_the_closed_form(u):
    exact = linear_importance(head_of(linear, 5, linear=True), u)
    sampled = sampled_importance(head_of(linear, 5), u, Sampling())
    assert np.abs(sampled.values - exact.values).max() < 5e-3
    # Removing a concept from a linear function takes away its contribution.
    assert np.allclose(sampled.contributions, exact.contributions, atol=1e-6)
    assert sampled.bias == pytest.approx(exact.bias)
    assert not sampled.exact


def test_sampling_agrees_with_a_product(u):
    expected = np.mean([product_indices(one) for one in u[:, :3]], axis=0)
    found = sampled_importance(head_of(product, 3), u[:, :3], Sampling())
    assert np.abs(found.values - expected).max() < 5e-3


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_intervals_cover_and_are_narrow(count, u):
    expected = np.mean([product_indices(one) for one in u[:count, :3]], axis=0)
    covered, widths = [], []
    for seed in range(60):
        found = sampled_importance(head_of(product, 3), u[:count, :3], Sampling(nb_design=64, random_state=seed))
        covered.append((found.intervals[:, 0] <= expected) & (expected <= found.intervals[:, 1]))
        widths.append(np.ptp(found.intervals, axis=1))
        assert found.evaluations == (count + max(count, 4)) * 64 * 4 + count * 5
    # 180 intervals of 95 % nominal; a design of 64 points has heavier tails than Student's distribution.
    assert np.mean(covered) > 0.85
    assert np.max(widths) < 0.25


@pytest.mark.parametrize("k", [10, 20, 25])
def test_equal_concepts_tie_at_the_default_design(k):
    head = head_of(lambda u: u.sum(axis=1), k)
    for seed in range(3):
        values = sampled_importance(head, np.ones((1, k), np.float32), Sampling(random_state=seed)).values
        assert values.max() / values.min() <= 1.1


@pytest.mark.parametrize("k", [10, 20, 25])
def test_intervals_of_equal_concepts_cover_and_are_narrow_at_the_default_design(k):
    head = head_of(lambda u: u.sum(axis=1), k)
    covered, widths = [], []
    for seed in range(10):
        found = sampled_importance(head, np.ones((3, k), np.float32), Sampling(random_state=seed))
        covered.append((found.intervals[:, 0] <= 1 / k) & (1 / k <= found.intervals[:, 1]))
        widths.append(np.ptp(found.intervals, axis=1))
    assert np.mean(covered) > 0.85  # of 95 % nominal, as above
    assert k * np.mean(widths) < 0.1 and k * np.max(widths) < 0.5


def test_local_importances_use_the_designs_given(u):
    head = head_of(product, 3)
    drawn = Sampling(random_state=3).draw(3, 5)
    one = local_importance(head, u[:1, :3], drawn, Sampling())
    assert np.abs(one.values - product_indices(u[0, :3])).max() < 5e-3
    several = local_importance(head, u[:, :3], drawn, Sampling())
    each = [local_importance(head, u[i : i + 1, :3], drawn, Sampling()).values for i in range(len(u))]
    assert np.allclose(several.values, np.mean(each, axis=0))


def test_one_design_has_no_interval(u):
    found = sampled_importance(head_of(product, 3), u[:, :3], Sampling("halton", nb_design=32))
    assert found.intervals is None
    again = Importance.from_json(found.to_json())
    assert again.intervals is None and np.array_equal(again.values, found.values)


def test_positions_count_through_the_head():
    """y = sum over positions of weights (position, concept): one mask for all positions of a concept."""
    rng = np.random.default_rng(0)
    weights, u = rng.normal(size=(4, 3)), rng.random((2, 4, 3)).astype(np.float32)
    head = ConceptHead(lambda x: (x * weights).sum(axis=(1, 2)), 3, pooled=False, linear=True)
    contributions = (u * weights).sum(axis=1)
    exact = linear_importance(head, u)
    assert np.allclose(exact.values, linear_indices(contributions).mean(axis=0), rtol=1e-6)
    sampled = sampled_importance(head, u, Sampling())
    assert np.allclose(sampled.values, exact.values, atol=1e-2)


def test_removals_are_literal(u):
    found, bias = removals(head_of(product, 3), u[:, :3])
    for i in range(3):
        without = u[:, :3].copy()
        without[:, i] = 0
        assert found[i] == pytest.approx((product(u[:, :3]) - product(without)).mean(), rel=1e-6)
    assert bias == 1.0


def test_nothing_contributes():
    assert np.array_equal(linear_indices(np.zeros((2, 3))), np.zeros((2, 3)))
    head = head_of(lambda u: np.full(len(u), 7.0), 3)
    found = sampled_importance(head, np.ones((2, 3), np.float32), Sampling(nb_design=16))
    assert np.array_equal(found.values, np.zeros(3)) and found.bias == 7.0

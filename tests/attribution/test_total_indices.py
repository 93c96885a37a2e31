import numpy as np
import pytest
from scipy.stats import qmc

from craft_onnx.attribution import total_indices as sobol
from craft_onnx.attribution.total_indices import ESTIMATORS, design, designs, masks, total_indices
from craft_onnx.errors import InputError


def indices(function, k, size, estimator="jansen", sampler="sobol", seed=0):
    points = masks(design(sampler, k, size, seed)).astype(np.float64)
    return total_indices(function(points).reshape(k + 1, size), estimator)


def literal_masks(ab):
    n, k = len(ab), ab.shape[1] // 2
    a, b = ab[:, :k], ab[:, k:]
    rows = list(a)
    for i in range(k):
        for j in range(n):
            row = a[j].copy()
            row[i] = b[j, i]
            rows.append(row)
    return np.array(rows)


def literal_indices(name, y_a, y_c):
    """One index, as written in the papers, with loops."""
    n = len(y_a)
    mean_a, mean_c = sum(y_a) / n, sum(y_c) / n
    var_a = sum((y - mean_a) ** 2 for y in y_a) / (n - 1)
    var_c = sum((y - mean_c) ** 2 for y in y_c) / (n - 1)
    product = sum(a * c for a, c in zip(y_a, y_c, strict=True)) / n
    if name == "jansen":
        return sum((a - c) ** 2 for a, c in zip(y_a, y_c, strict=True)) / (2 * n * var_a)
    if name in ("homma", "saltelli"):
        return 1 - (product - mean_a**2) / var_a
    if name == "janon":
        mean = (mean_a + mean_c) / 2
        variance = sum(a**2 + c**2 for a, c in zip(y_a, y_c, strict=True)) / (2 * n) - mean**2
        return 1 - (product - mean**2) / variance
    covariance = sum((a - mean_a) * (c - mean_c) for a, c in zip(y_a, y_c, strict=True)) / (n - 1)
    return 1 - covariance / np.sqrt(var_a * var_c)


def test_masks_are_a_then_a_with_one_column_of_b():
    ab = design("sobol", 4, 8)
    assert np.array_equal(masks(ab), literal_masks(ab))


def test_the_halton_sequence_is_scipys_unscrambled_one():
    expected = qmc.Halton(10, scramble=False).random(32).astype(np.float32)
    assert np.array_equal(design("halton", 5, 32, seed=1), expected)


@pytest.mark.parametrize("sampler", ["sobol", "lhs"])
def test_seeds_decide_and_children_differ(sampler):
    assert np.array_equal(design(sampler, 3, 16, 5), design(sampler, 3, 16, 5))
    assert not np.array_equal(design(sampler, 3, 16, 5), design(sampler, 3, 16, 6))
    several = designs(sampler, 3, 16, 3, 5)
    assert several.shape == (3, 16, 6)
    assert not np.array_equal(several[0], several[1])


@pytest.mark.parametrize("size", [2, 100, 256])
def test_every_sampler_fills_the_cube(size):
    for sampler in ("sobol", "halton", "lhs"):
        points = design(sampler, 5, size)
        assert points.shape == (size, 10) and points.dtype == np.float32
        assert points.min() >= 0 and points.max() <= 1


@pytest.mark.parametrize("name", list(ESTIMATORS))
def test_every_estimator_is_its_formula(name):
    rng = np.random.default_rng(0)
    outputs = rng.normal(size=(3, 5, 16)) + 2
    expected = [[literal_indices(name, y[0], y[1 + i]) for i in range(4)] for y in outputs]
    assert np.allclose(total_indices(outputs, name), expected, rtol=1e-10)


@pytest.mark.parametrize("name", list(ESTIMATORS))
def test_linear_functions_have_a_closed_form(name):
    weights = np.array([3.0, -2.0, 1.0, 0.5, 0.0])
    found = indices(lambda m: m @ weights + 10, 5, 4096, name)
    # 4096 points of a scrambled Sobol sequence; products with a mean of 10 squared cost the others digits.
    assert np.allclose(found, weights**2 / (weights**2).sum(), atol=2e-3 if name in ("jansen", "glen") else 2e-2)


@pytest.mark.parametrize("name", list(ESTIMATORS))
def test_products_have_a_closed_form(name):
    """y = prod (1 + c_i (m_i - 1/2)), v_i = c_i^2 / 12: ST_i = v_i prod_{j != i} (1 + v_j) / (prod (1 + v_j) - 1)."""
    c = np.array([2.0, 1.0, 0.5])
    v = c**2 / 12
    expected = v / (1 + v) * np.prod(1 + v) / (np.prod(1 + v) - 1)
    found = indices(lambda m: np.prod(1 + c * (m - 0.5), axis=1), 3, 8192, name)
    assert np.allclose(found, expected, atol=5e-3)


@pytest.mark.parametrize("name", list(ESTIMATORS))
def test_ishigami(name):
    def ishigami(m):
        x = np.pi * (2 * m - 1)
        return np.sin(x[:, 0]) + 7 * np.sin(x[:, 1]) ** 2 + 0.1 * x[:, 2] ** 4 * np.sin(x[:, 0])

    expected = [0.5575888, 0.4424112, 0.2436837]  # Homma & Saltelli 1996, table 3, in closed form
    found = np.mean([indices(ishigami, 3, 2**13, name, seed=seed) for seed in range(4)], axis=0)
    assert np.abs(found - expected).max() < 1e-3


def test_no_variance_means_no_importance():
    assert np.array_equal(total_indices(np.full((3, 8), 4.2)), np.zeros(2))


def test_equal_concepts_tie_with_the_default_and_not_with_the_peers():
    for k in (10, 20, 25):
        equal = np.mean([indices(lambda m: m.sum(axis=1), k, 256, seed=seed) for seed in range(5)], axis=0)
        assert equal.max() / equal.min() < 1.1
        peers = indices(lambda m: m.sum(axis=1), k, 32, sampler="halton")
        assert peers.max() / peers.min() > 1.5


def test_the_figures_known_of_the_peers_design():
    """k = 20, the first and the last of equal concepts; 0.05 each would be right."""
    found = indices(lambda m: m.sum(axis=1), 20, 32, sampler="halton") * 20
    assert found[0] == pytest.approx(0.199, abs=1e-3)
    assert found[-1] == pytest.approx(0.029, abs=1e-3)


def test_unknown_names_and_sizes():
    with pytest.raises(InputError, match=r"'random'.*sobol"):
        design("random", 3, 8)
    with pytest.raises(InputError, match=r"'saltali'.*jansen"):
        total_indices(np.zeros((3, 8)), "saltali")
    with pytest.raises(InputError, match="1 points"):
        design("sobol", 3, 1)
    assert set(sobol._SAMPLERS) == {"sobol", "halton", "lhs"}


@pytest.mark.parametrize("name", ["jansen", "homma", "saltelli"])
@pytest.mark.parametrize("seldom", [0.0, 1e-5])
def test_what_is_seldom_there_does_not_make_indices_without_bounds(name, seldom):
    # A product of thresholds: the first sample of few points misses it, the others meet it once.
    outputs = np.zeros((5, 8))
    outputs[0, 2], outputs[2, 5], outputs[4, 1] = seldom, 1.0, 0.5
    found = total_indices(outputs, name)
    assert np.abs(found).max() < 5  # a division by the variance of the first sample gives 1e9 and more
    scaled = total_indices(outputs * 1e3, name)
    assert np.allclose(scaled, found)

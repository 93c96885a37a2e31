import numpy as np
import pytest
from scipy.stats import spearmanr

from craft_onnx.attribution.similarity import rank_correlation, structural_similarity

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("ties", [False, True])
def test_rank_correlation_is_scipys(ties):
    a = RNG.normal(size=(4, 6, 7))
    b = a + RNG.normal(size=a.shape)
    if ties:
        a, b = a.round(), b.round()
    expected = [spearmanr(x.ravel(), y.ravel()).statistic for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(rank_correlation(a, b), expected, rtol=1e-12)


def test_only_the_order_counts_and_an_even_map_has_none():
    a = RNG.normal(size=(1, 5, 5))
    assert rank_correlation(a, np.exp(a))[0] == pytest.approx(1)
    assert rank_correlation(a, -a)[0] == pytest.approx(-1)
    assert rank_correlation(a, np.ones((1, 5, 5)))[0] == 0


def literal_ssim(x, y):
    """Wang et al. 2004, position by position, where the window lies inside."""
    offsets = np.arange(-5, 6)
    window = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.5**2))
    window /= window.sum()
    values = {}
    for i in range(5, x.shape[0] - 5):
        for j in range(5, x.shape[1] - 5):
            a, b = x[i - 5 : i + 6, j - 5 : j + 6], y[i - 5 : i + 6, j - 5 : j + 6]
            mean_a, mean_b = (window * a).sum(), (window * b).sum()
            var_a, var_b = (window * (a - mean_a) ** 2).sum(), (window * (b - mean_b) ** 2).sum()
            covariance = (window * (a - mean_a) * (b - mean_b)).sum()
            values[i, j] = ((2 * mean_a * mean_b + 1e-4) * (2 * covariance + 9e-4)) / (
                (mean_a**2 + mean_b**2 + 1e-4) * (var_a + var_b + 9e-4)
            )
    return values


def test_structural_similarity_is_its_formula():
    """A picture repeated by mirroring has the same mean over the whole as inside, so borders do not matter."""
    x, y = RNG.random((2, 16, 16))
    tiled = [np.block([[one, one[:, ::-1]], [one[::-1], one[::-1, ::-1]]]) for one in (x, y)]
    tiled = [(one - one.min()) / np.ptp(one) for one in tiled]
    wide = [np.pad(one, 5, mode="symmetric") for one in tiled]
    expected = np.mean(list(literal_ssim(*wide).values()))
    assert structural_similarity(x[None], y[None])[0] == pytest.approx(expected, rel=1e-9)


def test_equal_maps_are_alike_at_any_scale():
    x = RNG.normal(size=(2, 20, 20))
    np.testing.assert_allclose(structural_similarity(x, 3 * x + 1), 1, rtol=1e-9)
    assert np.abs(structural_similarity(x, RNG.normal(size=x.shape))).max() < 0.3

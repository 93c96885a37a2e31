import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.metrics import pairwise_distances

from craft_onnx.attribution.lime import draw, fit, lime, mean_colours
from craft_onnx.attribution.segments import grid
from craft_onnx.errors import InputError

RNG = np.random.default_rng(0)


def literal_fit(shown, values, kernel_width, alpha):
    """As the lime package does it (lime_image.py, lime_base.py): scikit-learn's ridge and cosine distance."""
    distances = pairwise_distances(shown.astype(float), np.ones((1, shown.shape[1])), metric="cosine").ravel()
    weights = np.sqrt(np.exp(-(distances**2) / kernel_width**2))
    return Ridge(alpha=alpha, fit_intercept=True).fit(shown, values, sample_weight=weights).coef_


@pytest.mark.parametrize("kernel_width, alpha", [(0.25, 1.0), (0.1, 0.01), (2.0, 30.0)])
def test_it_is_the_fit_of_the_lime_package(kernel_width, alpha):
    shown = draw(9, 80, 1)
    shown[5] = False  # nothing shown: the cosine distance is 1
    values = RNG.normal(size=80) + 5
    expected = literal_fit(shown, values, kernel_width, alpha)
    np.testing.assert_allclose(fit(shown, values, kernel_width, alpha), expected, rtol=1e-9)


def test_maps_show_the_coefficients_of_segments(model, inputs):
    labels = grid((12, 12), 3, 4)
    maps = lime(model, inputs[:2], 1, segments=(3, 4), n_samples=50, seed=2, baseline="mean")
    shown, hidden = draw(12, 50, 2), mean_colours(inputs, [labels] * 5, (1, 2, 3))
    for i in range(2):
        copies = np.stack([np.where(one[labels], inputs[i], hidden[i]) for one in shown])
        expected = literal_fit(shown, model.predict(copies)[:, 1], 0.25, 1.0)
        np.testing.assert_allclose(maps[i], expected[labels], atol=1e-6)


def test_mean_colours():
    x, labels = RNG.normal(size=(1, 6, 6, 3)), grid((6, 6), 2, 3)
    flat = mean_colours(x, [labels], (3, 1, 2))
    for label in range(6):
        inside = labels == label
        np.testing.assert_allclose(flat[0][inside], np.broadcast_to(x[0][inside].mean(axis=0), (6, 3)), rtol=1e-12)


def test_additive_models_are_explained():
    weights = RNG.normal(size=(4, 4)).repeat(2, 0).repeat(2, 1)
    x = np.ones((1, 3, 8, 8))
    maps = lime(lambda rows: (rows * weights).sum(axis=(1, 2, 3))[:, None], x, 0, segments=4, baseline=0, alpha=1e-9)
    np.testing.assert_allclose(maps[0], 12 * weights, rtol=1e-5)


def test_samples_are_fair_and_the_first_is_whole():
    shown = draw(20, 5000)
    assert shown[0].all() and shown[1:].mean() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("options", [{"n_samples": 1}, {"kernel_width": 0}, {"alpha": -1}])
def test_senseless_options(model, inputs, options):
    with pytest.raises(InputError, match="fit no model"):
        lime(model, inputs, 0, **options)

import numpy as np
import pytest

from craft_onnx.attribution.attribute import attribute
from craft_onnx.attribution.integrated import integrated_gradients, nodes
from craft_onnx.attribution.targets import Channel, LinearCombination
from craft_onnx.errors import InputError


class LinearModel:
    """Logits x . w, with the reverse pass written out."""

    layout, classes, cut = "NCHW", 4, None

    def __init__(self, shape):
        self.w = np.random.default_rng(0).standard_normal((self.classes, *shape)).astype(np.float32)

    def predict(self, x, batch_size=16):
        return np.einsum("nchw,kchw->nk", x, self.w)

    def vjp(self, x, of="logits", rules="gradient"):
        return self.predict(x), lambda dy: np.einsum("nk,kchw->nchw", dy, self.w)


@pytest.mark.parametrize("steps", [1, 2, 20])
@pytest.mark.parametrize("quadrature", ["gauss_legendre", "midpoint"])
def test_a_linear_model_is_explained_exactly(inputs, steps, quadrature):
    model = LinearModel(inputs.shape[1:])
    found = attribute(model, inputs, 2, steps=steps, quadrature=quadrature, baseline=0.5, channels=None)
    np.testing.assert_allclose(found.maps, (inputs - 0.5) * model.w[2], rtol=1e-5, atol=1e-6)
    assert found.residual.max() < 1e-4  # float32 sums of 432 terms


def test_maps_add_up_as_the_steps_grow(model, inputs):
    residuals = [attribute(model, inputs, 1, steps=steps, baseline="blur").residual for steps in (1, 10, 400)]
    assert residuals[0].max() > residuals[1].max() > residuals[2].max()
    assert residuals[2].max() < 5e-3  # the integrand jumps where a ReLU switches


def test_the_residual_is_what_the_sum_misses(model, inputs):
    result = attribute(model, inputs, [0, 1, 2, 3, 4], steps=3)
    change = result.values - model.predict(np.zeros_like(inputs[:1]))[0]
    np.testing.assert_allclose(
        result.residual, np.abs(result.maps.sum(axis=(1, 2)) - change) / np.abs(change), rtol=1e-3, atol=1e-5
    )


@pytest.mark.parametrize("steps", [1, 3, 8])
def test_gauss_legendre_integrates_polynomials_exactly(steps):
    points, weights = nodes("gauss_legendre", steps)
    degrees = np.arange(2 * steps)
    np.testing.assert_allclose(weights @ points[:, None] ** degrees, 1 / (degrees + 1), rtol=1e-12)


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_batches_change_nothing(model, inputs, batch_size):
    expected = integrated_gradients(model, inputs, 1, steps=6, batch_size=6)
    found = integrated_gradients(model, inputs, 1, steps=6, batch_size=batch_size)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)  # float32 kernels differ by batch


def test_a_combination_is_the_combination_of_the_maps(model, inputs):
    weights = np.array([1, -2, 0, 0.5, 0])
    parts = [integrated_gradients(model, inputs, k, steps=4) * weights[k] for k in range(5)]
    found = integrated_gradients(model, inputs, LinearCombination(weights), steps=4)
    np.testing.assert_allclose(found, np.sum(parts, axis=0), rtol=1e-4, atol=1e-5)


def test_a_channel_is_explained_at_the_cut(model, inputs):
    result = attribute(model, inputs, Channel(3), steps=200)
    np.testing.assert_allclose(result.values, model.g(inputs)[:, 3].mean(axis=(1, 2)), rtol=1e-5)
    assert result.residual.max() < 2e-2


def test_progress_counts_gradients(model, inputs):
    told = []
    integrated_gradients(
        model, inputs, 1, steps=4, batch_size=8, progress=lambda done, total: told.append((done, total))
    )
    assert told == [(8, 20), (16, 20), (20, 20)]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"steps": 0}, "0 steps are none."),
        ({"quadrature": "simpson"}, "There is no quadrature 'simpson'."),
        ({"baseline": "pink"}, "There is no baseline 'pink'."),
        ({"baseline": "black"}, "The model does not say how pictures become its input"),
        ({"baseline": np.zeros((2, 2))}, "A baseline of shape (2, 2) does not fit"),
        ({"batch_size": 0}, "batch_size 0 is not positive."),
    ],
)
def test_mistakes(model, inputs, options, problem):
    with pytest.raises(InputError) as caught:
        integrated_gradients(model, inputs, 1, **options)
    assert caught.value.problem.startswith(problem) and caught.value.remedy

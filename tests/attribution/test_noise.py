import numpy as np
import pytest

from craft_onnx.attribution.gradients import gradient
from craft_onnx.attribution.noise import noise_of, smoothgrad, squaregrad, vargrad
from craft_onnx.attribution.targets import Logit
from craft_onnx.errors import InputError

SAMPLES = 6


@pytest.fixture(scope="module")
def gradients(model, inputs):
    """Gradients of every noisy copy, one at a time: (samples, n, ...)."""
    spans = np.ptp(inputs.reshape(len(inputs), -1), axis=1)
    found = np.empty((SAMPLES, *inputs.shape))
    for row, draw in np.ndindex(len(inputs), SAMPLES):
        noise = noise_of(inputs.shape[1:], np.array([row]), np.array([draw]), seed=3)
        found[draw, row] = gradient(model, inputs[row : row + 1] + 0.2 * spans[row] * noise, Logit(4))[0]
    return found


@pytest.mark.parametrize(
    ("method", "moment"),
    [(smoothgrad, np.mean), (vargrad, np.var), (squaregrad, lambda g, axis: np.mean(g**2, axis=axis))],
)
@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_moments_of_gradients_one_at_a_time(model, inputs, gradients, method, moment, batch_size):
    found = method(model, inputs, 4, samples=SAMPLES, noise=0.2, seed=3, channels=None, batch_size=batch_size)
    np.testing.assert_allclose(found, moment(gradients, axis=0), rtol=1e-4, atol=1e-6)


def test_the_noise_is_normal_and_that_of_the_seed():
    rows, draws = np.divmod(np.arange(40), 20)
    noise = noise_of((3, 20, 20), rows, draws, seed=0)
    assert abs(noise.mean()) < 0.02 and abs(noise.std() - 1) < 0.02  # 5 standard errors of 48000 numbers
    assert np.abs(np.corrcoef(noise.reshape(40, -1)) - np.eye(40)).max() < 0.15
    np.testing.assert_array_equal(noise[25:], noise_of((3, 20, 20), rows[25:], draws[25:], seed=0))
    assert not np.isclose(noise, noise_of((3, 20, 20), rows, draws, seed=1)).all()


def test_without_noise_it_is_the_gradient(model, inputs):
    np.testing.assert_allclose(
        smoothgrad(model, inputs, 1, noise=0, samples=2, channels=None), gradient(model, inputs, Logit(1)), rtol=1e-6
    )
    assert vargrad(model, inputs, 1, stdev=0, samples=2).max() < 1e-12


def test_mistakes(model, inputs):
    with pytest.raises(InputError, match="0 samples are none"):
        smoothgrad(model, inputs, 1, samples=0)
    with pytest.raises(InputError, match=r"Noise of -0.1 is negative"):
        vargrad(model, inputs, 1, noise=-0.1)

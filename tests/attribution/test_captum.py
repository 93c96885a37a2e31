"""The same options, the same numbers as Captum on the same network."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
captum = pytest.importorskip("captum.attr")

from craft_onnx.attribution.cam import gradcam  # noqa: E402
from craft_onnx.attribution.gradients import deconvnet, gradient_input, guided_backprop, saliency  # noqa: E402
from craft_onnx.attribution.integrated import integrated_gradients  # noqa: E402
from craft_onnx.attribution.noise import noise_of, smoothgrad, squaregrad, vargrad  # noqa: E402

CLASSES = [0, 1, 2, 3, 4]
# Two float32 evaluations of the same formula, of sums over up to 50 terms.
CLOSE = {"rtol": 2e-5, "atol": 2e-6}
SAMPLES, STDEV, SEED = 8, 0.3, 5


@pytest.fixture(scope="module")
def network(halves):
    return torch.nn.Sequential(*halves)


@pytest.fixture(scope="module")
def tensor(inputs):
    return torch.tensor(inputs)


def attributed(captums, tensor, **options):
    return captums.attribute(tensor.clone(), target=torch.tensor(CLASSES), **options).detach().numpy()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (saliency, captum.Saliency),
        (gradient_input, captum.InputXGradient),
        (guided_backprop, captum.GuidedBackprop),
        (deconvnet, captum.Deconvolution),
    ],
)
@pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU activations")
@pytest.mark.filterwarnings("ignore:Setting forward, backward hooks")
@pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients")
def test_one_gradient(either, network, inputs, tensor, ours, theirs):
    expected = attributed(theirs(network), tensor)
    np.testing.assert_allclose(ours(either, inputs, CLASSES, channels=None, batch_size=2), expected, **CLOSE)


@pytest.mark.parametrize("quadrature", ["gauss_legendre", "midpoint"])
@pytest.mark.parametrize("baseline", ["zero", "given"])
@pytest.mark.parametrize("steps", [2, 7, 50])
def test_integrated_gradients(either, network, inputs, tensor, quadrature, baseline, steps):
    start = np.zeros_like(inputs) if baseline == "zero" else np.roll(inputs, 1, axis=0)
    theirs = {"gauss_legendre": "gausslegendre", "midpoint": "riemann_middle"}[quadrature]
    expected = attributed(
        captum.IntegratedGradients(network), tensor, baselines=torch.tensor(start), n_steps=steps, method=theirs
    )
    options = {"baseline": "zero" if baseline == "zero" else start, "steps": steps, "quadrature": quadrature}
    found = integrated_gradients(either, inputs, CLASSES, channels=None, batch_size=8, **options)
    np.testing.assert_allclose(found, expected, **CLOSE)


@pytest.mark.parametrize(
    ("ours", "kind"), [(smoothgrad, "smoothgrad"), (vargrad, "vargrad"), (squaregrad, "smoothgrad_sq")]
)
@pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients")
def test_noise(either, network, inputs, tensor, monkeypatch, ours, kind):
    rows, draws = np.divmod(np.arange(len(inputs) * SAMPLES), SAMPLES)
    normal = torch.tensor(noise_of(inputs.shape[1:], rows, draws, SEED))
    monkeypatch.setattr(torch, "normal", lambda mean, deviation: mean + deviation * normal)
    tunnel = captum.NoiseTunnel(captum.Saliency(network))
    expected = attributed(tunnel, tensor, nt_type=kind, nt_samples=SAMPLES, stdevs=STDEV, abs=False)
    options = {"samples": SAMPLES, "stdev": STDEV, "seed": SEED, "channels": None, "batch_size": 7}
    np.testing.assert_allclose(ours(either, inputs, CLASSES, **options), expected, **CLOSE)


@pytest.mark.parametrize("relu", [True, False])
def test_gradcam(either, network, halves, inputs, tensor, relu):
    layer = captum.LayerGradCam(network, halves[0])
    small = attributed(layer, tensor, relu_attributions=relu)
    large = captum.LayerAttribution.interpolate(torch.tensor(small), inputs.shape[2:], "bilinear").numpy()
    options = {"relu": relu, "batch_size": 2}
    np.testing.assert_allclose(gradcam(either, inputs, CLASSES, upsample=False, **options), small[:, 0], **CLOSE)
    np.testing.assert_allclose(gradcam(either, inputs, CLASSES, **options), large[:, 0], **CLOSE)

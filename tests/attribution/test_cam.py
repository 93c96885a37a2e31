"""Grad-CAM++ and ReciproCAM against their equations written out position by position."""

import numpy as np
import pytest

from craft_onnx.attribution.cam import gradcam, gradcam_pp, reciprocam
from craft_onnx.attribution.targets import Channel
from craft_onnx.errors import CraftWarning, InputError

CLASSES = [4, 3, 2, 1, 0]


def activations_and_gradients(model, inputs):
    a = model.g(inputs)
    logits, pullback = model.vjp_h(a)
    dy = np.zeros_like(logits)
    dy[np.arange(len(dy)), CLASSES] = 1
    return a.astype(np.float64), pullback(dy).astype(np.float64), logits.astype(np.float64)


def test_gradcam_pp_is_the_papers(model, inputs):
    a, g, logits = activations_and_gradients(model, inputs)
    n, channels, h, w = a.shape
    expected = np.zeros((n, h, w))
    for s in range(n):
        y = np.exp(logits[s, CLASSES[s]])
        for k in range(channels):
            weight = 0.0
            for i, j in np.ndindex(h, w):  # derivatives of Y = exp(S) where S is piecewise linear (equation 19)
                first, second, third = (y * g[s, k, i, j] ** order for order in (1, 2, 3))
                below = 2 * second + a[s, k].sum() * third
                weight += (second / below if below else 0) * max(first, 0)
            expected[s] += weight * a[s, k]
        expected[s] = np.maximum(expected[s], 0) / y
    found = gradcam_pp(model, inputs, CLASSES, upsample=False, batch_size=2)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("gaussian", [True, False])
@pytest.mark.parametrize("batch_size", [1, 3, 50])
def test_reciprocam_is_the_papers(model, inputs, gaussian, batch_size):
    a = model.g(inputs)
    kernel = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16
    expected = np.zeros((len(a), *a.shape[2:]))
    for s in range(len(a)):
        for i, j in np.ndindex(*a.shape[2:]):
            alone = np.zeros_like(a[s])
            for di, dj in np.ndindex(3, 3):
                u, v = i + di - 1, j + dj - 1
                if gaussian and 0 <= u < a.shape[2] and 0 <= v < a.shape[3]:
                    alone[:, u, v] = a[s, :, u, v] * kernel[di, dj]
            if not gaussian:
                alone[:, i, j] = a[s, :, i, j]
            powers = np.exp(model.h(alone[None])[0])
            expected[s, i, j] = powers[CLASSES[s]] / powers.sum()
    options = {"gaussian": gaussian, "upsample": False, "batch_size": batch_size}
    np.testing.assert_allclose(reciprocam(model, inputs, CLASSES, normalise=False, **options), expected, rtol=1e-6)
    low, high = expected.min(axis=(1, 2), keepdims=True), expected.max(axis=(1, 2), keepdims=True)
    # Probabilities that differ by a thousandth, with the rounding of float32, brought to 0..1.
    np.testing.assert_allclose(
        reciprocam(model, inputs, CLASSES, **options), (expected - low) / (high - low), atol=5e-4
    )


def test_reciprocam_can_read_logits(model, inputs):
    found = reciprocam(model, inputs, CLASSES, gaussian=False, softmax=False, normalise=False, upsample=False)
    a = model.g(inputs)
    alone = np.zeros_like(a[:1])
    alone[0, :, 2, 5] = a[1, :, 2, 5]
    np.testing.assert_allclose(found[1, 2, 5], model.h(alone)[0, CLASSES[1]], rtol=1e-5)


@pytest.mark.parametrize("method", [gradcam, gradcam_pp, reciprocam])
def test_channels_last_makes_no_difference(model, channels_last, inputs, method):
    pictures = np.ascontiguousarray(inputs.transpose(0, 2, 3, 1))
    expected = method(model, inputs, CLASSES)
    np.testing.assert_allclose(method(channels_last, pictures, CLASSES), expected, rtol=1e-4, atol=1e-6)


def test_a_target_of_the_activations_is_differentiated_where_it_is_read(model, inputs):
    """The mean of a channel: its derivative is 1 / positions, in that channel alone."""
    channels = [0, 3, 5, 7, 2]
    a = model.g(inputs)[np.arange(5), channels].astype(np.float64)
    share = 1 / a[0].size
    options = {"upsample": False, "batch_size": 2}
    # Convolutions of other batches round otherwise: 1e-7 of activations of 1, over 36 positions.
    np.testing.assert_allclose(gradcam(model, inputs, Channel(channels), **options), share * a, rtol=1e-6, atol=1e-8)
    total = a.sum(axis=(1, 2), keepdims=True)
    weight = a[0].size * share * share**2 / (2 * share**2 + total * share**3)
    np.testing.assert_allclose(
        gradcam_pp(model, inputs, Channel(channels), **options), weight * a, rtol=1e-5, atol=1e-8
    )


@pytest.mark.parametrize("batch_size", [1, 7, 500])
def test_reciprocam_of_a_channel_is_the_channel(model, inputs, batch_size):
    options = {"gaussian": False, "normalise": False, "upsample": False, "batch_size": batch_size}
    a = model.g(inputs)[np.arange(5), [0, 3, 5, 7, 2]]
    found = reciprocam(model, inputs, Channel([0, 3, 5, 7, 2]), **options)
    np.testing.assert_allclose(found, a / a[0].size, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("method", [gradcam, gradcam_pp, reciprocam])
def test_a_target_of_the_activations_needs_no_gradient_graph(model, inputs, method):
    class Plain:
        layout, cut = model.layout, model.cut
        predict, g, h = model.predict, model.g, model.h

    np.testing.assert_array_equal(method(Plain(), inputs, Channel(1)), method(model, inputs, Channel(1)))
    if method is not reciprocam:
        with pytest.raises(InputError, match="needs gradients at a cut"):
            method(Plain(), inputs, 1)


class Tokens:
    """A head over tokens (n, 1 + rows * columns, p) that reads the class token and weighs the others."""

    layout, classes = "NCHW", 3

    def __init__(self, rows, columns, extra=1, p=4):
        rng = np.random.default_rng(0)
        self.count = extra + rows * columns
        self.w = rng.standard_normal((3, self.count, p)).astype(np.float32)
        self.embed = rng.standard_normal((self.count, p)).astype(np.float32)
        self.cut = type("Spec", (), {"channel_axis": 2})()

    def g(self, x, batch_size=16):
        return np.abs(x.mean(axis=(1, 2, 3))[:, None, None] + self.embed)

    def h(self, a, batch_size=16):
        rows = [a] if isinstance(a, np.ndarray) else list(a)
        return np.einsum("ntp,ktp->nk", np.concatenate(rows), self.w)

    def predict(self, x, batch_size=16):
        return self.h(self.g(x))

    def vjp(self, x, of="logits", rules="gradient"):
        raise NotImplementedError

    def vjp_h(self, a, rules="gradient"):
        return self.h(a), lambda dy: np.einsum("nk,ktp->ntp", dy, self.w)


@pytest.mark.parametrize("extra", [0, 1])
def test_tokens_are_mapped_to_the_grid(extra):
    model = Tokens(2, 3, extra)
    x = np.random.default_rng(1).standard_normal((2, 3, 16, 24)).astype(np.float32)
    a, w = model.g(x)[:, extra:], model.w[1, extra:]
    expected = np.maximum(a @ w.mean(axis=0), 0).reshape(2, 2, 3)
    np.testing.assert_allclose(gradcam(model, x, 1, upsample=False), expected, rtol=1e-5, atol=1e-6)
    options = {"gaussian": False, "softmax": False, "normalise": False, "upsample": False}
    class_token = (model.g(x)[:, :extra] * model.w[1, :extra]).sum(axis=(1, 2))
    expected = class_token[:, None, None] + (a * w).sum(axis=2).reshape(2, 2, 3)
    np.testing.assert_allclose(reciprocam(model, x, 1, **options), expected, rtol=1e-5)


@pytest.mark.parametrize("method", [gradcam, gradcam_pp, reciprocam])
def test_a_head_that_reads_the_class_token_alone_is_warned_of(method):
    model = Tokens(2, 3)
    model.w[:, 1:] = 0
    x = np.random.default_rng(1).standard_normal((2, 3, 16, 24)).astype(np.float32)
    with pytest.warns(CraftWarning, match="only the class token is read"):
        assert not method(model, x, 1).any()


def test_tokens_that_are_no_grid_are_refused():
    x = np.zeros((1, 3, 16, 24), np.float32)
    with pytest.raises(InputError, match="no grid over a picture of 16 x 24") as caught:
        gradcam(Tokens(2, 3, extra=15), x, 1)
    assert caught.value.remedy

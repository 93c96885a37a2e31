"""A small convolutional network and pictures for it, made from a seed with numpy alone: no framework is needed."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

CLASSES = 5
CHANNELS = 24


def network(seed=7):
    """Weights: two strided convolutions (g), and two heads, linear and with a hidden layer (h)."""
    rng = np.random.default_rng(seed)

    def draw(*shape):
        fan_in = int(np.prod(shape[1:]))
        return (rng.normal(size=shape) * np.sqrt(2 / fan_in)).astype(np.float32)

    def bias(size):
        return rng.normal(size=size, scale=0.1).astype(np.float32)

    return {
        "conv1": (draw(12, 3, 5, 5), bias(12)),
        "conv2": (draw(CHANNELS, 12, 3, 3), bias(CHANNELS)),
        "linear": (draw(CLASSES, CHANNELS), bias(CLASSES)),
        "hidden": (8 * draw(16, CHANNELS), bias(16)),
        "out": (draw(CLASSES, 16), bias(CLASSES)),
    }


def pictures(count=12, height=48, width=40, seed=3):
    """(N, 3, H, W) float32 in 0..1: coloured waves and a bright disc, not square on purpose."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    images = np.empty((count, 3, height, width), np.float32)
    for image in images:
        for plane in image:
            wave = np.sin(x * rng.uniform(0.1, 0.9) + rng.uniform(0, 6)) * np.cos(y * rng.uniform(0.1, 0.9))
            disc = np.hypot(x - rng.uniform(5, width - 5), y - rng.uniform(5, height - 5)) < rng.uniform(4, 9)
            plane[:] = 0.35 + 0.25 * wave + 0.3 * disc
    return images


def convolve(x, weight, bias, stride=2):
    """Convolution without padding, then ReLU: (N, C, H, W) to (N, D, H', W')."""
    size = weight.shape[-1]
    windows = sliding_window_view(x, (size, size), (2, 3))[:, :, ::stride, ::stride]
    out = np.tensordot(windows, weight, ((1, 4, 5), (1, 2, 3))) + bias
    return np.maximum(out, 0).transpose(0, 3, 1, 2).astype(np.float32)


def first_half(weights):
    """g: images to activations (N, 24, H', W')."""
    return lambda x: convolve(convolve(x, *weights["conv1"]), *weights["conv2"])


def second_half(weights, head):
    """h: activations to logits, through the head "linear" or "mlp"."""

    def linear(a):
        weight, bias = weights["linear"]
        return a.mean(axis=(2, 3)) @ weight.T + bias

    def mlp(a):
        hidden = np.maximum(a.mean(axis=(2, 3)) @ weights["hidden"][0].T + weights["hidden"][1], 0)
        return hidden @ weights["out"][0].T + weights["out"][1]

    return {"linear": linear, "mlp": mlp}[head]

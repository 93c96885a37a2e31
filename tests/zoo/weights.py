"""Random weights under which every part of a network matters, and random pictures that differ."""

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def varied(weights: Array, rng: np.random.Generator) -> Array | None:
    """Random numbers in place of weights that are all the same; None where they are random already.

    Frameworks begin with biases of 0, scales of 1, layer scales of 1e-6 and, often, a last layer of zeros: a wrong
    derivative would not show.
    """
    value = float(weights.flat[0])
    if weights.size == 0 or (weights != value).any() or (weights.size == 1 and value):
        return None
    if value == 0 and weights.ndim > 1:
        return rng.standard_normal(weights.shape) / math.sqrt(math.prod(weights.shape[1:]))
    if value == 0:
        return rng.normal(0, 0.1, weights.shape) if weights.size > 1 else np.full(weights.shape, 0.3)
    low, high = (0.1, 0.5) if abs(value) < 0.5 else (0.5 * value, 1.5 * value)
    return rng.uniform(low, high, weights.shape)


def statistics(x: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """Mean and variance for a BatchNormalization, from its input x (n, channels): what comes out is about 1 in size.

    The true mean would leave small differences of large numbers, the true variance of an idle channel would blow up
    what little it has: layer by layer, such a network amplifies rounding, as trained ones do not.
    """
    mean = 0.1 * rng.standard_normal(x.shape[1]) * np.sqrt((x**2).mean(0))
    variance = ((x - mean) ** 2).mean(0)
    return mean, np.maximum(variance, variance.mean())


def calibration(shape: tuple[int, ...]) -> Array:
    """Pictures to take such statistics from, with structure and without: (32, *shape)."""
    rng = np.random.default_rng(2)
    return np.concatenate([pictures(16, shape, rng), rng.standard_normal((16, *shape), np.float32)])


def pictures(count: int, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Random pictures with structure of every size, of unit variance: (count, *shape).

    White noise alone looks the same to a deep network wherever it looks.
    """
    channels_last = shape[-1] == 3
    side, channels = shape[1 if channels_last else 2], shape[2 if channels_last else 0]
    found = np.stack([_picture(side, channels, rng) for _ in range(count)])
    return np.ascontiguousarray(found if channels_last else found.transpose(0, 3, 1, 2))


def _picture(side: int, channels: int, rng: np.random.Generator) -> Array:
    """The sum of noise at several scales, each of the same contrast."""
    layers = [rng.standard_normal((cells, cells, channels), np.float32) for cells in (2, 4, 16, side)]
    enlarged = [cv2.resize(layer, (side, side), interpolation=cv2.INTER_NEAREST) for layer in layers]
    return np.sum(enlarged, axis=0) / np.sqrt(np.float32(len(layers)))

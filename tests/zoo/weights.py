"""Random weights under which every part of a network matters."""

import math
from typing import Any

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

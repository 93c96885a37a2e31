"""The differentiable arithmetic of preprocessing is that of `preprocess`; its way back is the adjoint."""

import numpy as np
import pytest

from craft_onnx.description import Preprocessing
from craft_onnx.relevance.pixels import as_input, pixel_cotangent
from craft_onnx.runtime.preprocess import preprocess

RNG = np.random.default_rng(0)
PICTURES = RNG.integers(0, 256, (3, 5, 4, 3), dtype=np.uint8)
RULES = [
    Preprocessing.preset(name, (5, 4), layout)
    for name in ("torch", "caffe", "tf", "none")
    for layout in ("NCHW", "NHWC")
] + [Preprocessing((5, 4), "NHWC", "gray", 1 / 255, (0.4,), (0.2,))]


@pytest.mark.parametrize("rule", RULES)
def test_pictures_become_what_preprocessing_makes_of_them(rule):
    expected = preprocess(PICTURES, rule)
    actual = as_input(PICTURES.astype(np.float32) / 255, rule)
    assert actual.dtype == np.float32 and actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("rule", RULES)
def test_the_way_back_is_the_adjoint(rule):
    pictures = RNG.random((3, 5, 4, 3)).astype(np.float32)
    offset = as_input(np.zeros_like(pictures), rule)
    dx = RNG.standard_normal(offset.shape).astype(np.float32)
    expected = ((as_input(pictures, rule).astype(np.float64) - offset) * dx).sum(axis=(1, 2, 3))
    actual = (pixel_cotangent(dx, rule).astype(np.float64) * pictures).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())  # float32

"""The proof itself: it must pass what is right, however rough, and fail what is wrong by a tenth."""

import numpy as np
import pytest

from craft_onnx.errors import CheckFailed
from craft_onnx.runtime.derivative import TOLERANCE, derivative_error, require_derivative

RNG = np.random.default_rng(0)
W = [RNG.standard_normal((60, 60)).astype(np.float32) / 5 for _ in range(4)]
X = RNG.standard_normal((2, 60)).astype(np.float32)


def relu_net(x):
    for w in W:
        x = np.maximum(x @ w, 0)
    return x[:, :7]


def relu_vjp(x, cotangent, factor=1.0):
    steps = [x := np.maximum(x @ w, 0) for w in W]
    dx = np.zeros_like(steps[-1], dtype=np.float64)
    dx[:, :7] = cotangent
    for w, y in zip(W[::-1], steps[::-1], strict=True):
        dx = (dx * (y > 0)) @ w.T
    return (factor * dx).astype(np.float32)


def smooth(x):
    return np.tanh(x @ W[0])


def smooth_vjp(x, cotangent, factor=1.0):
    return (factor * (cotangent * (1 - smooth(x) ** 2)) @ W[0].T).astype(x.dtype)


NETS = {"relu": (relu_net, relu_vjp), "smooth": (smooth, smooth_vjp)}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("net", NETS)
def test_right_passes_and_wrong_by_a_tenth_fails(net, seed):
    function, vjp = NETS[net]
    assert derivative_error(function, vjp, X, seed) <= TOLERANCE / 2
    for factor in (0.9, 1.1):
        assert derivative_error(function, lambda x, c, factor=factor: vjp(x, c, factor), X, seed) > TOLERANCE


def test_a_missing_branch_fails():
    """What is left out need not be proportional to the whole."""

    def half(x, cotangent):
        dx = smooth_vjp(x, cotangent)
        dx[:, ::2] = 0
        return dx

    assert derivative_error(smooth, half, X) > 2 * TOLERANCE


def test_half_precision():
    def coarse(x):
        return (smooth(x).astype(np.float16) * np.float16(3)).astype(np.float16)

    x = X.astype(np.float16)
    assert derivative_error(coarse, lambda x, c: 3 * smooth_vjp(x, c), x) <= TOLERANCE / 2
    assert derivative_error(coarse, lambda x, c: 3.3 * smooth_vjp(x, c), x) > TOLERANCE


def test_the_size_of_the_input_does_not_matter():
    for scale in (1e-3, 1e3):
        error = derivative_error(
            lambda x, scale=scale: smooth(x / scale),
            lambda x, c, scale=scale: smooth_vjp(x / scale, c) / scale,
            (X * scale).astype(np.float32),
        )
        assert error <= TOLERANCE / 2


def test_what_cannot_be_compared():
    assert derivative_error(smooth, lambda x, c: np.full_like(x, np.nan), X) == np.inf
    assert derivative_error(smooth, lambda x, c: x[:, :1], X) == np.inf
    assert derivative_error(np.zeros_like, lambda x, c: np.zeros_like(x), X) == 0
    assert derivative_error(np.zeros_like, lambda x, c: np.ones_like(x), X) == 1
    with pytest.raises(CheckFailed, match=r"The graph is off by 6.0e-02 from a finite difference"):
        require_derivative("The graph", 0.06)
    with pytest.raises(CheckFailed, match="nan"):
        require_derivative("The graph", float("nan"))

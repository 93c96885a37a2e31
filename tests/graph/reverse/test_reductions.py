"""Gradients of reductions."""

import numpy as np
import onnx_ir as ir
import pytest
import torch
from support.gradient_oracle import assert_close, check_node, evaluate, one_node, run

from craft_onnx.errors import UnsupportedOperator
from craft_onnx.graph.reverse.vjp import gradient_graph

RNG = np.random.default_rng(3)
# Numbers far from each other, and from zero: no ties and no kinks.
X = (RNG.permutation(120).reshape(2, 3, 4, 5) - 59.5) / 30
POSITIVE = np.abs(X) + 0.1
AXES = [(2, 3), (-1,), (1,), (0, -2), None]


def _all(function):
    """A function of PyTorch over one axis, or over several, one after the other."""

    def over(x, axes, keepdims):
        for axis in sorted((axis % x.ndim for axis in axes), reverse=True):
            x = function(x, axis, keepdims)
        return x

    return over


TORCH = {
    "ReduceSum": torch.sum,
    "ReduceMean": torch.mean,
    "ReduceMax": torch.amax,
    "ReduceMin": torch.amin,
    "ReduceL1": lambda x, axes, keep: x.abs().sum(axes, keep),
    "ReduceL2": lambda x, axes, keep: torch.linalg.vector_norm(x, 2, axes, keep),
    "ReduceSumSquare": lambda x, axes, keep: (x * x).sum(axes, keep),
    "ReduceLogSum": lambda x, axes, keep: x.sum(axes, keep).log(),
    "ReduceLogSumExp": torch.logsumexp,
    "ReduceProd": _all(torch.prod),
}


def check(name, x, axes, attributes=None, *, keepdims=1, **options):
    every = tuple(range(x.ndim)) if axes is None else axes
    check_node(
        name,
        [x, None if axes is None else np.array(axes)],
        {"keepdims": keepdims, **(attributes or {})},
        torch=lambda x, *_: TORCH[name](x, every, bool(keepdims)),
        **options,
    )


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("axes", AXES, ids=str)
@pytest.mark.parametrize("name", TORCH)
def test_reductions(name, axes, keepdims):
    check(name, POSITIVE if name == "ReduceLogSum" else X, axes, keepdims=keepdims)


@pytest.mark.parametrize("name", TORCH)
def test_axes_as_an_attribute_and_none(name):
    """Opset 18 has axes as an input of every reduction; nothing to reduce is the function of each number alone."""
    check_node(name, [POSITIVE], {"noop_with_empty_axes": 1}, torch=lambda x: TORCH[name](x[None], (0,), False))
    check_node(name, [POSITIVE, np.array([], np.int64)], torch=lambda x, _: TORCH[name](x, (0, 1, 2, 3), True))


def gradient(name, x, cotangent, **attributes):
    model = one_node(name, [x, np.array([1])], attributes=attributes, dtype=np.float64)
    return evaluate(gradient_graph(model), input_0=x, cotangent=np.array(cotangent, float).reshape(-1, 1))


@pytest.mark.parametrize("name", ["ReduceMax", "ReduceMin"])
def test_equal_extrema_share(name):
    sign = 1.0 if name == "ReduceMax" else -1.0
    x = sign * np.array([[3.0, 1, 3, 3], [0, 0, 0, 0]])
    given = torch.tensor(x, requires_grad=True)
    y = TORCH[name](given, (1,), True)
    expected = torch.autograd.grad(y, given, torch.tensor([[6.0], [8.0]], dtype=torch.float64))[0]
    np.testing.assert_array_equal(gradient(name, x, [6, 8]), expected)
    np.testing.assert_array_equal(expected, [[2, 0, 2, 2], [2, 2, 2, 2]])


def test_a_norm_of_nothing():
    np.testing.assert_array_equal(gradient("ReduceL2", np.array([[0.0, 0], [3, 4]]), [7, 10]), [[0, 0], [6, 8]])


def test_products_with_zeros():
    x = np.array([[2.0, 3, 5], [2, 0, 5], [0, 3, 0]])
    np.testing.assert_allclose(gradient("ReduceProd", x, [1, 1, 1]), [[15, 10, 6], [0, 10, 0], [0, 0, 0]])


def test_products_with_zeros_along_all_axes():
    x = X.copy()
    x[1, 2, 3, 4] = 0
    check("ReduceProd", x[:, :1], (0, 2))
    check("ReduceProd", x[1:, 2:, 3:], None)


def test_the_exponential_does_not_overflow():
    x = np.array([[1000.0, 1001, 0]])
    weights = np.exp([-1, 0]) / np.exp([-1, 0]).sum()
    assert_close(gradient("ReduceLogSumExp", x, [1]), [[*weights, 0]], 1e-12, "softmax")


def test_axes_that_are_computed():
    model = one_node("ReduceSum", [X, np.array([1])])
    axes = model.graph.node(0).inputs[1]
    model.graph.initializers.pop(axes.name)
    axes.const_value = None
    shape = ir.node("Shape", [model.graph.inputs[0]], {"start": 0, "end": 1}, name="shape")
    model.graph.insert_before(model.graph.node(0), shape)
    shape.outputs[0].name = "axes"
    model.graph.node(1).replace_input_with(1, shape.outputs[0])
    with pytest.raises(UnsupportedOperator, match=r"ReduceSum 'node' .*it computes its axes"):
        gradient_graph(model)


def _counted(dtype):
    """The mean of so many numbers that float16 cannot count them."""
    return one_node("ReduceMean", [np.ones((1, 70000)), np.array([1])], dtype=dtype, dynamic=True)


def test_means_of_many_numbers_in_half_precision():
    x, cotangent = np.ones((1, 70000), np.float16), np.full((1, 1), 1000, np.float16)
    dx = run(gradient_graph(_counted(np.float16)), input_0=x, cotangent=cotangent)
    assert dx.dtype == np.float16
    np.testing.assert_allclose(dx, 1000 / 70000, rtol=2e-3)

"""Gradients of pooling."""

import numpy as np
import onnx_ir as ir
import pytest
import torch
import torch.nn.functional as F
from support.gradient_oracle import check_node, evaluate, one_node, run

from craft_onnx.graph.reverse.pair import gradient_pair
from craft_onnx.graph.reverse.vjp import gradient_graph

RNG = np.random.default_rng(7)
# One axis after the other, so that open and known lengths, odd and even ones are all met.
LENGTHS = (9, 8, 7)


def distinct(*shape):
    """Numbers whose differences, and distances from zero, are far above the step of a difference: no ties, no kinks."""
    return (RNG.permutation(np.prod(shape)).reshape(shape) - np.prod(shape) / 2 + 0.5) / 10


def windows(rank, kernel, stride=1, pad=0, dilation=1, ceil=0, **more):
    numbers = {"kernel_shape": kernel, "strides": stride} | ({"dilations": dilation} if dilation > 1 else {})
    pads = [pad] * 2 * rank if isinstance(pad, int) else list(pad)
    return {**{name: [number] * rank for name, number in numbers.items()}, "pads": pads, "ceil_mode": ceil, **more}


GEOMETRIES = [
    (2, 2, 0, 1, 0),
    (3, 2, 1, 1, 0),
    (3, 1, 1, 1, 0),
    (3, 2, 0, 1, 1),
    (2, 3, 0, 1, 0),
    (3, 2, 1, 2, 1),
    (3, 1, 1, 2, 0),
    (2, 2, 1, 1, 1),
]
# Of windows that would start in the padding behind the image, only opset 22 says that they are left out.
OPSET = 22


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_max_pool(rank, geometry):
    pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[rank - 1]
    check_node(
        "MaxPool",
        [distinct(2, 3, *LENGTHS[:rank])],
        windows(rank, *geometry),
        opset=OPSET,
        torch=lambda x: pool(x, *geometry[:-1], bool(geometry[-1])),
    )


AVERAGES = [one[:3] + one[4:] + (include,) for one in GEOMETRIES if one[3] == 1 for include in (0, 1)]


@pytest.mark.parametrize("geometry", AVERAGES, ids=str)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_average_pool(rank, geometry):
    kernel, stride, pad, ceil, include = geometry
    pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[rank - 1]
    check_node(
        "AveragePool",
        [distinct(2, 3, *LENGTHS[:rank])],
        windows(rank, kernel, stride, pad, ceil=ceil, count_include_pad=include),
        opset=OPSET,
        torch=lambda x: pool(x, kernel, stride, pad, bool(ceil), bool(include)),
    )


@pytest.mark.parametrize("include", [0, 1])
@pytest.mark.parametrize("geometry", [one for one in GEOMETRIES if one[3] == 2], ids=str)
def test_dilated_average_pool(geometry, include):
    check_node("AveragePool", [distinct(2, 2, 9, 10)], windows(2, *geometry, count_include_pad=include), opset=19)


@pytest.mark.parametrize("name", ["MaxPool", "AveragePool", "LpPool"])
@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (2, 1), (2, 3), (4, 3)])
def test_automatic_padding(name, auto_pad, kernel, stride):
    attributes = {"kernel_shape": [kernel, 2], "strides": [stride, 1], "auto_pad": auto_pad}
    check_node(name, [distinct(2, 2, 8, 7)], attributes)


@pytest.mark.parametrize("name", ["MaxPool", "AveragePool", "LpPool"])
@pytest.mark.parametrize("pads", [(0, 1, 1, 0), (2, 0, 1, 1), (1, 2, 2, 0)])
@pytest.mark.parametrize("stride", [1, 2])
def test_asymmetric_padding(name, pads, stride):
    check_node(name, [distinct(2, 2, 8, 7)], {"kernel_shape": [3, 3], "strides": [stride] * 2, "pads": pads})


def test_windows_side_by_side_that_leave_a_rest_or_none():
    for kernel in ((2, 3), (8, 7), (4, 7), (8, 1)):
        attributes = {"kernel_shape": kernel, "strides": kernel}
        check_node("AveragePool", [distinct(2, 3, 8, 7)], attributes, torch=lambda x, k=kernel: F.avg_pool2d(x, k))


@pytest.mark.parametrize("order", [0, 1])
def test_max_pool_that_also_tells_the_places(order):
    attributes = {"kernel_shape": [3, 2], "strides": [2, 1], "storage_order": order}
    x = distinct(2, 3, 8, 7)

    def build(outputs):
        return one_node("MaxPool", [x], attributes=attributes, dtype=np.float32, outputs=outputs)

    cotangent = RNG.standard_normal((2, 3, 3, 6)).astype(np.float32)
    one, two = (run(gradient_graph(build(n)), input_0=x.astype(np.float32), cotangent=cotangent) for n in (1, 2))
    np.testing.assert_array_equal(one, two)
    forward, _ = gradient_pair(build(2))
    assert [node.op_type for node in forward.graph].count("MaxPool") == (2 if order else 1)


def by_torch(function, x, cotangent):
    given = torch.tensor(x, requires_grad=True)
    return torch.autograd.grad(function(given), given, torch.tensor(cotangent))[0].numpy()


@pytest.mark.parametrize(
    ("name", "attributes", "function"),
    [
        ("MaxPool", windows(2, 3, 2, 1), lambda x: F.max_pool2d(x, 3, 2, 1)),
        ("MaxPool", windows(2, 2, 2), lambda x: F.max_pool2d(x, 2)),
        ("GlobalMaxPool", {}, lambda x: F.adaptive_max_pool2d(x, 1)),
    ],
)
def test_the_first_among_equals(name, attributes, function):
    x = RNG.integers(0, 3, (2, 3, 8, 8)).astype(np.float32)
    model = one_node(name, [x], attributes=attributes, dtype=np.float32)
    cotangent = RNG.standard_normal(function(torch.tensor(x)).shape).astype(np.float32)
    dx = run(gradient_graph(model), input_0=x, cotangent=cotangent)
    np.testing.assert_allclose(dx, by_torch(function, x, cotangent), rtol=1e-6, atol=1e-6)


def test_global_pools():
    x = distinct(2, 3, 4, 5)
    check_node("GlobalAveragePool", [x], torch=lambda x: x.mean((2, 3), keepdim=True))
    check_node("GlobalMaxPool", [x], torch=lambda x: x.amax((2, 3), keepdim=True))
    check_node("GlobalMaxPool", [distinct(2, 3, 7)], torch=lambda x: x.amax(2, keepdim=True))
    for p in (1, 2, 3):
        check_node(
            "GlobalLpPool", [x], {"p": p}, torch=lambda x, p=p: x.abs().pow(p).sum((2, 3), keepdim=True) ** (1 / p)
        )


@pytest.mark.parametrize("p", [1, 2, 3])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_lp_pool(geometry, p):
    check_node("LpPool", [distinct(2, 2, 9, 8)], windows(2, *geometry, p=p), opset=OPSET)


def test_the_norm_of_a_window_of_zeros():
    x = np.zeros((1, 1, 4, 4))
    x[..., 2:] = 3
    model = one_node("LpPool", [x], attributes=windows(2, 2, 2))
    dx = evaluate(gradient_graph(model), input_0=x, cotangent=np.ones((1, 1, 2, 2)))
    np.testing.assert_allclose(dx, np.where(x > 0, 0.5, 0))


def test_max_unpool():
    places = np.array([[[[5, 7], [13, 15]], [[16, 18], [24, 31]]]])
    attributes = {"kernel_shape": [2, 2], "strides": [2, 2]}
    check_node("MaxUnpool", [distinct(1, 2, 2, 2), places], attributes)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("name", ["MaxPool", "GlobalMaxPool"])
def test_a_backward_part_makes_its_own_zeros(name, dynamic):
    x = distinct(2, 3, 8, 8)
    attributes = windows(2, 2, 2) if name == "MaxPool" else {}
    forward, _ = gradient_pair(one_node(name, [x], attributes=attributes, dtype=np.float32, dynamic=dynamic))
    _, *residuals = forward.graph.outputs
    assert {value.dtype for value in residuals} <= {ir.DataType.INT64, ir.DataType.BOOL}

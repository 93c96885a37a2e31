"""Gradients of activation functions."""

import numpy as np
import pytest
import torch
from support.gradient_oracle import assert_close, check_node, evaluate, one_node, run
from torch.nn import functional

from craft_onnx.errors import InputError
from craft_onnx.graph.reverse.gradients import GRADIENTS
from craft_onnx.graph.reverse.vjp import gradient_graph

# Away from the kinks at 0, 0.5, 1, 2.5 and 3.
X = np.random.default_rng(0).choice([-4.2, -2.7, -1.3, -0.7, -0.2, 0.1, 0.3, 0.8, 1.6, 2.2, 3.4], (2, 3, 5)) + 0.01


def selu(x):
    """With ONNX's numbers, which are float32."""
    return 1.05070102214813232421875 * functional.elu(x, 1.67326319217681884765625)


def hard_swish(x):
    """With 1 / 6 as the float32 that it is in ONNX's definition."""
    return x * (float(np.float32(1 / 6)) * x + 0.5).clamp(0, 1)


# Operator, attributes, opset, the same by PyTorch; attributes are float32, so these are numbers that it has exactly.
FUNCTIONS = [
    ("Relu", {}, 18, functional.relu),
    ("LeakyRelu", {}, 18, functional.leaky_relu),
    ("LeakyRelu", {"alpha": 0.3}, 18, lambda x: functional.leaky_relu(x, 0.3)),
    ("LeakyRelu", {"alpha": -0.3}, 18, lambda x: functional.leaky_relu(x, -0.3)),
    ("ThresholdedRelu", {}, 18, lambda x: functional.threshold(x, 1.0, 0.0)),
    ("ThresholdedRelu", {"alpha": -0.5}, 18, lambda x: functional.threshold(x, -0.5, 0.0)),
    ("Shrink", {"lambd": 0.5, "bias": 0.5}, 18, functional.softshrink),
    ("Shrink", {}, 18, functional.hardshrink),
    ("Elu", {}, 18, functional.elu),
    ("Elu", {"alpha": 1.75}, 18, lambda x: functional.elu(x, 1.75)),
    ("Elu", {"alpha": -0.7}, 18, None),
    ("Selu", {}, 18, selu),
    ("Selu", {"alpha": 1.2, "gamma": 0.9}, 18, None),
    ("Celu", {}, 18, functional.celu),
    ("Celu", {"alpha": 1.75}, 18, lambda x: functional.celu(x, 1.75)),
    ("Sigmoid", {}, 18, torch.sigmoid),
    ("HardSigmoid", {}, 18, lambda x: (0.2 * x + 0.5).clamp(0, 1)),
    ("HardSigmoid", {"alpha": 0.25}, 18, lambda x: (0.25 * x + 0.5).clamp(0, 1)),
    ("HardSwish", {}, 18, hard_swish),
    ("HardSwish", {}, 22, hard_swish),
    ("Swish", {}, 24, functional.silu),
    ("Swish", {"alpha": 1.75}, 24, lambda x: x * torch.sigmoid(1.75 * x)),
    ("Mish", {}, 18, functional.mish),
    ("Softplus", {}, 18, functional.softplus),
    ("Softsign", {}, 18, functional.softsign),
    ("Gelu", {}, 20, functional.gelu),
    ("Gelu", {"approximate": "tanh"}, 20, lambda x: functional.gelu(x, approximate="tanh")),
]


def name_of(value):
    return str(value) if isinstance(value, (str, dict, int)) else ""


@pytest.mark.parametrize(("op_type", "attributes", "opset", "function"), FUNCTIONS, ids=name_of)
def test_activations(op_type, attributes, opset, function):
    check_node(op_type, [X], attributes, opset=opset, torch=function)


@pytest.mark.parametrize("slope", [np.array(0.3), np.full((3, 1), -0.2), X * 0.1], ids=lambda x: str(x.shape))
def test_prelu(slope):
    check_node("PRelu", [X, slope], wrt=(0, 1), torch=lambda x, slope: torch.where(x > 0, x, slope * x))


@pytest.mark.parametrize("low", [None, -1.0])
@pytest.mark.parametrize("high", [None, 2.0])
def test_clip(low, high):
    arrays = [X, *(None if end is None else np.array(end) for end in (low, high))]
    given = [position for position, array in enumerate(arrays) if array is not None]
    function = torch.clamp if len(given) > 1 else lambda x, low, high: x
    check_node("Clip", arrays, wrt=given, torch=function)


def test_clip_takes_the_upper_end_where_the_lower_is_above_it():
    arrays = [X, np.array(2.0), np.array(-1.0)]
    check_node("Clip", arrays, wrt=(2,), torch=torch.clamp)
    for position in (0, 1):
        graph = gradient_graph(one_node("Clip", arrays, position))
        found = evaluate(graph, **{f"input_{position}": arrays[position], "cotangent": np.ones_like(X)})
        np.testing.assert_array_equal(found, np.zeros_like(arrays[position]))


@pytest.mark.parametrize("axis", [-1, 0, 1])
@pytest.mark.parametrize(
    ("op_type", "function"), [("Softmax", functional.softmax), ("LogSoftmax", functional.log_softmax)]
)
def test_softmax(op_type, function, axis):
    check_node(op_type, [X], {"axis": axis}, torch=lambda x: function(x, axis))


def test_no_derivative_leads_through_hardmax():
    with pytest.raises(InputError, match="No derivative leads"):
        gradient_graph(one_node("Hardmax", [X]))


# Operator, attributes, where, PyTorch's slope there: at the ends of a Clip that of relu6.
KINKS = [
    ("Relu", {}, [0], [0]),
    ("LeakyRelu", {}, [0], [0.01]),
    ("Elu", {"alpha": 1.5}, [0], [1.5]),
    ("ThresholdedRelu", {}, [1], [0]),
    ("Shrink", {}, [-0.5, 0.5], [0, 0]),
    ("HardSigmoid", {"alpha": 1 / 6}, [-3, 3], [0, 0]),
    ("HardSwish", {}, [-3, 3], [0, 1]),
    ("Abs", {}, [0], [0]),
]


@pytest.mark.parametrize(("op_type", "attributes", "x", "slope"), KINKS, ids=name_of)
def test_kinks(op_type, attributes, x, slope):
    x = np.float32(x)
    graph = gradient_graph(one_node(op_type, [x], 0, attributes, dtype=np.float32))
    np.testing.assert_allclose(run(graph, input_0=x, cotangent=np.ones_like(x)), slope, rtol=1e-6)


def test_the_ends_of_a_clip_are_outside():
    x = np.float32([0, 3, 6])
    expected = {0: [0, 1, 0], 1: 1, 2: 1}
    for position, slope in expected.items():
        arrays = [x, np.array(0, np.float32), np.array(6, np.float32)]
        graph = gradient_graph(one_node("Clip", arrays, position, dtype=np.float32))
        feeds = {f"input_{position}": arrays[position], "cotangent": np.ones_like(x)}
        np.testing.assert_array_equal(run(graph, **feeds), slope)


FAR = np.array([-1e4, -100, -88.8, -20, 20, 88.8, 100, 1e4])


def by_definition(model, **feeds):
    """In float64; the evaluator's own forms may overflow on the way to a finite result."""
    with np.errstate(all="ignore"):
        return evaluate(model, **feeds)


@pytest.mark.parametrize(("op_type", "attributes", "opset", "function"), FUNCTIONS, ids=name_of)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_far_out(op_type, attributes, opset, function, dtype):
    """Where intermediate numbers might overflow: exp(100) does in float32, 300 ^ 2 in half precision."""
    if op_type == "Celu" and dtype == np.float16:
        pytest.skip("Celu is defined for float32 alone")
    x = FAR.astype(dtype)
    narrow, wide = (
        gradient_graph(one_node(op_type, [FAR], 0, attributes, opset=opset, dtype=kind)) for kind in (dtype, np.float64)
    )
    feeds = {"input_0": x, "cotangent": np.ones_like(x)}
    # The runtime's CPU provider calculates in float32 where it has no kernel for half precision; numpy does not.
    found = run(narrow, **feeds) if dtype == np.float32 else by_definition(narrow, **feeds)
    expected = by_definition(wide, input_0=x.astype(float), cotangent=np.ones(x.shape))
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(found, expected, rtol=0, atol=2 * np.finfo(dtype).eps * max(1, abs(expected).max()))
    if function is not None:
        at = torch.tensor(x.astype(float), requires_grad=True)
        function(at).sum().backward()
        assert_close(expected, at.grad.numpy(), 1e-9, "PyTorch")


@pytest.mark.parametrize("op_type", ["Softmax", "LogSoftmax"])
def test_softmax_far_out(op_type):
    x = np.float32([[100, -100, 99], [1e4, 0, -1e4]])
    cotangent = np.float32([[1, 2, 3], [1, 2, 3]])
    narrow, wide = (
        gradient_graph(one_node(op_type, [x.astype(dtype)], dtype=dtype)) for dtype in (np.float32, np.float64)
    )
    expected = by_definition(wide, input_0=x.astype(float), cotangent=cotangent.astype(float))
    assert_close(run(narrow, input_0=x, cotangent=cotangent), expected, 1e-6, "far out")


def test_what_an_activation_is_fused_with_is_read_by_nothing_else():
    """A runtime fuses these with the convolution before them only where the way back reads y, not x."""
    for op_type in ("Relu", "LeakyRelu", "Sigmoid", "Tanh", "HardSigmoid", "Elu"):
        graph = gradient_graph(one_node(op_type, [X])).graph
        assert len(graph.inputs[0].uses()) == 1, op_type
    clip = gradient_graph(one_node("Clip", [X, np.array(0.0), np.array(6.0)])).graph
    assert len(clip.inputs[0].uses()) == 1


def test_what_does_not_depend_on_the_cotangent_stays_apart():
    """One operation on the cotangent: the rest is computed once for any number of cotangents."""
    for op_type, attributes, opset, _ in FUNCTIONS:
        graph = gradient_graph(one_node(op_type, [X], 0, attributes, opset=opset)).graph
        assert len(graph.inputs[1].uses()) == 1, op_type
        assert graph.inputs[1].uses()[0].node.outputs[0] is graph.outputs[0], op_type


def test_every_activation_has_a_rule_of_its_own():
    assert GRADIENTS.operators >= {op_type for op_type, *_ in FUNCTIONS}

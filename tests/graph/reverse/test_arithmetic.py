"""Gradients of arithmetic and of functions of single elements."""

import numpy as np
import onnx_ir as ir
import pytest
import torch
from support.gradient_oracle import assert_close, check_node, evaluate, one_node, run

from craft_onnx.errors import InputError
from craft_onnx.graph.reverse.vjp import gradient_graph

RNG = np.random.default_rng(0)
X = RNG.uniform(0.3, 2.5, (2, 3, 4)) * RNG.choice([-1, 1], (2, 3, 4))
ROW, COLUMN, SCALAR = X[0, :1] * 0.7, X[1, :, :1] * 1.3, np.array(1.7)
INSIDE = RNG.uniform(-0.9, 0.9, (3, 4))  # of the domain of asin, acos, atanh

UNARY = {
    "Abs": (X, torch.abs),
    "Neg": (X, torch.neg),
    "Exp": (X, torch.exp),
    "Log": (abs(X), torch.log),
    "Sqrt": (abs(X), torch.sqrt),
    "Reciprocal": (X, torch.reciprocal),
    "Sin": (X, torch.sin),
    "Cos": (X, torch.cos),
    "Tan": (INSIDE, torch.tan),
    "Asin": (INSIDE, torch.asin),
    "Acos": (INSIDE, torch.acos),
    "Atan": (X, torch.atan),
    "Sinh": (X, torch.sinh),
    "Cosh": (X, torch.cosh),
    "Tanh": (X, torch.tanh),
    "Asinh": (X, torch.asinh),
    "Acosh": (1 + abs(X), torch.acosh),
    "Atanh": (INSIDE, torch.atanh),
    "Erf": (X, torch.erf),
}


@pytest.mark.parametrize("op_type", UNARY)
def test_functions_of_one_tensor(op_type):
    x, function = UNARY[op_type]
    check_node(op_type, [x], torch=function)


@pytest.mark.parametrize("other", [X[::-1] * 0.9, ROW, COLUMN, SCALAR, X[:1, :1, :1]], ids=lambda x: str(x.shape))
@pytest.mark.parametrize(
    ("op_type", "function"), [("Add", torch.add), ("Sub", torch.sub), ("Mul", torch.mul), ("Div", torch.div)]
)
def test_binary(op_type, function, other):
    check_node(op_type, [X, other], wrt=(0, 1), torch=function)
    check_node(op_type, [other, X], wrt=(0, 1), torch=function)


@pytest.mark.parametrize("shapes", [(X,), (X, ROW), (X, COLUMN, SCALAR, ROW)], ids=len)
@pytest.mark.parametrize(("op_type", "divisor"), [("Sum", lambda n: 1), ("Mean", lambda n: n)])
def test_sum_and_mean(op_type, divisor, shapes):
    check_node(op_type, shapes, wrt=range(len(shapes)), torch=lambda *xs: sum(xs) / divisor(len(xs)))


@pytest.mark.parametrize("shapes", [(X,), (X, ROW), (ROW, X, X[::-1] + 0.1, COLUMN)], ids=len)
@pytest.mark.parametrize(("op_type", "function"), [("Max", torch.maximum), ("Min", torch.minimum)])
def test_extremes(op_type, function, shapes):
    def together(*xs):
        return xs[0] if len(xs) == 1 else function(xs[0], together(*xs[1:]))

    check_node(op_type, shapes, wrt=range(len(shapes)), torch=together)


@pytest.mark.parametrize("op_type", ["Max", "Min"])
def test_several_inputs_with_the_extreme_value_share_evenly(op_type):
    x, same, other = np.float32([1, 2]), np.float32([1, 5 if op_type == "Min" else 0]), np.float32([1, 2])
    model = gradient_graph(one_node(op_type, [x, same, other], dtype=np.float32))
    found = run(model, input_0=x, cotangent=np.float32([6, 6]))
    np.testing.assert_allclose(found, [2, 3], rtol=1e-6)


@pytest.mark.parametrize("condition", [X > 0, X[0, 0] > 0, np.array(True)], ids=lambda x: str(x.shape))
def test_where(condition):
    check_node("Where", [condition, X, ROW], wrt=(1, 2), torch=torch.where)
    check_node("Where", [condition, COLUMN, X], wrt=(1, 2), torch=torch.where)


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 2.0, 3.0, 1.7, -1.0, -0.5, 0, 1, 2, 3, -2])
def test_power_by_a_constant(exponent):
    check_node("Pow", [abs(X), np.array(exponent)], torch=torch.pow)


@pytest.mark.parametrize("exponent", [1, 2, 3, 4, -1, -3])
def test_power_of_negative_numbers(exponent):
    check_node("Pow", [X, np.array([exponent])], torch=torch.pow)


@pytest.mark.parametrize("exponent", [ROW, X, SCALAR], ids=lambda x: str(x.shape))
def test_power_by_a_computed_exponent(exponent):
    check_node("Pow", [abs(X), exponent], wrt=(0, 1), torch=torch.pow)
    check_node("Pow", [abs(exponent), X], wrt=(0, 1), torch=torch.pow)


EXPONENTS = [0, 1, 1.5, 2, 3]


@pytest.mark.parametrize("exponents", [[one] for one in EXPONENTS] + [EXPONENTS], ids=str)
def test_power_of_zero(exponents):
    """0 ^ b has the slope 0 for b > 1 and b = 0, 1 for b = 1; and it does not depend on b."""
    base, exponents = np.zeros(len(exponents), np.float32), np.float32(exponents)
    ones = np.ones_like(base)
    to_base = gradient_graph(one_node("Pow", [base, exponents], 0, dtype=np.float32))
    np.testing.assert_array_equal(run(to_base, input_0=base, cotangent=ones), exponents == 1)
    to_exponent = gradient_graph(one_node("Pow", [base, exponents], 1, dtype=np.float32))
    np.testing.assert_array_equal(run(to_exponent, input_1=exponents, cotangent=ones), 0)


@pytest.mark.parametrize("exponent", [X[0], np.float64(2.5), np.int64(3)], ids=lambda x: f"{x.dtype}{x.shape}")
def test_power_with_an_exponent_of_another_type(exponent):
    """Cotangents have the types of their inputs."""
    x = abs(X[0]).astype(np.float32)
    model = one_node("Pow", [x, np.asarray(exponent)], dtype=np.float32)
    weight = model.graph.initializers["input_1"]
    array = np.asarray(exponent)
    weight.const_value, weight.dtype = ir.tensor(array, name="input_1"), ir.DataType.from_numpy(array.dtype)
    found = run(gradient_graph(model), input_0=x, cotangent=np.ones_like(x))
    assert_close(found, exponent * x.astype(np.float64) ** (exponent - 1), 1e-6, "the power's slope")


def test_remainder():
    check_node("Mod", [X * 3, ROW], {"fmod": 1}, wrt=(0, 1), torch=torch.fmod)


@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("exclusive", [0, 1])
@pytest.mark.parametrize("reverse", [0, 1])
def test_cumulative_sum(axis, exclusive, reverse):
    check_node("CumSum", [X, np.array(axis)], {"exclusive": exclusive, "reverse": reverse})
    if not exclusive and not reverse:
        check_node("CumSum", [X, np.array(axis)], torch=lambda x, axis: x.cumsum(int(axis)))


def cast_model(to, dtype=np.float32):
    """x -> Cast -> Cast back."""
    there = one_node("Cast", [X[0]], 0, {"to": to}, dtype=dtype)
    there.graph.outputs[0].dtype = to
    back = ir.node("Cast", [there.graph.outputs[0]], {"to": ir.DataType.from_numpy(np.dtype(dtype))}, name="back")
    back.outputs[0].name, back.outputs[0].dtype = "y", ir.DataType.from_numpy(np.dtype(dtype))
    there.graph.append(back)
    there.graph.outputs[:] = back.outputs
    return there


@pytest.mark.parametrize("to", [ir.DataType.DOUBLE, ir.DataType.FLOAT16])
def test_a_cast_between_floats_casts_the_cotangent(to):
    model = gradient_graph(cast_model(to))
    cotangent = X[1].astype(np.float32)
    found = run(model, input_0=X[0].astype(np.float32), cotangent=cotangent)
    np.testing.assert_array_equal(found, cotangent.astype(to.numpy()).astype(np.float32))


@pytest.mark.parametrize("to", [ir.DataType.INT64, ir.DataType.BOOL])
def test_no_derivative_leads_through_a_cast_to_whole_numbers(to):
    with pytest.raises(InputError, match="No derivative leads from 'y' to 'input_0'"):
        gradient_graph(cast_model(to))


def test_cast_like():
    x, like = X[0].astype(np.float32), np.zeros(1)
    model = one_node("CastLike", [x, like], dtype=np.float32)
    weight = model.graph.initializers["input_1"]
    weight.const_value, weight.dtype = ir.tensor(like, name="input_1"), ir.DataType.DOUBLE
    model.graph.outputs[0].dtype = ir.DataType.DOUBLE
    found = run(gradient_graph(model), input_0=x, cotangent=X[1])
    np.testing.assert_array_equal(found, X[1].astype(np.float32))


FINITE = [
    name for name in UNARY if name not in ("Exp", "Sinh", "Cosh", "Asin", "Acos", "Atanh", "Log", "Sqrt", "Acosh")
]


@pytest.mark.parametrize("op_type", [*FINITE, "Log", "Sqrt", "Acosh"])
def test_far_out(op_type):
    """At 100 and -100, where intermediate numbers might overflow in float32."""
    x = np.float32([100, 1e4] if op_type in ("Log", "Sqrt", "Acosh") else [-1e4, -100, 100, 1e4])
    ones = np.ones_like(x)
    narrow, wide = (
        gradient_graph(one_node(op_type, [x.astype(dtype)], dtype=dtype)) for dtype in (np.float32, np.float64)
    )
    found = run(narrow, input_0=x, cotangent=ones)
    expected = evaluate(wide, input_0=x.astype(np.float64), cotangent=ones.astype(np.float64))
    np.testing.assert_allclose(found, expected, rtol=1e-3 if op_type == "Tan" else 1e-5, atol=1e-30)

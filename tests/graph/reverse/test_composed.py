"""Activation functions of several nodes: one product with the cotangent, and the derivative as before."""

import numpy as np
import onnx_ir as ir
import pytest
import torch
from support.gradient_oracle import SAME, assert_close, check_model, evaluate, run

from craft_onnx.graph.reverse.gradients import GRADIENTS
from craft_onnx.graph.reverse.pair import gradient_pair
from craft_onnx.graph.reverse.rules import Rules
from craft_onnx.graph.reverse.tensor import op
from craft_onnx.graph.reverse.vjp import gradient_graph

X = np.random.default_rng(0).standard_normal((3, 4))
NUMBERS = {
    "half": 0.5, "one": 1.0, "two": 2.0, "root": 2**0.5, "a": (2 / np.pi) ** 0.5, "b": 0.044715,
    "zero": 0.0, "three": 3.0,
}  # fmt: skip
GELU = "t = Div(x, root)  e = Erf(t)  s = Add(e, one)  m = Mul(x, s)  y = Mul(m, half)"
# What is computed, by PyTorch, and how many products with numbers the derivative needs besides.
FUNCTIONS = {
    "silu": ("s = Sigmoid(x)  y = Mul(x, s)", torch.nn.functional.silu),
    "gelu": (GELU, torch.nn.functional.gelu),
    "gelu, halved first": (
        "h = Mul(half, x)  t = Div(x, root)  e = Erf(t)  s = Add(one, e)  y = Mul(h, s)", torch.nn.functional.gelu,
    ),
    "gelu by tanh": (
        "q = Mul(x, x)  c = Mul(q, x)  bc = Mul(c, b)  i = Add(x, bc)  ai = Mul(i, a)  t = Tanh(ai)  s = Add(t, one)"
        "  h = Mul(x, half)  y = Mul(h, s)",
        lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
    ),
    "gelu by tanh and a power": (
        "c = Pow(x, three)  bc = Mul(c, b)  i = Add(x, bc)  ai = Mul(i, a)  t = Tanh(ai)  s = Add(t, one)"
        "  h = Mul(x, half)  y = Mul(h, s)",
        lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
    ),
    "a number, in the end": ("p = Pow(x, zero)  e = Exp(x)  z = Mul(p, two)  y = Add(z, e)", torch.exp),
    "hard swish": ("h = HardSigmoid <alpha = 0.25> (x)  y = Mul(x, h)", lambda x: x * (0.25 * x + 0.5).clip(0, 1)),
    "mish": ("s = Softplus(x)  t = Tanh(s)  y = Mul(x, t)", torch.nn.functional.mish),
    "silu by exp": ("n = Neg(x)  e = Exp(n)  d = Add(e, one)  y = Div(x, d)", torch.nn.functional.silu),
    "differences": ("e = Exp(x)  d = Sub(one, e)  y = Sub(d, x)", lambda x: 1 - torch.exp(x) - x),
    "a quotient of two": ("e = Exp(x)  s = Sigmoid(x)  y = Div(s, e)", lambda x: torch.sigmoid(x) / torch.exp(x)),
    "a number beside": ("d = Mul(x, two)  y = Add(x, d)", lambda x: 3 * x),
    "nothing is left": ("d = Neg(x)  y = Add(x, d)", lambda x: 0 * x),
    "less than nothing": ("d = Neg(x)  z = Add(x, d)  e = Exp(x)  y = Add(z, e)", torch.exp),
    "a root": ("q = Mul(x, x)  p = Add(q, one)  r = Sqrt(p)  y = Mul(r, x)", lambda x: x * torch.sqrt(x * x + 1)),
    "squared in parts": ("l = Softplus(x)  n = Log(l)  r = Reciprocal(l)  y = Mul(n, r)",
                         lambda x: torch.log(torch.nn.functional.softplus(x)) / torch.nn.functional.softplus(x)),
}  # fmt: skip


def net(body):
    numbers = ", ".join(f"double {name} = {{{number}}}" for name, number in NUMBERS.items())
    return ir.from_onnx_text(f"""<ir_version: 10, opset_import: ["" : 18]>
        g (double[n, 4] x) => (double[n, 4] y) <{numbers}, double[1, 4] row = {{1.0, 2.0, 3.0, 4.0}}> {{ {body} }}""")


def by_torch(function):
    def gradient(x, cotangent):
        at = torch.tensor(x, requires_grad=True)
        return torch.autograd.grad(function(at), at, torch.tensor(cotangent))[0].numpy()

    return gradient


def readers(model):
    """Nodes through which the cotangent goes."""
    found = {next(value for value in model.graph.inputs if value.name == "cotangent")}
    nodes = []
    for node in model.graph:
        if found & set(node.inputs):
            found.update(node.outputs)
            nodes.append(node.op_type)
    return nodes


@pytest.mark.parametrize(("body", "function"), FUNCTIONS.values(), ids=FUNCTIONS)
def test_derivative(body, function):
    check_model(lambda dtype: net(body), X, by_torch(function), single=False)
    assert set(readers(gradient_graph(net(body)))) == {"Mul"}
    assert len(readers(gradient_graph(net(body)))) <= 2  # a number, and the derivative


def test_in_parts_the_derivative_is_the_forward_graphs():
    forward, backward = gradient_pair(net(GELU))
    assert len(forward.graph.outputs) == 2 and [node.op_type for node in backward.graph] == ["Mul", "Mul"]


NO_FUNCTION = {
    "read by nobody": f"{GELU}  d = Exp(s)",
    "read outside": f"{GELU.replace('y =', 'g =')}  r = ReduceSum <keepdims = 1> (s)  y = Add(g, r)",
    "two arguments": "z = Sin(x)  s = Sigmoid(z)  y = Mul(x, s)",
    "a scale for each column": "w = Mul(x, row)  s = Sigmoid(w)  y = Mul(x, s)",
    "broadcast": "m = ReduceMean <keepdims = 1> (x)  s = Sigmoid(m)  y = Mul(x, s)",
}


@pytest.mark.parametrize("body", NO_FUNCTION.values(), ids=NO_FUNCTION)
def test_others_are_carried_back_node_by_node(body):
    check_model(lambda dtype: net(body), X, single=False)
    assert len(readers(gradient_graph(net(body)))) > 2


def test_a_tensor_inside():
    """To and from what lies inside, node by node."""
    model = net(GELU)
    cotangent = np.random.default_rng(1).standard_normal(X.shape)
    assert_close(evaluate(gradient_graph(model, wrt="s"), x=X, cotangent=cotangent), cotangent * X / 2, SAME, "s")
    inner = evaluate(gradient_graph(model, of="m"), x=X, cotangent=cotangent)
    assert_close(inner, 2 * evaluate(gradient_graph(model), x=X, cotangent=cotangent), SAME, "m")
    assert_close(evaluate(gradient_graph(model, of="s"), x=X, cotangent=cotangent),
                 cotangent * 2**0.5 * 2 / np.pi**0.5 * np.exp(-X * X / 2) / 2, SAME, "of s")  # fmt: skip


def test_a_division_by_zero_is_left_to_the_graph():
    gradient = gradient_graph(net("d = Div(x, zero)  y = Mul(x, d)"))
    assert np.isinf(run(gradient, x=X, cotangent=np.ones_like(X))).all()


def test_rules_of_ones_own_are_asked():
    """They may do anything with a cotangent."""
    rules = Rules("mine", {"Sigmoid": lambda step, dy: [op.Relu(dy)]}, base=GRADIENTS)
    found = gradient_graph(net("s = Sigmoid(x)  y = Mul(x, s)"), rules=rules)
    assert "Relu" in readers(found)
    cotangent = np.random.default_rng(1).standard_normal(X.shape)
    expected = cotangent / (1 + np.exp(-X)) + np.maximum(cotangent * X, 0)
    assert_close(evaluate(found, x=X, cotangent=cotangent), expected, SAME, "the rule's own")


def test_every_node_says_where_it_comes_from():
    for node in gradient_graph(net(GELU)).graph:
        assert node.name.startswith("reverse") == bool(node.metadata_props.get("craft_onnx.forward"))


def test_half_precision():
    """Numbers take the type of the tensors."""
    model = ir.from_onnx_text("""<ir_version: 10, opset_import: ["" : 18]>
        g (float16[n, 4] x) => (float16[n, 4] y) { s = Sigmoid(x)  d = Add(x, x)  y = Mul(d, s) }""")
    graph = gradient_graph(model)
    x, dy = X.astype(np.float16), np.ones_like(X, np.float16)
    double = by_torch(lambda at: 2 * torch.nn.functional.silu(at))
    expected = double(x.astype(np.float64), dy.astype(np.float64))
    assert_close(evaluate(graph, x=x, cotangent=dy), expected, 2e-3, "float16")

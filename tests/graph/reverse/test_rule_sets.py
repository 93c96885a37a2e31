"""Guided backprop, deconvnet and beta smooth against functions and hooks of PyTorch."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from support.gradient_oracle import assert_close, evaluate, run

from craft_onnx.cli.gradient import RULES
from craft_onnx.errors import InputError
from craft_onnx.graph.reverse.pair import gradient_pair
from craft_onnx.graph.reverse.rule_sets import RULE_SETS, rule_set
from craft_onnx.graph.reverse.vjp import gradient_graph

SAME = 1e-10  # two implementations of one formula in float64
WEIGHTS = {f"w{i}": np.random.default_rng(i).standard_normal((8, 8)) / 2 for i in range(4)}
X = np.random.default_rng(9).standard_normal((5, 8))
COTANGENT = np.random.default_rng(8).standard_normal((5, 8))
# The second Relu is used twice, by a layer and by a residual connection; the Clip is Relu6, the other Clip is none.
NODES = [
    helper.make_node("MatMul", ["x", "w0"], ["a"]),
    helper.make_node("Relu", ["a"], ["b"]),
    helper.make_node("MatMul", ["b", "w1"], ["c"]),
    helper.make_node("Relu", ["c"], ["d"]),
    helper.make_node("MatMul", ["d", "w2"], ["e"]),
    helper.make_node("Add", ["d", "e"], ["f"]),
    helper.make_node("Clip", ["f", "zero", "one"], ["g"]),
    helper.make_node("LeakyRelu", ["g"], ["h"], alpha=0.125),
    helper.make_node("MatMul", ["h", "w3"], ["i"]),
    helper.make_node("Clip", ["i", "minus", "one"], ["y"]),
]


def network(dtype=np.float64):
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    numbers = {**WEIGHTS, "zero": np.array(0.0), "one": np.array(1.0), "minus": np.array(-1.0)}
    tensors = [numpy_helper.from_array(array.astype(dtype), name) for name, array in numbers.items()]
    image, output = (helper.make_tensor_value_info(name, kind, ["N", 8]) for name in ("x", "y"))
    graph = helper.make_graph(NODES, "net", [image], [output], tensors)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(proto)
    assert kind in (TensorProto.DOUBLE, TensorProto.FLOAT)
    return ir.serde.deserialize_model(proto)


class Rectifier(torch.autograd.Function):
    """min(max(x, 0), upper) with the derivative of a rule set."""

    @staticmethod
    def forward(context, x, upper, rules):
        context.save_for_backward(x)
        context.upper, context.rules = upper, rules
        return x.clamp(0, upper)

    @staticmethod
    def backward(context, dy):
        (x,) = context.saved_tensors
        if context.rules == "beta_smooth" and context.upper == np.inf:
            return dy * torch.sigmoid(10 * x), None, None
        if context.rules in ("guided_backprop", "deconvnet"):
            dy = dy.clamp(min=0)
        if context.rules != "deconvnet":
            dy = dy * ((x > 0) & (x < context.upper))
        return dy, None, None


def by_torch(rules):
    """The network with rectifiers that have the derivative of a rule set."""
    w = [torch.tensor(WEIGHTS[f"w{i}"]) for i in range(4)]
    x = torch.tensor(X, requires_grad=True)
    d = Rectifier.apply(Rectifier.apply(x @ w[0], np.inf, rules) @ w[1], np.inf, rules)
    g = Rectifier.apply(d + d @ w[2], 1.0, rules)
    y = (torch.nn.functional.leaky_relu(g, 0.125) @ w[3]).clamp(-1, 1)
    return torch.autograd.grad(y, x, torch.tensor(COTANGENT))[0].numpy()


RECTIFYING = ("gradient", "guided_backprop", "deconvnet", "beta_smooth")


@pytest.mark.parametrize("name", RECTIFYING)
def test_a_net_with_a_relu_used_twice(name):
    graph = gradient_graph(network(), rules=rule_set(name))
    assert_close(evaluate(graph, x=X, cotangent=COTANGENT), by_torch(name), SAME, name)
    single = gradient_graph(network(np.float32), rules=rule_set(name))
    found = run(single, x=X.astype(np.float32), cotangent=COTANGENT.astype(np.float32))
    assert_close(found, by_torch(name), 1e-5, "float32")  # rounding of five products of 8 terms


def test_the_rule_sets_differ():
    """Or the test above would say nothing."""
    found = [by_torch(name) for name in RECTIFYING]
    scale = np.abs(found[0]).max()
    assert all(
        np.abs(one - other).max() > 0.1 * scale for one, other in zip(found, [*found[1:], found[0]], strict=True)
    )


def hooked(module, x, cotangent, hook):
    """Captum's way: a hook on every nn.ReLU changes what goes back."""
    for part in module.modules():
        if isinstance(part, torch.nn.ReLU):
            part.register_full_backward_hook(hook)
    x = torch.tensor(x, requires_grad=True)
    return torch.autograd.grad(module(x), x, torch.tensor(cotangent))[0].numpy()


@pytest.mark.parametrize(
    ("name", "hook"),
    [
        ("guided_backprop", lambda module, dx, dy: (torch.relu(dx[0]),)),
        ("deconvnet", lambda module, dx, dy: (torch.relu(dy[0]),)),
    ],
)
def test_agrees_with_hooks_on_modules(name, hook):
    layers = [torch.nn.Linear(8, 8, bias=False, dtype=torch.float64) for _ in range(2)]
    for layer, weight in zip(layers, WEIGHTS.values(), strict=False):
        layer.weight.data = torch.tensor(weight.T)
    module = torch.nn.Sequential(layers[0], torch.nn.ReLU(), layers[1], torch.nn.ReLU())
    model = network()
    expected = hooked(module, X, COTANGENT, hook)
    graph = gradient_graph(model, of="d", rules=rule_set(name))
    assert_close(evaluate(graph, x=X, cotangent=COTANGENT), expected, SAME, name)


def test_a_deconvnet_needs_nothing_of_the_relu():
    forward, _ = gradient_pair(network(), of="d", rules=rule_set("deconvnet"))
    assert [value.name for value in forward.graph.outputs] == ["d"]


def test_a_rule_set_that_is_none():
    with pytest.raises(InputError, match=r"no rule set 'x'. Take one of gradient, epsilon_plus, "):
        rule_set("x")


def test_the_command_names_them_all():
    assert sorted(RULES) == sorted(RULE_SETS)

"""Operators that have no derivative, or none that we know: what is said of them, and rules of one's own."""

from collections import Counter

import numpy as np
import onnx_ir as ir
import pytest
from support.gradient_oracle import run

import craft_onnx
from craft_onnx.errors import UnsupportedOperator
from craft_onnx.graph import inference
from craft_onnx.graph.load import check
from craft_onnx.graph.normalize import normalize
from craft_onnx.graph.reverse.gradients import GRADIENTS
from craft_onnx.graph.reverse.pair import gradient_pair
from craft_onnx.graph.reverse.tensor import Emitter, op
from craft_onnx.graph.reverse.vjp import gradient_graph
from craft_onnx.runtime.proof import normalize_proven

RNG = np.random.default_rng(5)
X = RNG.standard_normal((2, 3, 4, 4))


@pytest.fixture(autouse=True)
def own_tables(monkeypatch):
    """Rules that a test registers are gone after it."""
    monkeypatch.setattr(GRADIENTS, "_table", dict(GRADIENTS._table))
    monkeypatch.setattr(inference, "_LIKE", dict(inference._LIKE))


def parsed(body, opset=18, domains='"com.microsoft" : 1', weights="", y="float[N,3,4,4] y"):
    head = f'<ir_version: 10, opset_import: ["" : {opset}, {domains}]> net (float[N,3,4,4] x) => ({y}) {weights}'
    model = ir.from_onnx_text(f"{head} {{ {body} }}")
    count = Counter()
    for node in model.graph:
        count[node.op_type] += 1
        node.name = f"/block/{node.op_type}" + "_" * (count[node.op_type] - 1)
    return model


BRANCHES = (
    "then_branch = a () => (float[N,3,4,4] t) { t = Relu(x) }, else_branch = b () => (float[N,3,4,4] e) { e = Neg(x) }"
)
IF = f"s = ReduceSum<keepdims=0>(x) z = Constant<value=float {{0.0}}>() c = Greater(s, z) y = If<{BRANCHES}>(c)"
STEP = "b (int64 i, bool k, float[N,3,4,4] u) => (bool l, float[N,3,4,4] v) { l = Identity(k) v = Sin(u) }"
LOOP = f"n = Constant<value=int64 {{3}}>() c = Constant<value=bool {{1}}>() y = Loop<body = {STEP}>(n, c, x)"
SCAN = "y = Scan<num_scan_inputs=1, body = b (float[3,4,4] u) => (float[3,4,4] v) { v = Sin(u) }>(x)"


def test_a_tensor_of_unknown_rank_is_named():
    """The length of the shape that Reshape takes is not known as long as the picture's is not."""
    body = (
        "s = Shape(x) z = Constant<value=int64 {0}>() k = Greater(s, z) t = Compress<axis=0>(s, k) r = Reshape(x, t)"
        " a = Relu(r) m = Constant<value=int64[1] {-1}>() y = ReduceSum<keepdims=0>(a, m)"
    )
    model = parsed(body, domains='"a" : 1', y="float[N,3,4] y")
    gradient_graph(normalize(model))
    model.graph.inputs[0].shape = ir.Shape(["N", 3, "height", 4])
    with pytest.raises(
        UnsupportedOperator, match=r"The number of axes of the tensor '(r|a)' \(of (Reshape|Relu), "
    ) as caught:
        gradient_graph(normalize(model))
    assert "--input-shape" in caught.value.remedy and "cut the model behind" in caught.value.remedy


def test_a_tensor_of_unknown_type_is_named():
    emitter = Emitter(parsed("y = Relu(x)"))
    with pytest.raises(UnsupportedOperator, match=r"The type of the tensor 'u' \(an input\) is not known"):
        emitter.tensor(ir.Value(name="u")).dtype  # noqa: B018  # a property that raises


@pytest.mark.parametrize(("name", "body"), [("If", IF), ("Loop", LOOP), ("Scan", SCAN)])
def test_control_flow(name, body):
    message = (
        rf"ai\.onnx::{name} \(node '/block/{name}', layer 'block'\)\. Cut the model behind that layer, or register"
    )
    with pytest.raises(UnsupportedOperator, match=message) as caught:
        gradient_graph(normalize(parsed(body, domains='"a" : 1')))
    assert caught.value.exit_code == 3


def test_a_branch_that_reads_the_picture_from_outside_is_a_way_to_it():
    """Nothing but the branches depends on x."""
    body = f"c = Constant<value=bool {{1}}>() z = Identity(x) y = If<{BRANCHES}>(c)"
    model = parsed(body, domains='"a" : 1')
    with pytest.raises(UnsupportedOperator, match=r"ai\.onnx::If"):
        gradient_graph(model)


@pytest.mark.parametrize("name", ["com.microsoft.Gelu", "my.own.Odd"])
def test_foreign_operators(name):
    """Normalizing says the same as the reverse pass, and nothing before it is disturbed."""
    domain, _, op_type = name.rpartition(".")
    model = parsed(f"a = Relu(x) y = {name}(a)", domains=f'"{domain}" : 1')
    way_out = rf"register a rule for it with @craft_onnx\.gradient_rule\('{op_type}', domain='{domain}'\)\."
    for step in (normalize, gradient_graph):
        with pytest.raises(
            UnsupportedOperator, match=rf"{domain}::{op_type} \(node '/block/{op_type}', layer.*{way_out}"
        ):
            step(model)


def test_a_rule_for_an_operator_of_onnx():
    """Wrong on purpose, so that it cannot be anyone else's."""
    model = normalize(parsed("y = Det(x)", domains='"a" : 1', y="float[N,3] y"))

    @craft_onnx.gradient_rule("Det")
    def rule(step, dy):
        return [op.Expand(op.Unsqueeze(2 * dy, [2, 3]), op.Shape(step.x))]

    cotangent = RNG.standard_normal((2, 3)).astype(np.float32)
    dx = run(gradient_graph(model), x=X.astype(np.float32), cotangent=cotangent)
    np.testing.assert_allclose(dx, np.broadcast_to(2 * cotangent[..., None, None], X.shape))


def gelu_rule(step, dy):
    """y = x Phi(x): dx = dy (Phi(x) + x phi(x))."""
    half = 0.5 * (1 + op.Erf(step.x * 0.5**0.5))
    return [dy * (half + step.x * op.Exp(step.x * step.x * -0.5) * (2 * np.pi) ** -0.5)]


def fused_conv_rule(step, dy):
    """A convolution, then a Relu."""
    from craft_onnx.graph.reverse.gradients.convolution import conv_input_gradient
    from craft_onnx.graph.reverse.gradients.windows import conv_windows

    inside = op.Where(step.y > 0, dy, 0.0)
    return [conv_input_gradient(step.x, step.input(1), inside, conv_windows(step)), None]


FUSED = 'FusedConv<activation="Relu", kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>'
WEIGHTS = RNG.standard_normal((5, 3, 3, 3)).astype(np.float32)


def foreign_net(opset=18):
    """Operators of onnxruntime between some of ONNX's own, whose shapes depend on theirs."""
    numbers = ",".join(map(str, WEIGHTS.ravel().tolist()))
    return parsed(
        f"a = com.microsoft.Gelu(x) b = com.microsoft.Gelu(a) c = com.microsoft.{FUSED}(b, w) "
        "s = Shape<start=1>(c) m = Constant<value=int64[1] {-1}>() p = ReduceProd<keepdims=0>(s) "
        "q = Unsqueeze(p, z) r = Concat<axis=0>(m, q) y = Reshape(c, r)",
        weights=f"<float[5,3,3,3] w = {{{numbers}}}, int64[1] z = {{0}}>",
        y="float[N,M] y",
        opset=opset,
    )


def by_torch(x, cotangent):
    import torch
    import torch.nn.functional as F

    x = torch.tensor(x, requires_grad=True)
    y = F.conv2d(F.gelu(F.gelu(x)), torch.tensor(WEIGHTS, dtype=x.dtype), stride=2, padding=1).relu().flatten(1)
    return torch.autograd.grad(y, x, torch.tensor(cotangent))[0].numpy()


@pytest.mark.parametrize("opset", [13, 18, 22])
def test_rules_for_operators_of_onnxruntime(opset):
    craft_onnx.gradient_rule("Gelu", domain="com.microsoft")(gelu_rule)
    craft_onnx.gradient_rule("FusedConv", domain="com.microsoft", like="Conv")(fused_conv_rule)
    if opset < 18:
        text = "y = com.microsoft.Gelu(x)"
        assert normalize(parsed(text, opset=opset)).opset_imports == {"": 18, "com.microsoft": 1}
        return
    model, errors = normalize_proven(foreign_net(opset))
    assert max(errors.values()) < 1e-6
    shapes = {node.op_type: node.outputs[0].shape for node in model.graph}
    assert list(shapes["FusedConv"]) == ["batch", 5, 2, 2]
    cotangent = RNG.standard_normal((2, 20)).astype(np.float32)
    x = X.astype(np.float32)
    expected = by_torch(X, cotangent.astype(np.float64))
    np.testing.assert_allclose(run(gradient_graph(model), x=x, cotangent=cotangent), expected, rtol=1e-4, atol=1e-5)
    for part in gradient_pair(model):
        check(part)

"""Relevance through attention and normalizations: literal formulas, and what whole transformers make of them."""

import numpy as np
import onnx_ir as ir
import pytest
from support.gradient_oracle import assert_close, evaluate, one_node, run
from support.text_models import model_of

from craft_onnx.graph.reverse.relevance.composites import AttnLRP, EpsilonPlus, LayerMapComposite
from craft_onnx.graph.reverse.vjp import gradient_graph

SAME = 1e-9  # one formula in float64, in another order of summation
RNG = np.random.default_rng(5)
EPS, TINY = 1e-6, 1e-10


def stabilized(z, epsilon=EPS):
    return z + epsilon * np.where(z >= 0, 1, -1)


def relevance(model, rules, start, **feeds):
    return evaluate(gradient_graph(model, rules=rules), **feeds, cotangent=start)


@pytest.mark.parametrize("axis", [-1, 1])
def test_softmax(axis):
    """R_i = x_i (R_i - s_i sum_j R_j), one vector after the other."""
    x, start = RNG.standard_normal((2, 2, 4, 5))
    found = relevance(one_node("Softmax", [x], 0, {"axis": axis}), AttnLRP(), start, input_0=x)
    expected = np.empty_like(x)
    for place in np.ndindex(*np.delete(x.shape, axis)):
        at = (*place, slice(None)) if axis == -1 else (place[0], slice(None), place[1])
        s = np.exp(x[at]) / np.exp(x[at]).sum()
        expected[at] = [x[at][i] * (start[at][i] - s[i] * start[at].sum()) for i in range(len(s))]
    assert_close(found, expected, SAME, "softmax")


def test_softmax_of_what_is_masked():
    x = np.array([[1.0, -np.inf, 2.0]])
    with np.errstate(invalid="ignore"):
        found = relevance(one_node("Softmax", [x], 0), AttnLRP(), np.array([[1.0, 0.0, 0.5]]), input_0=x)
    assert found[0, 1] == 0 and np.isfinite(found).all()


ATTENTION = "q = MatMul(x, a)  t = Transpose<perm = [0, 2, 1]>(x)  l = MatMul(q, t)  s = Softmax(l)  y = MatMul(s, x)"


def attention(x, a, start, expand):
    """One head whose keys and values are x: relevance of x, entry by entry."""
    found = np.zeros_like(x)
    for row, (tokens, share) in enumerate(zip(x, start, strict=True)):
        q = tokens @ a
        logits = q @ tokens.T
        s = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        share = share / stabilized(s @ tokens)
        half = 0.5 if expand else 1
        found[row] += half * tokens * (s.T @ share)
        if expand:
            of_s = half * s * (share @ tokens.T)
            of_logits = logits * (of_s - s * of_s.sum(1, keepdims=True))
            of_logits = 0.5 * of_logits / stabilized(logits)
            found[row] += tokens * (of_logits.T @ q)
            of_q = q * (of_logits @ tokens)
            found[row] += tokens * (of_q / stabilized(q) @ a.T)
    return found


@pytest.mark.parametrize("composite", [AttnLRP(), EpsilonPlus()], ids=lambda one: one.name)
def test_attention(composite):
    x, a, start = RNG.standard_normal((2, 5, 4)), RNG.standard_normal((4, 4)), RNG.standard_normal((2, 5, 4))
    found = relevance(model_of(ATTENTION, x.shape, {"a": a}), composite, start, x=x)
    assert_close(found, attention(x, a, start, composite.name == "attn_lrp"), SAME, composite.name)
    if composite.name == "epsilon_plus":
        np.testing.assert_allclose(found.sum((1, 2)), start.sum((1, 2)), rtol=1e-3)  # the stabilizer


def test_attention_as_one_operator_is_that_of_its_parts():
    x = RNG.standard_normal((2, 5, 4)).astype(np.float32)
    whole = ir.from_onnx_text(
        """<ir_version: 11, opset_import: ["" : 23]> g (float[n, 5, 4] x) => (float[n, 5, 4] y)
        { y = Attention<q_num_heads = 2, kv_num_heads = 2>(x, x, x) }"""
    )
    parts = ir.from_onnx_text(
        """<ir_version: 11, opset_import: ["" : 23]> g (float[n, 5, 4] x) => (float[n, 5, 4] y)
        <int64[4] heads = {0, 5, 2, 2}, int64[3] joined = {0, 5, 4}, float scale = {0.8408964152537145}> {
            r = Reshape(x, heads)  q = Transpose<perm = [0, 2, 1, 3]>(r)  k = Transpose<perm = [0, 2, 3, 1]>(r)
            qs = Mul(q, scale)  ks = Mul(k, scale)  l = MatMul(qs, ks)  s = Softmax(l)  o = MatMul(s, q)
            t = Transpose<perm = [0, 2, 1, 3]>(o)  y = Reshape(t, joined)
        }"""
    )
    start = RNG.standard_normal(x.shape).astype(np.float32)
    found, expected = (run(gradient_graph(one, rules=AttnLRP()), x=x, cotangent=start) for one in (whole, parts))
    assert_close(found, expected, 1e-4, "Attention")  # float32, divided by what nearly cancels


X = RNG.standard_normal((2, 4, 6))
SCALE, BIAS = RNG.uniform(0.5, 1.5, 6), RNG.standard_normal(6)


def normalized(x, scale, bias, start, zero=False, epsilon=EPS):
    """Epsilon for y = W x + bias, W = diag(scale) (1 - 1/n) / std of each vector."""
    centring = np.eye(x.shape[-1]) - 1 / x.shape[-1]
    found = np.empty_like(x)
    for place in np.ndindex(*x.shape[:-1]):
        std = np.sqrt(x[place].var() + 1e-5)
        w = scale[:, None] * centring / std
        z = w @ x[place] + (0 if zero else bias)
        found[place] = x[place] * (w.T @ (start[place] / stabilized(z, epsilon)))
    return found


WRITTEN = {
    "op": "y = LayerNormalization(x, scale, bias)",
    # as PyTorch wrote it before there was the operator
    "divided": "m = ReduceMean(x, last)  c = Sub(x, m)  q = Pow(c, two)  v = ReduceMean(q, last)  e = Add(v, eps) "
    "d = Sqrt(e)  z = Div(c, d)  w = Mul(z, scale)  y = Add(w, bias)",
    # as TensorFlow does
    "multiplied": "m = ReduceMean(x, last)  n = Neg(m)  c = Sub(x, m)  q = Mul(c, c)  v = ReduceMean(q, last) "
    "e = Add(v, eps)  d = Sqrt(e)  r = Reciprocal(d)  g = Mul(r, scale)  a = Mul(x, g)  b = Mul(n, g)  p = Add(a, b) "
    "y = Add(p, bias)",
}
CONSTANTS = {"scale": SCALE, "bias": BIAS, "last": np.array([-1]), "two": 2.0, "eps": 1e-5}


@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("form", WRITTEN)
def test_layer_norm(form, zero):
    weights = {name: array for name, array in CONSTANTS.items() if name in WRITTEN[form].replace("LayerN", "")}
    first = "f = MatMul(x, eye)  h = Relu(f)  "
    body = first + WRITTEN[form].replace("(x,", "(h,")
    x = np.abs(X)  # behind the Relu
    start = RNG.standard_normal(X.shape)
    rules = EpsilonPlus(zero_params="bias" if zero else None, epsilon=TINY, stabilizer=TINY)
    found = relevance(model_of(body, X.shape, {"eye": np.eye(6)} | weights), rules, start, x=x)
    # Written out, there are more divisions, and each is stabilized.
    assert_close(found, normalized(x, SCALE, BIAS, start, zero, TINY), 1e-6, form)


@pytest.mark.parametrize(
    ("op_type", "groups", "opset", "tolerance"),
    # The reference evaluator takes statistics of groups in float32.
    [("InstanceNormalization", 4, 18, SAME), ("GroupNormalization", 2, 21, 1e-5)],
)
def test_other_normalizations(op_type, groups, opset, tolerance):
    """Vectors are channels, or groups of them; scale and bias are those of channels."""
    x = RNG.standard_normal((2, 4, 3, 3))
    scale, bias = RNG.uniform(0.5, 1.5, 4), RNG.standard_normal(4)
    attributes = {"num_groups": groups} if op_type == "GroupNormalization" else {}
    start = RNG.standard_normal(x.shape)
    model = one_node(op_type, [x, scale, bias], 0, attributes, opset=opset)
    found = relevance(model, LayerMapComposite(EpsilonPlus().layers()), start, input_0=x)
    each = 4 // groups
    for group in range(groups):
        at = slice(group * each, (group + 1) * each)
        vectors, shares = (one[:, at].reshape(2, -1) for one in (x, start))
        expected = normalized(vectors, np.repeat(scale[at], 9), np.repeat(bias[at], 9), shares)
        assert_close(found[:, at].reshape(2, -1), expected, tolerance, op_type)


def test_rms_norm_keeps_relevance_where_it_is():
    body = "q = Mul(h, h)  v = ReduceMean(q, last)  e = Add(v, eps)  d = Sqrt(e)  z = Div(h, d)  y = Mul(z, scale)"
    weights = {name: CONSTANTS[name] for name in ("last", "eps", "scale")} | {"eye": np.eye(6)}
    start = RNG.standard_normal(X.shape)
    model = model_of(f"f = MatMul(x, eye)  h = Relu(f)  {body}", X.shape, weights)
    found = evaluate(gradient_graph(model, wrt="h", rules=EpsilonPlus()), x=X, cotangent=start)
    assert_close(found, start, SAME, "rms")

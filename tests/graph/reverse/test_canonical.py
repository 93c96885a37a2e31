"""Forms that graphs come in: equal functions have equal relevance, whatever operators they are made of."""

import numpy as np
import pytest
from support.gradient_oracle import assert_close, evaluate
from support.text_models import model_of

from craft_onnx.graph.normalize import normalize
from craft_onnx.graph.reverse.relevance.composites import (
    COMPOSITES,
    EpsilonPlus,
    EpsilonPlusFlat,
    ExcitationBackprop,
    LayerMapComposite,
    base,
)
from craft_onnx.graph.reverse.relevance.matching import DENSE
from craft_onnx.graph.reverse.relevance.rules import AlphaBeta, Epsilon, Flat, Gamma, WSquare, ZBox, ZPlus
from craft_onnx.graph.reverse.vjp import gradient_graph

SAME = 1e-9  # one formula in float64, in another order of summation
STABILIZED = 1e-4  # a division more or less, each off by the stabilizer, 1e-6 of what may nearly cancel
RNG = np.random.default_rng(3)
X = RNG.standard_normal((2, 3, 4, 4))
SCALE, SHIFT = np.array([2.0, -0.5, 1.5]), np.array([0.3, 1.0, -0.7])
MEAN, VARIANCE = np.array([0.1, -0.2, 0.3]), np.array([0.5, 2.0, 1.0])
BATCHNORM = {"gamma": SCALE, "beta": SHIFT, "mean": MEAN, "var": VARIANCE}
FACTOR = SCALE / np.sqrt(VARIANCE + 1e-5)
ARITHMETIC = {"factor": FACTOR.reshape(3, 1, 1), "shift": (SHIFT - MEAN * FACTOR).reshape(3, 1, 1)}
# Each behind what nothing can be merged with; `first` is a convolution, behind which inputs are no longer prepared.
FIRST = {"first": np.eye(3).reshape(3, 3, 1, 1)}
UNMERGED = {
    "op": ("y = BatchNormalization(a, gamma, beta, mean, var)", BATCHNORM),
    "arithmetic": ("b = Mul(a, factor)  y = Add(b, shift)", ARITHMETIC),
    "reversed": ("b = Mul(factor, a)  c = Neg(b)  y = Sub(shift, c)", ARITHMETIC),
}


def relevance(model, rules, x=X, start=None, **where):
    """Of the inputs; where that of the outputs is not given, these are."""
    model = normalize(model)
    start = evaluate(model, x=x) if start is None else start
    return evaluate(gradient_graph(model, rules=rules, **where), x=x, cotangent=start)


@pytest.mark.parametrize("form", UNMERGED)
def test_what_is_left_of_batchnorm(form):
    """A linear operator of its own, by Epsilon: the shift takes its share, or leaves all to the data."""
    body, weights = UNMERGED[form]
    model = model_of(f"f = Conv(x, first)  a = Relu(f)  {body}", X.shape, FIRST | weights)
    assert [node.op_type for node in normalize(model).graph][:2] == ["Conv", "Relu"]
    a = np.maximum(X, 0)
    start = RNG.standard_normal(X.shape)
    y = a * FACTOR.reshape(3, 1, 1) + ARITHMETIC["shift"]
    expected = a * FACTOR.reshape(3, 1, 1) / (y + 1e-6 * np.where(y >= 0, 1, -1)) * start
    assert_close(relevance(model, EpsilonPlus(), start=start, wrt="a"), expected, SAME, form)
    assert_close(relevance(model, EpsilonPlus(zero_params="bias"), start=start, wrt="a"), start, SAME, "without bias")


def test_batchnorm_before_a_dense_layer_is_as_if_merged():
    w, b, first = RNG.standard_normal((4, 3)), RNG.standard_normal(3), np.eye(4)
    x = RNG.standard_normal((5, 4))
    scale, shift = RNG.standard_normal((2, 4))
    stem = "f = Gemm(x, first)  a = Relu(f)"
    weights = {"first": first, "scale": scale, "shift": shift, "w": w, "b": b}
    apart = model_of(f"{stem}  m = Mul(a, scale)  c = Add(m, shift)  y = Gemm(c, w, b)", x.shape, weights)
    weights = {"first": first, "w": scale[:, None] * w, "b": b + shift @ w}
    merged = model_of(f"{stem}  y = Gemm(a, w, b)", x.shape, weights)
    found, expected = (relevance(model, EpsilonPlus(), x, wrt="a") for model in (apart, merged))
    assert_close(found, expected, STABILIZED, "merged")


def test_preparing_the_input_changes_no_relevance():
    """In front of the first layer, whose rule may not be about the data: a share of these would be anything."""
    prepared = model_of("a = Mul(x, factor)  b = Add(a, shift)  y = Conv(b, first)", X.shape, FIRST | ARITHMETIC)
    bare = model_of("y = Conv(x, first)", X.shape, FIRST)
    start = RNG.standard_normal(X.shape)
    found, expected = (relevance(model, EpsilonPlusFlat(), start=start) for model in (prepared, bare))
    assert_close(found, expected, SAME, "flat")


@pytest.mark.parametrize(
    "rule",
    [
        Epsilon(),
        Epsilon(zero_params="bias"),
        ZPlus(),
        AlphaBeta(),
        Gamma(),
        Gamma(signed=False),
        WSquare(),
        Flat(),
        ZBox(),
    ],
    ids=lambda rule: type(rule).__name__,
)
@pytest.mark.parametrize("operator", ["p = MatMul(x, w)", 'p = Einsum<equation = "btk,kc->btc">(x, w)'])
def test_a_bias_behind_a_product_is_that_of_the_layer(rule, operator):
    """Rows of tokens, with the bias in an Add, as Keras and PyTorch write them, against rows of a Gemm."""
    x, w, b = RNG.standard_normal((2, 5, 4)), RNG.standard_normal((4, 3)), RNG.standard_normal(3)
    start = RNG.standard_normal((2, 5, 3))
    rules = LayerMapComposite([(DENSE, rule), *base()])
    joined = model_of("y = Gemm(x, w, b)", (10, 4), {"w": w, "b": b})
    expected = relevance(joined, rules, x.reshape(10, 4), start.reshape(10, 3)).reshape(x.shape)
    for add in ("y = Add(p, b)", "y = Add(b, p)"):
        apart = model_of(f"{operator}  {add}", x.shape, {"w": w, "b": b})
        assert_close(relevance(apart, rules, x, start), expected, SAME, "tokens")


def test_a_product_that_is_read_twice_keeps_its_sum_apart():
    x, w, b = RNG.standard_normal((2, 5, 4)), RNG.standard_normal((4, 4)), RNG.standard_normal(4)
    twice = model_of("p = MatMul(x, w)  s = Add(p, b)  y = Add(s, p)", x.shape, {"w": w, "b": b})
    found = relevance(twice, EpsilonPlus(epsilon=1e-12, stabilizer=1e-12), x)
    y = x @ w + b + x @ w
    # R = y; 2 x w of it are of the product, the rest of the bias.
    assert_close(found, x * (np.ones_like(y) * 2 @ w.T), 1e-6, "twice")


GATES = {
    "silu": "g = Sigmoid(a)  y = Mul(a, g)",
    "silu, gate in front": "g = Sigmoid(a)  y = Mul(g, a)",
    "hard swish of Keras": "s = Add(a, three)  c = Clip(s, zero, six)  g = Mul(c, sixth)  y = Mul(a, g)",
    "hard swish, scaled behind": "s = Add(a, three)  g = Clip(s, zero, six)  p = Mul(a, g)  y = Mul(p, sixth)",
    "squeeze and excitation": "m = ReduceMean(a, axes)  k = Conv(m, first)  g = Sigmoid(k)  y = Mul(a, g)",
    "excitation of MobileNetV3": "m = ReduceMean(a, axes)  k = Conv(m, first)  g = HardSigmoid(k)  y = Mul(a, g)",
    "gelu of tanh": "t = Tanh(a)  u = Add(one, t)  h = Mul(half, u)  y = Mul(a, h)",
    "gelu of erf": "h = Mul(a, half)  t = Erf(a)  u = Add(t, one)  y = Mul(h, u)",
}
NUMBERS = {"zero": 0.0, "one": 1.0, "half": 0.5, "three": 3.0, "six": 6.0, "sixth": 1 / 6, "axes": np.array([2, 3])}


@pytest.mark.parametrize("gate", GATES)
def test_a_gate_gets_nothing(gate):
    """All relevance goes to what is let through."""
    weights = {name: array for name, array in (NUMBERS | FIRST).items() if name in GATES[gate] or name == "first"}
    model = model_of(f"f = Conv(x, first)  a = Relu(f)  {GATES[gate]}", X.shape, weights)
    start = RNG.standard_normal(X.shape)
    assert_close(relevance(model, EpsilonPlus(), start=start, wrt="a"), start, SAME, gate)


def test_a_clip_that_is_no_gate_shares():
    """A rectifier behind a shift of channels is a signal, however it is made."""
    weights = FIRST | {"shift": np.array([3.0, 1.0, 2.0]).reshape(3, 1, 1), "zero": 0.0, "six": 6.0}
    body = "f = Conv(x, first)  a = Relu(f)  s = Add(a, shift)  c = Clip(s, zero, six)  y = Mul(a, c)"
    start = np.ones_like(X)
    found = relevance(model_of(body, X.shape, weights), EpsilonPlus(zero_params="bias"), start=start, wrt="a")
    assert_close(found, start, SAME, "the halves of both")


def test_means_over_space_are_pooling():
    forms = [
        "p = GlobalAveragePool(x)  y = Flatten(p)",
        "y = ReduceMean<keepdims = 0>(x, axes)",
        "p = ReduceSum(x, axes)  q = Flatten(p)  y = Mul(q, sixteenth)",
        "p = AveragePool<kernel_shape = [4, 4]>(x)  y = Flatten(p)",
    ]
    weights = {"axes": np.array([2, 3]), "sixteenth": 1 / 16}
    start = RNG.standard_normal((2, 3))
    z = X.mean((2, 3), keepdims=True)
    expected = X / 16 / (z + 1e-6 * np.where(z >= 0, 1, -1)) * start[..., None, None]
    for form in forms:
        given = {name: array for name, array in weights.items() if name in form}
        found = relevance(model_of(form, X.shape, given, rank=2), EpsilonPlus(), start=start)
        assert_close(found, expected, STABILIZED, form)


def test_sums_of_branches_divide_by_what_each_adds():
    forms = {"s = Add(a, x)": 1, "s = Sum(a, x)": 1, "s = Mean(a, x)": 0.5, "s = Sub(a, m)": 1}
    for form, factor in forms.items():
        body = f"a = Mul(x, x)  m = Neg(x)  {form}  y = Identity(s)"
        found = relevance(model_of(body, X.shape), EpsilonPlus(), start=X * X + X, wrt="a")
        z = factor * (X * X + X)
        expected = factor * X * X / (z + 1e-6 * np.where(z >= 0, 1, -1)) * (X * X + X)
        assert_close(found, expected, SAME, form)


def test_canonizers_are_taken_and_need_nothing():
    model = model_of("a = Conv(x, first)  y = Relu(a)", X.shape, FIRST)
    for kind in COMPOSITES.values():
        options = {"low": -1, "high": 1} if kind.name == "epsilon_gamma_box" else {}
        found = relevance(model, kind(canonizers=[object()], **options))
        np.testing.assert_array_equal(found, relevance(model, kind(**options)))


def test_excitation_of_tokens_is_conserved():
    """The rule of dense layers sees a bias that is an operator of its own."""
    x, w = np.abs(RNG.standard_normal((2, 5, 4))), np.abs(RNG.standard_normal((4, 3)))
    model = model_of("p = MatMul(x, w)  s = Add(p, b)  y = Relu(s)", x.shape, {"w": w, "b": np.array([-1.0, -0.5, 0])})
    start = RNG.uniform(0.5, 1, (2, 5, 3))
    found = relevance(model, ExcitationBackprop(), x, start)
    np.testing.assert_allclose(found.sum((1, 2)), start.sum((1, 2)), rtol=1e-5)  # the stabilizer

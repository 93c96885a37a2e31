"""Positions picked early: the same derivative from less work, and nothing narrowed that is read as a whole."""

import numpy as np
import onnx_ir as ir
import pytest
from support.gradient_oracle import SAME, assert_close, check_model, evaluate
from support.text_models import model_of

from craft_onnx.graph.positions import pick_early
from craft_onnx.graph.reverse.pair import gradient_pair
from craft_onnx.graph.reverse.vjp import gradient_graph, straight
from craft_onnx.graph.values import with_shapes

RNG = np.random.default_rng(0)
TOKENS, WIDTH, HEADS = 5, 6, 2
X = RNG.standard_normal((3, TOKENS, WIDTH))
WEIGHTS = {
    "one": np.ones(WIDTH),
    "bias": RNG.standard_normal(WIDTH),
    "places": RNG.standard_normal((1, TOKENS, WIDTH)),
    **{name: RNG.standard_normal((WIDTH, WIDTH)) / 2 for name in ("wq", "wk", "wv", "wo", "w1", "w2")},
    "heads": np.array([0, 0, HEADS, WIDTH // HEADS]),
    "joined": np.array([0, 0, WIDTH]),
    "zero": np.array(0),
    "two": np.array(2),
    "last": np.array([-1]),
    "ends": np.array([2**31 - 1]),
    "axis_1": np.array([1]),
    "back": np.array([-1]),
}
# Attention, its output added to the tokens, and a layer on each token.
LAYER = """
    z = LayerNormalization <axis = -1> (x, one, bias)
    q = MatMul(z, wq)  qs = Reshape(q, heads)  qh = Transpose <perm = [0, 2, 1, 3]> (qs)
    k = MatMul(z, wk)  ks = Reshape(k, heads)  kh = Transpose <perm = [0, 2, 3, 1]> (ks)
    v = MatMul(z, wv)  vs = Reshape(v, heads)  vh = Transpose <perm = [0, 2, 1, 3]> (vs)
    scores = MatMul(qh, kh)  weights = Softmax <axis = -1> (scores)
    mixed = MatMul(weights, vh)  back_again = Transpose <perm = [0, 2, 1, 3]> (mixed)
    flat = Reshape(back_again, joined)  out = MatMul(flat, wo)
    there = Add(x, places)  middle = Add(there, out)
    wide = MatMul(middle, w1)  bent = Tanh(wide)  thin = MatMul(bent, w2)  layer = Add(middle, thin)
"""
FIRST = "y = Gather <axis = 1> (layer, zero)"


def net(body, rank=2):
    return model_of(body, X.shape, WEIGHTS, rank=rank)


def narrowed(body, rank=2):
    """Lengths of axis 1 of the values that are narrowed, by name, and the model."""
    model = with_shapes(net(body, rank))
    before = {value.name: str(value.shape) for node in model.graph for value in node.outputs}
    pick_early(model)
    after = {value.name: str(value.shape) for node in model.graph for value in node.outputs}
    return {name for name, shape in before.items() if after[name] != shape}, model


def whole(body, rank=2):
    """The gradient graph without what is tested here."""
    return gradient_graph(net(body, rank), carry=lambda *given: straight(*given))


PICKS = {
    "by Gather": FIRST,
    "by an index of one axis": "picked = Gather <axis = 1> (layer, back)  y = Squeeze(picked, axis_1)",
    "by Slice": "picked = Slice(layer, last, ends, axis_1)  y = Squeeze(picked, axis_1)",
    "behind a normalization": "n = LayerNormalization <axis = 2> (layer, one)  y = Gather <axis = 1> (n, two)",
}


@pytest.mark.parametrize("pick", PICKS.values(), ids=PICKS)
def test_class_token(pick):
    """The whole last layer is that of one token, but for the keys and values that it looks at."""
    names, model = narrowed(LAYER + pick)
    expected = {"qh", "scores", "weights", "mixed", "back_again", "flat", "out", "there", "middle", "wide", "bent"}
    assert expected <= names and not names & {"z", "k", "v", "kh", "vh"}
    cotangent = RNG.standard_normal((3, WIDTH))
    assert_close(evaluate(model, x=X), evaluate(net(LAYER + pick), x=X), SAME, "the value")
    check_model(lambda dtype: net(LAYER + pick), X, single=False)
    found = evaluate(gradient_graph(net(LAYER + pick)), x=X, cotangent=cotangent)
    assert_close(found, evaluate(whole(LAYER + pick), x=X, cotangent=cotangent), SAME, "the derivative")


def test_products_of_less_are_left():
    """Of the products of the last layer, only keys and values are made for every token, there and back."""
    rows = [
        str(node.outputs[0].shape[1])
        for node in gradient_graph(net(LAYER + FIRST)).graph
        if node.op_type == "MatMul" and len(node.outputs[0].shape) == 3
    ]
    assert rows.count(str(TOKENS)) == 4
    assert rows.count("1") == 7  # there without the last one, which no derivative needs


READ_AS_A_WHOLE = {
    "two positions": FIRST.replace("y =", "a =") + "  b = Gather <axis = 1> (layer, two)  y = Add(a, b)",
    "the mean as well": FIRST.replace("y =", "a =") + "  b = ReduceMean <keepdims = 0> (layer, axis_1)  y = Add(a, b)",
    "from behind": "picked = Slice(layer, last, zero_1, axis_1, back)  y = Squeeze(picked, axis_1)",
    "from before the first": "picked = Slice(layer, far, one_1, axis_1)  y = Squeeze(picked, axis_1)",
}


@pytest.mark.parametrize("pick", READ_AS_A_WHOLE.values(), ids=READ_AS_A_WHOLE)
def test_read_as_a_whole(pick, monkeypatch):
    bounds = {"zero_1": np.array([-2]), "far": np.array([-100]), "one_1": np.array([1])}
    for name, array in bounds.items():
        monkeypatch.setitem(WEIGHTS, name, array)
    names, _ = narrowed(LAYER + pick)
    assert names <= {"picked"}
    check_model(lambda dtype: net(LAYER + pick), X, single=False)


def test_outputs_and_tensors_to_keep_stay_whole():
    model = with_shapes(net(LAYER + FIRST))
    pick_early(model, {"middle", None})
    shapes = {value.name: str(value.shape) for node in model.graph for value in node.outputs}
    assert shapes["middle"] == f"[n,{TOKENS},{WIDTH}]" and shapes["bent"] == f"[n,1,{WIDTH}]"
    cotangent = RNG.standard_normal((3, WIDTH))
    for name in ("middle", "scores", "flat"):
        found = evaluate(gradient_graph(net(LAYER + FIRST), wrt=name), x=X, cotangent=cotangent)
        expected = gradient_graph(net(LAYER + FIRST), wrt=name, carry=lambda *given: straight(*given))
        assert_close(found, evaluate(expected, x=X, cotangent=cotangent), SAME, name)
    forward, _ = gradient_pair(net(LAYER + FIRST), keep=["middle"])
    assert "middle" in [value.name for value in forward.graph.outputs]
    assert next(str(value.shape) for value in forward.graph.outputs if value.name == "middle") == shapes["middle"]


# Of x (3, 5, 6): what is computed, the axis and the axes of what is picked from, and what is narrowed.
STEPS = {
    "a column of B": ("e = MatMul(x, wq)", 2, 3, {"e"}),
    "one of many products": ("t = Transpose <perm = [0, 2, 1]> (x)  m = MatMul(x, t)  e = Exp(m)", 1, 3, {"m", "e"}),
    "the same tensor twice": ("e = Mul(x, x)", 1, 3, {"e"}),
    "a scale of one number": ("e = Mul(x, one_number)", 1, 3, {"e"}),
    "the axis that is normalized": ("e = Softmax <axis = 1> (x)", 1, 3, set()),
    "another than the one normalized": ("e = Softmax <axis = 1> (x)", 2, 3, {"e"}),
    "axes normalized from it on": ("e = LayerNormalization <axis = 1> (x, both)", 1, 3, set()),
    "a scale for each position": ("e = LayerNormalization <axis = -1> (x, both)", 1, 3, {"e"}),
    "split axes": ("r = Reshape(x, split)  e = Exp(r)", 1, 4, {"r", "e"}),
    "split axes, inside": ("r = Reshape(x, split)  e = Exp(r)", 3, 4, {"e"}),
    "copied sizes": ("r = Reshape(x, copied)  e = Exp(r)", 1, 4, {"r", "e"}),
    "an axis more": ("u = Unsqueeze(x, axis_1)  e = Exp(u)", 2, 4, {"u", "e"}),
    "an axis less, said which": ("u = Unsqueeze(x, axis_1)  e = Squeeze(u, axis_1)", 1, 3, {"u", "e"}),
    "what has no rule": ("c = CumSum(x, one_axis)  e = Exp(c)", 1, 3, {"e"}),
}


@pytest.mark.parametrize(("body", "axis", "rank", "expected"), STEPS.values(), ids=STEPS)
def test_step(body, axis, rank, expected, monkeypatch):
    more = {
        "one_number": np.array([[0.5]]), "both": RNG.standard_normal((TOKENS, WIDTH)), "copied": np.array([0, 0, 2, 3]),
        "split": np.array([-1, TOKENS, 2, 3]), "one_axis": np.array(1),
    }  # fmt: skip
    for name, array in more.items():
        monkeypatch.setitem(WEIGHTS, name, array)
    body = f"{body}  y = Gather <axis = {axis}> (e, two)"
    names, model = narrowed(body, rank - 1)
    assert names == expected
    assert_close(evaluate(model, x=X), evaluate(net(body, rank - 1), x=X), SAME, "the value")
    check_model(lambda dtype: net(body, rank - 1), X, single=False)


def test_an_axis_less_and_not_said_which():
    """Squeeze would drop the axis of which one position is left, too."""
    model = with_shapes(
        ir.from_onnx_text("""<ir_version: 10, opset_import: ["" : 18]>
            g (double[3, 1, 5, 6] x) => (double[3, 6] y) <int64 two = {2}> {
                a = Exp(x)  e = Squeeze(a)  y = Gather <axis = 1> (e, two)
            }""")
    )
    pick_early(model)
    assert [str(node.outputs[0].shape) for node in model.graph] == ["[3,1,5,6]", "[3,5,6]", "[3,6]"]


def test_integers_stay_as_they_are():
    """Shapes are picked from all the time."""
    body = "s = Shape(x)  n = Mul(s, two)  y = Gather(n, zero)"
    model = with_shapes(
        ir.from_onnx_text(f"""<ir_version: 10, opset_import: ["" : 18]>
            g (float[n, 3] x) => (int64 y) <int64 two = {{2}}, int64 zero = {{0}}> {{ {body} }}""")
    )
    pick_early(model)
    assert [node.op_type for node in model.graph] == ["Shape", "Mul", "Gather"]

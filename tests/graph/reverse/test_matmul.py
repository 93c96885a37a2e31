"""Gradients of matrix products."""

import numpy as np
import pytest
import torch
from support.gradient_oracle import check_model, check_node
from support.text_models import model_of

from craft_onnx.graph.reverse.vjp import gradient_graph

RNG = np.random.default_rng(5)


def draw(*shapes):
    return [RNG.standard_normal(shape) for shape in shapes]


SHAPES = [
    ((3, 4), (4, 5)),
    ((4,), (4,)),
    ((4,), (4, 5)),
    ((3, 4), (4,)),
    ((2, 3, 4), (4, 5)),
    ((2, 3, 4), (2, 4, 5)),
    ((3, 4), (2, 4, 5)),
    ((2, 1, 3, 4), (6, 4, 5)),
    ((1, 3, 4), (2, 6, 4, 5)),
    ((4,), (2, 4, 5)),
    ((2, 3, 4), (4,)),
    ((1, 1), (1, 1)),
]


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_matmul(shapes):
    check_node("MatMul", draw(*shapes), wrt=(0, 1), torch=torch.matmul)


# By the shape of C, None where there is none.
@pytest.mark.parametrize("c", [None, (), (5,), (1, 5), (3, 1), (3, 5), (1, 1)], ids=str)
@pytest.mark.parametrize("transposed", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_gemm(transposed, c):
    a, b = draw((3, 4), (4, 5))
    a, b = (x.T.copy() if turn else x for x, turn in zip((a, b), transposed, strict=True))
    alpha, beta = 0.75, 1.5  # attributes are float32, which has these exactly

    def function(a, b, c=None):
        a, b = (x.T if turn else x for x, turn in zip((a, b), transposed, strict=True))
        return alpha * a @ b + (0 if c is None else beta * c)

    attributes = {"transA": transposed[0], "transB": transposed[1], "alpha": alpha, "beta": beta}
    given = [a, b] if c is None else [a, b, *draw(c)]
    check_node("Gemm", given, attributes, wrt=range(len(given)), torch=function)


def test_gemm_without_attributes():
    check_node("Gemm", draw((3, 4), (4, 5), (5,)), wrt=(0, 1, 2), torch=lambda a, b, c: a @ b + c)


# Weights of tokens for tokens, however the exporter transposes the keys: q, k, v are x and x times a matrix.
SCORES = {
    "transposed": "kt = Transpose <perm = [0, 2, 1]> (k)  s = MatMul(x, kt)",
    "transposed twice": (
        "kt = Transpose <perm = [0, 2, 1]> (k)  ktt = Transpose <perm = [0, 2, 1]> (kt)"
        "  back = Transpose <perm = [0, 2, 1]> (ktt)  s = MatMul(x, back)"
    ),
    "the product transposed": (
        "xt = Transpose <perm = [0, 2, 1]> (x)  st = MatMul(k, xt)  s = Transpose <perm = [0, 2, 1]> (st)"
    ),
}
OUTPUTS = {
    "attention": ("y = MatMul(p, v)", lambda p, v: p @ v),
    "values transposed": ("vt = Transpose <perm = [0, 2, 1]> (v)  vtt = Transpose <perm = [0, 2, 1]> (vt)"
                          "  y = MatMul(p, vtt)", lambda p, v: p @ v),
    "weights read twice": ("o = MatMul(p, v)  r = ReduceMax <keepdims = 1> (p, last)  y = Mul(o, r)",
                           lambda p, v: p @ v * p.amax(-1, keepdim=True)),
    "weights behind": ("vt = Transpose <perm = [0, 2, 1]> (v)  pt = Transpose <perm = [0, 2, 1]> (p)"
                       "  yt = MatMul(vt, pt)  y = Transpose <perm = [0, 2, 1]> (yt)", lambda p, v: p @ v),
    "one value for all": ("o = MatMul(p, all)  y = Mul(o, v)", lambda p, v: p @ torch.tensor(ALL) * v),
}  # fmt: skip
WEIGHTS = {"wk": RNG.standard_normal((4, 4)), "wv": RNG.standard_normal((4, 4))}
ALL = RNG.standard_normal((3, 1))


@pytest.mark.parametrize(("body", "function"), OUTPUTS.values(), ids=OUTPUTS)
@pytest.mark.parametrize("scores", SCORES.values(), ids=SCORES)
def test_attention(scores, body, function):
    def by_torch(x, cotangent):
        at = torch.tensor(x, requires_grad=True)
        k, v = (at @ torch.tensor(WEIGHTS[name]) for name in ("wk", "wv"))
        y = function(torch.softmax(at @ k.transpose(1, 2), -1), v)
        return torch.autograd.grad(y, at, torch.tensor(cotangent))[0].numpy()

    text = f"k = MatMul(x, wk)  v = MatMul(x, wv)  {scores}  p = Softmax <axis = -1> (s)  {body}"
    weights = WEIGHTS | {"last": np.array([-1]), "all": ALL}
    check_model(
        lambda dtype: model_of(text, (2, 3, 4), weights), RNG.standard_normal((2, 3, 4)), by_torch, single=False
    )


def test_attention_without_products_transposed_or_sums_over_tokens():
    """dK is made as it is needed, and the sum of the softmax is that over features."""
    body = f"{SCORES['transposed']}  p = Softmax <axis = -1> (s)  y = MatMul(p, v)"
    text = f"k = MatMul(x, wk)  v = MatMul(x, wv)  {body}"
    model = model_of(text, (2, 3, 4), WEIGHTS)
    model.graph.outputs[0].shape = model.graph.inputs[0].shape
    emitted = [node for node in gradient_graph(model).graph if "reverse" in node.name]
    products = {node.outputs[0] for node in emitted if node.op_type == "MatMul"}
    assert not any(node.op_type == "Transpose" and node.inputs[0] in products for node in emitted)
    summed = {str(node.inputs[0].shape) for node in emitted if node.op_type == "ReduceSum"}
    assert "[n,3,4]" in summed and "[n,3,3]" not in summed

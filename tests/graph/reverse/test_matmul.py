"""Gradients of matrix products."""

import numpy as np
import pytest
import torch
from support.gradient_oracle import check_node

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

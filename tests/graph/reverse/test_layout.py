"""Gradients of operators that only move, copy or drop numbers."""

import numpy as np
import pytest
from support.gradient_oracle import check_node

torch = pytest.importorskip("torch")
RNG = np.random.default_rng(3)


def numbers(*shape):
    return RNG.standard_normal(shape)


@pytest.mark.parametrize("perm", [None, [0, 2, 1], [2, 0, 1], [1, 2, 0], [2, 1, 0], [0, 1, 2]])
def test_transpose(perm):
    attributes = {} if perm is None else {"perm": perm}
    check_node("Transpose", [numbers(2, 3, 4)], attributes, torch=lambda x: x.permute(perm or (2, 1, 0)))


@pytest.mark.parametrize("shape", [[2, 12], [-1], [0, -1], [4, 0, 2], [1, 2, 1, 12]])
def test_reshape(shape):
    check_node("Reshape", [numbers(2, 3, 4), np.array(shape)])


@pytest.mark.parametrize(
    ("op_type", "arrays", "attributes"),
    [
        ("Flatten", [numbers(2, 3, 4)], {"axis": 2}),
        ("Flatten", [numbers(2, 3, 4)], {"axis": 0}),
        ("Squeeze", [numbers(2, 1, 3, 1), np.array([-1])], {}),
        ("Unsqueeze", [numbers(2, 3), np.array([0, -1])], {}),
    ],
)
def test_reshaping(op_type, arrays, attributes):
    check_node(op_type, arrays, attributes)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_concat(axis):
    parts = [np.moveaxis(numbers(n, 2, 3), 0, axis) for n in (2, 1, 4)]
    check_node("Concat", parts, {"axis": axis}, wrt=(0, 1, 2), torch=lambda *x: torch.cat(x, axis))

"""Gradients of Einsum."""

import numpy as np
import pytest
import torch
from support.gradient_oracle import check_node

from craft_onnx.graph.reverse.gradients.einsum import Equation, parsed

RNG = np.random.default_rng(6)

EQUATIONS = {
    "ij,jk->ik": [(3, 4), (4, 5)],
    "ij,jk": [(3, 4), (4, 5)],
    "ji": [(3, 4)],
    " b i j , b j k -> b i k ": [(2, 3, 4), (2, 4, 5)],
    "bhwqc,hkc->bhwqk": [(2, 3, 2, 4, 5), (3, 6, 5)],
    "i,i,i->i": [(3,), (3,), (3,)],
    "ij,ik,il->jkl": [(3, 4), (3, 2), (3, 5)],
    "i,j->ij": [(3,), (4,)],
    # Letters that nobody else has: summed.
    "ij->i": [(3, 4)],
    "ij->": [(3, 4)],
    "i,j->i": [(3,), (4,)],
    # Letters twice in one operand: diagonals.
    "ii->i": [(4, 4)],
    "ii": [(4, 4)],
    "iij->ij": [(4, 4, 3)],
    "iii->i": [(3, 3, 3)],
    "ii,ij->j": [(3, 3), (3, 4)],
    # Axes without letters.
    "...ij,...jk->...ik": [(2, 3, 4), (2, 4, 5)],
    "...ij,jk->...ik": [(2, 3, 3, 4), (4, 5)],
    "...i->i...": [(2, 3, 4)],
    "...ii->...i": [(2, 3, 3)],
    "...ij": [(2, 3, 4)],
    # A length of 1 beside a longer one.
    "ab,bc->ac": [(3, 4), (1, 5)],
}


@pytest.mark.parametrize("equation", EQUATIONS)
def test_einsum(equation):
    given = [RNG.standard_normal(shape) for shape in EQUATIONS[equation]]
    check_node(
        "Einsum", given, {"equation": equation}, wrt=range(len(given)), torch=lambda *x: torch.einsum(equation, *x)
    )


def test_axes_behind_an_ellipsis_are_aligned_at_the_last():
    assert parsed("...,a...->...", [2, 2]) == Equation(["bc", "ac"], "bc")


def test_a_result_not_written_out_has_the_letters_that_occur_once():
    assert parsed("b...a,ca", [3, 2]) == Equation(["bda", "ca"], "dbc")

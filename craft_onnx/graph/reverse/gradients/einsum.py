"""Gradients of Einsum: each is an Einsum again."""

import re
import string
from dataclasses import dataclass
from itertools import islice

import onnx_ir as ir

from craft_onnx.graph.reverse.rules import Rule, Step
from craft_onnx.graph.reverse.tensor import Tensor, op


@dataclass(frozen=True)
class Equation:
    """An equation of Einsum, every axis with a letter of its own.

    Attributes
    ----------
    terms : list of str
        The letters of each operand.
    result : str
        The letters of the result, each of them once.
    """

    terms: list[str]
    result: str

    @property
    def unused(self) -> list[str]:
        """Letters that it does not have."""
        return [letter for letter in string.ascii_letters if letter not in "".join(self.terms) + self.result]


def parsed(equation: str, ranks: list[int]) -> Equation:
    """Read an equation: the axes behind an ellipsis get letters, a result that is not written out is completed.

    Axes that an ellipsis stands for in several operands are aligned at the last.
    """
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    hidden = [rank - len(term.replace("...", "")) for term, rank in zip(terms, ranks, strict=True)]
    most = max((count for term, count in zip(terms, hidden, strict=True) if "..." in term), default=0)
    letters = "".join(islice((one for one in string.ascii_letters if one not in equation), most))
    if not arrow:
        once = sorted(one for one in set(re.sub(r"[.,]", "", left)) if left.count(one) == 1)
        right = "..." * ("..." in left) + "".join(once)
    filled = [term.replace("...", letters[most - count :]) for term, count in zip(terms, hidden, strict=True)]
    return Equation(filled, right.replace("...", letters))


def _einsum(step: Step, dy: Tensor) -> list[Tensor | None]:
    operands = [step.input(index) for index in range(len(step.inputs))]
    equation = parsed(step.attribute("equation"), [one.rank for one in operands])
    return [_gradient(equation, operands, index, dy) if want else None for index, want in enumerate(step.wanted)]


def _gradient(equation: Equation, operands: list[Tensor], index: int, dy: Tensor) -> Tensor:
    """The product of all others and dy, summed to the letters of one operand.

    A letter that this operand has twice is a diagonal: its second axis gets another letter and the product an identity
    matrix of the two. Along a letter that nobody else has, everything is the same: an axis of length 1 is expanded.
    """
    x, own = operands[index], equation.terms[index]
    terms = [term for at, term in enumerate(equation.terms) if at != index] + [equation.result]
    factors = [one for at, one in enumerate(operands) if at != index] + [dy]
    unused = iter(equation.unused)
    distinct = ""
    for axis, letter in enumerate(own):
        if letter in distinct:
            other = next(unused)
            terms.append(letter + other)
            factors.append(_identity_matrix(x, axis))
            letter = other
        distinct += letter
    have = [letter for letter in distinct if letter in "".join(terms)]
    found = op.Einsum(*factors, equation=f"{','.join(terms)}->{''.join(have)}")
    found.value.shape = _shape(terms, factors, have)
    missing = [axis for axis, letter in enumerate(distinct) if letter not in have]
    return _expanded(op.Unsqueeze(found, missing) if missing else found, x)


def _shape(terms: list[str], factors: list[Tensor], have: list[str]) -> ir.Shape:
    """ONNX's own inference gives up where a length is 1 in one factor and more in another."""
    sizes: dict[str, int | str] = {}
    for letter, size in zip("".join(terms), (size for one in factors for size in one.shape), strict=True):
        sizes[letter] = size if sizes.get(letter, 1) == 1 else sizes[letter]
    return ir.Shape([sizes[letter] for letter in have])


def _identity_matrix(x: Tensor, axis: int) -> Tensor:
    """Of the size of an axis of x."""
    count = op.Range(0, op.Squeeze(op.Shape(x, start=axis, end=axis + 1)), 1)
    return op.CastLike(op.Equal(op.Unsqueeze(count, [0]), op.Unsqueeze(count, [1])), x)


def _expanded(found: Tensor, x: Tensor) -> Tensor:
    """Repeated along the axes that are longer in x."""
    return found if found.shape == x.shape else op.Expand(found, op.Shape(x))


RULES: dict[str, Rule] = {"Einsum": _einsum}

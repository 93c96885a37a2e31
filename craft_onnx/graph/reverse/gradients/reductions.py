"""Gradients of reductions over axes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from craft_onnx.graph.reverse.broadcast import in_float32, sum_over
from craft_onnx.graph.reverse.gradients.refusal import refusal
from craft_onnx.graph.reverse.rules import Rule, Step
from craft_onnx.graph.reverse.tensor import Tensor, op

Axes = tuple[int, ...]


def reduction(derivative: Callable[[Tensor, Tensor, Tensor, Axes], Tensor]) -> Rule:
    """The rule of a reduction, from (x, y, dy, axes) to dx; y and dy have the reduced axes at length 1."""

    def rule(step: Step, dy: Tensor) -> list[Tensor | None]:
        axes = reduced_axes(step)
        dropped = axes and not step.attribute("keepdims", 1)
        y, dy = (op.Unsqueeze(t, list(axes)) if dropped else t for t in (step.y, dy))
        return [derivative(step.x, y, dy, axes), *[None] * (len(step.inputs) - 1)]

    return rule


def reduced_axes(step: Step) -> Axes:
    """The axes that a reduction reduces, counted from the front; all where none are named.

    Raises
    ------
    UnsupportedOperator
        If they are computed.
    """
    axes = step.integers("axes", 1)
    if axes is None and step.has_input(1):
        raise refusal(step, "computes its axes")
    if axes or step.attribute("noop_with_empty_axes", 0):
        return tuple(sorted(axis % step.x.rank for axis in axes or ()))
    return tuple(range(step.x.rank))


def spread(t: Tensor, x: Tensor) -> Tensor:
    """Repeat what a reduction left, so that it has the shape of what was reduced: the derivative of a sum."""
    return op.Expand(t, op.Shape(x)).shaped_like(x)


def inverse_count(x: Tensor, axes: Sequence[int]) -> float | Tensor:
    """1 / the number of elements along some axes; a tensor where their lengths are open."""
    lengths = [x.shape[axis] for axis in axes]
    if all(isinstance(length, int) for length in lengths):
        return 1 / math.prod(int(length) for length in lengths)
    count = op.ReduceProd(op.Gather(op.Shape(x), list(axes)), keepdims=0)
    wide = ir.DataType.DOUBLE if x.dtype == ir.DataType.DOUBLE else ir.DataType.FLOAT  # float16 ends at 65504
    return op.Cast(op.Reciprocal(op.Cast(count, to=wide)), to=x.dtype)


def _extremum(x: Tensor, y: Tensor, dy: Tensor, axes: Axes) -> Tensor:
    """Equal extrema share dy equally, as PyTorch's amax has it."""
    chosen = op.Cast(op.Equal(x, y), to=x.dtype)
    return dy * (chosen / sum_over(chosen, axes))


def _norm(x: Tensor, y: Tensor, dy: Tensor, _axes: Axes) -> Tensor:
    """dx = dy x / y; zero where y is, as PyTorch has it."""
    return dy * (x / op.Where(op.Equal(y, 0.0), 1.0, y))


def _product(x: Tensor, y: Tensor, dy: Tensor, axes: Axes) -> Tensor:
    """dx is dy times the product of the others: of all numbers but zeros, divided by x, where no other is zero."""

    def others(x: Tensor) -> Tensor:
        zero = op.Equal(x, 0.0)
        zeros = op.Cast(zero, to=x.dtype)
        rest = op.Where(zero, 1.0, x)
        product = op.ReduceProd(rest, np.array(axes, np.int64), noop_with_empty_axes=1)
        return op.Where(sum_over(zeros, axes) > zeros, 0.0, product / rest)

    return dy * in_float32(others, x)


RULES: dict[str, Rule] = {
    "ReduceSum": reduction(lambda x, y, dy, axes: spread(dy, x)),
    "ReduceMean": reduction(lambda x, y, dy, axes: spread(dy * inverse_count(x, axes), x)),
    "ReduceMax": reduction(_extremum),
    "ReduceMin": reduction(_extremum),
    "ReduceL1": reduction(lambda x, y, dy, axes: dy * op.Sign(x)),
    "ReduceL2": reduction(_norm),
    "ReduceSumSquare": reduction(lambda x, y, dy, axes: dy * (2 * x)),
    "ReduceLogSum": reduction(lambda x, y, dy, axes: spread(dy * op.Exp(-y), x)),
    "ReduceLogSumExp": reduction(lambda x, y, dy, axes: dy * op.Exp(x - y)),
    "ReduceProd": reduction(_product),
}

"""Gradients of reductions over axes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx_ir as ir

from craft_onnx.errors import UnsupportedOperator
from craft_onnx.graph.reverse.rules import Rule, Step
from craft_onnx.graph.reverse.tensor import Tensor, op


def spread(t: Tensor, x: Tensor) -> Tensor:
    """Repeat what a reduction left along the axes that it reduced: the derivative of a sum."""
    return op.Expand(t, op.Shape(x)).shaped_like(x)


def inverse_count(x: Tensor, axes: Sequence[int]) -> float | Tensor:
    """1 / the number of elements along some axes, as a number where their lengths are known."""
    lengths = [x.shape[axis] for axis in axes]
    if all(isinstance(length, int) for length in lengths):
        return 1 / math.prod(int(length) for length in lengths)
    count = op.ReduceProd(op.Gather(op.Shape(x), list(axes)), keepdims=0)
    wide = ir.DataType.DOUBLE if x.dtype == ir.DataType.DOUBLE else ir.DataType.FLOAT  # float16 ends at 65504
    return op.Cast(op.Reciprocal(op.Cast(count, to=wide)), to=x.dtype)


def reduced_axes(step: Step) -> tuple[int, ...]:
    """The axes that a reduction reduces, counted from the front; all where none are named."""
    axes = step.integers("axes", 1)
    if axes is None and step.has_input(1):
        raise UnsupportedOperator(
            f"The axes of {step.node.op_type} (node {step.node.name!r}) are computed from the picture.",
            "Export the model with constant axes.",
        )
    if axes or step.attribute("noop_with_empty_axes", 0):
        return tuple(sorted(axis % step.x.rank for axis in axes or ()))
    return tuple(range(step.x.rank))


def _kept(step: Step, t: Tensor, axes: Sequence[int]) -> Tensor:
    """An output, or its cotangent, with the reduced axes at length 1."""
    return t if step.attribute("keepdims", 1) or not axes else op.Unsqueeze(t, list(axes))


def _reduce_sum(step: Step, dy: Tensor) -> list[Tensor | None]:
    return [spread(_kept(step, dy, reduced_axes(step)), step.x), *[None] * (len(step.inputs) - 1)]


def _reduce_mean(step: Step, dy: Tensor) -> list[Tensor | None]:
    axes = reduced_axes(step)
    shares = _kept(step, dy, axes) * inverse_count(step.x, axes)
    return [spread(shares, step.x), *[None] * (len(step.inputs) - 1)]


RULES: dict[str, Rule] = {"ReduceSum": _reduce_sum, "ReduceMean": _reduce_mean}

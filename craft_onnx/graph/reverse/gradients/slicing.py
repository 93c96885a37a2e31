"""The gradient of Slice: what was taken goes back to its place among zeros."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from craft_onnx.graph.reverse.gradients.refusal import refusal
from craft_onnx.graph.reverse.gradients.shapes import Integers, clipped, from_front, integers, joined, lengths, padded
from craft_onnx.graph.reverse.rules import Rule, Step
from craft_onnx.graph.reverse.tensor import Tensor, op


def _slice(step: Step, dy: Tensor) -> list[Tensor | None]:
    """y[i] = x[start + i step], for every axis: turn dy around where steps are negative, spread it, pad it."""
    axes, steps = _axes(step), _steps(step)
    begin = _begin(step, axes, steps, lengths(dy, axes))
    dx = turned(dy, [axis for axis, size in zip(axes, steps, strict=True) if size < 0])
    for axis, size in zip(axes, steps, strict=True):
        dx = spread(dx, axis, abs(size))
    return [put_back(dx, step.x, axes, begin), *[None] * (len(step.inputs) - 1)]


def _axes(step: Step) -> list[int]:
    count = step.input(1).shape[0]
    axes = step.input(3).array if step.has_input(3) else range(count) if isinstance(count, int) else None
    if axes is None:
        raise refusal(step, "computes the axes that it slices")
    return [int(axis) % step.x.rank for axis in axes]


def _steps(step: Step) -> list[int]:
    steps = step.input(4).array if step.has_input(4) else [1] * len(_axes(step))
    if steps is None:
        raise refusal(step, "computes its step sizes")
    return [int(size) for size in steps]


def _begin(step: Step, axes: Sequence[int], steps: Sequence[int], count: Integers) -> Integers:
    """The smallest position taken on each axis; starts count from the end where negative, and stay in range."""
    sizes, backwards = lengths(step.x, axes), np.array([int(size < 0) for size in steps])
    first = clipped(from_front(integers(step.input(1)), sizes), 0, sizes - backwards)
    return first - (count - 1) * (backwards * np.abs(steps)) if backwards.any() else first


def turned(x: Tensor, axes: Sequence[int]) -> Tensor:
    """Backwards along axes."""
    count = len(axes)
    return op.Slice(x, [-1] * count, [-(2**31)] * count, list(axes), [-1] * count) if count else x


def spread(x: Tensor, axis: int, size: int) -> Tensor:
    """With `size` - 1 zeros behind every position of an axis."""
    if size == 1:
        return x
    apart = padded(op.Unsqueeze(x, [axis + 1]), [0, size - 1], [axis + 1])
    behind = lengths(x, range(axis + 1, x.rank))
    return op.Reshape(apart, joined([0] * axis + [-1], behind))


def put_back(part: Tensor, whole: Tensor, axes: Sequence[int], begin: Integers) -> Tensor:
    """A part at its position `begin` on each of `axes`, zeros around it, in the shape of the whole."""
    behind = lengths(whole, axes) - begin - lengths(part, axes)
    return padded(part, joined(begin, behind), axes).shaped_like(whole)


RULES: dict[str, Rule] = {"Slice": _slice}

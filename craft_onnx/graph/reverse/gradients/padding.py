"""The gradient of Pad: the inside of dy, and its margins added to where their numbers came from."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from craft_onnx.graph.reverse.broadcast import sum_over
from craft_onnx.graph.reverse.gradients.refusal import refusal
from craft_onnx.graph.reverse.gradients.shapes import Integers, integers, lengths, padded, reshaped, zeros_like
from craft_onnx.graph.reverse.gradients.slicing import put_back, turned
from craft_onnx.graph.reverse.rules import Rule, Step
from craft_onnx.graph.reverse.tensor import Tensor, op

_LAST = 2**31
# From a margin of dy, its axis, its width, the length of x there, and whether it is in front, to what is added to the
# inside, and at which position.
_Source = Callable[[Tensor, int, int, Integers, bool], tuple[Tensor, Integers]]


def _pad(step: Step, dy: Tensor) -> list[Tensor | None]:
    mode = step.attribute("mode", "constant")
    dx = _cut(step, dy) if mode == "constant" else _folded(step, dy, _SOURCES[mode])
    dfill = _of_fill(step, dy) if any(step.wanted[2:]) else None
    return [dx.shaped_like(step.x), None, dfill, None][: len(step.inputs)]


def _cut(step: Step, dy: Tensor) -> Tensor:
    """The opposite pads."""
    return padded(dy, -integers(step.input(1)), _axes(step))


def _of_fill(step: Step, dy: Tensor) -> Tensor:
    """The sum of dy over the padding."""
    outside = padded(zeros_like(step.x), integers(step.input(1)), _axes(step), 1.0)
    return reshaped(sum_over(dy * outside, range(dy.rank), keepdims=False), step.input(2))


def _folded(step: Step, dy: Tensor, source: _Source) -> Tensor:
    """Axis by axis: the margins folded in, and zeros where negative pads had cut off."""
    for axis, (before, behind) in _pads(step).items():
        dy = _folded_axis(step, dy, axis, (max(before, 0), max(behind, 0)), source)
        if min(before, behind) < 0:
            dy = padded(dy, [max(-before, 0), max(-behind, 0)], [axis])
    return dy


def _pads(step: Step) -> dict[int, tuple[int, int]]:
    """For every axis that is padded, before and behind."""
    pads = integers(step.input(1))
    if isinstance(pads, Tensor):
        raise refusal(step, "computes the widths of a padding that is not constant")
    pairs = dict(zip(_axes(step), pads.reshape(2, -1).T.tolist(), strict=True))
    return {axis: (before, behind) for axis, (before, behind) in pairs.items() if before or behind}


def _axes(step: Step) -> list[int]:
    axes = integers(step.input(3)) if step.has_input(3) else np.arange(step.x.rank)
    if isinstance(axes, Tensor):
        raise refusal(step, "computes the axes that it pads")
    return [int(axis) for axis in axes % step.x.rank]


def _folded_axis(step: Step, dy: Tensor, axis: int, widths: tuple[int, int], source: _Source) -> Tensor:
    inside = op.Slice(dy, [widths[0]], [-widths[1] or _LAST], [axis])
    length = lengths(inside, [axis])
    if isinstance(length, np.ndarray) and max(widths) > length and source is not _SOURCES["edge"]:
        raise refusal(step, "pads with more than all of its input")
    total = inside
    for width, front in zip(widths, (True, False), strict=True):
        if width:
            margin = op.Slice(dy, [0] if front else [-width], [width] if front else [_LAST], [axis])
            part, begin = source(margin, axis, width, length, front)
            total = total + put_back(part, inside, [axis], begin)
    return total


def _reflect(margin: Tensor, axis: int, width: int, length: Integers, front: bool) -> tuple[Tensor, Integers]:
    """Mirrored in the first or the last position, which is not repeated itself."""
    return turned(margin, [axis]), np.ones(1, np.int64) if front else length - (1 + width)


def _edge(margin: Tensor, axis: int, width: int, length: Integers, front: bool) -> tuple[Tensor, Integers]:
    """Copies of the first or the last position."""
    return sum_over(margin, [axis]), np.zeros(1, np.int64) if front else length - 1


def _wrap(margin: Tensor, axis: int, width: int, length: Integers, front: bool) -> tuple[Tensor, Integers]:
    """From the other end."""
    return margin, length - width if front else np.zeros(1, np.int64)


_SOURCES: dict[str, _Source] = {"reflect": _reflect, "edge": _edge, "wrap": _wrap}
RULES: dict[str, Rule] = {"Pad": _pad}

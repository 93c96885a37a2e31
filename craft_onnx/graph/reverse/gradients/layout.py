"""Gradients of operators that only move, copy or drop numbers."""

from __future__ import annotations

import numpy as np

from craft_onnx.graph.reverse.broadcast import sum_over
from craft_onnx.graph.reverse.gradients.matmul import exchange, transposed
from craft_onnx.graph.reverse.gradients.refusal import refusal
from craft_onnx.graph.reverse.gradients.shapes import Integers, integers, joined, lengths, reshaped, zeros_like
from craft_onnx.graph.reverse.rules import Rule, Step
from craft_onnx.graph.reverse.tensor import Tensor, emit, op


def first_only(step: Step, dx: Tensor) -> list[Tensor | None]:
    """A cotangent for the first input alone: the others are shapes, axes or counts."""
    return [dx, *[None] * (len(step.inputs) - 1)]


def _reshape(step: Step, dy: Tensor) -> list[Tensor | None]:
    """The numbers keep their order: back to the shape of x."""
    return first_only(step, reshaped(dy, step.x))


def _transpose(step: Step, dy: Tensor) -> list[Tensor]:
    order = [int(axis) for axis in np.argsort(step.attribute("perm", range(dy.rank)[::-1]))]
    return [transposed(dy) if order == exchange(dy.rank) else op.Transpose(dy, perm=order)]


def _concat(step: Step, dy: Tensor) -> list[Tensor]:
    axis = step.axis("axis", of=step.y)
    parts = [step.input(position) for position in range(len(step.inputs))]
    sizes = joined(*(lengths(part, [axis]) for part in parts))
    pieces = emit("Split", len(parts), dy, sizes, axis=axis)
    return [piece.shaped_like(part) for piece, part in zip(pieces, parts, strict=True)]


def _split(step: Step, *dys: Tensor | None) -> list[Tensor | None]:
    """The pieces together again; zeros stand for those that nothing depends on."""
    given = [*dys, *[None] * (len(step.outputs) - len(dys))]
    pieces = [zeros_like(y) if dy is None else dy for y, dy in zip(step.outputs, given, strict=True)]
    return first_only(step, op.Concat(*pieces, axis=step.axis("axis", 0)).shaped_like(step.x))


def _expand(step: Step, dy: Tensor) -> list[Tensor | None]:
    """As in any broadcasting, the caller sums over the copies."""
    return [dy, None]


def _tile(step: Step, dy: Tensor) -> list[Tensor | None]:
    """Axis by axis, dy is (copies, length): the sum over the copies."""
    repeats = integers(step.input(1))
    parts: list[Integers] = []
    copies: list[int] = []
    for axis in range(step.x.rank):
        if isinstance(repeats, Tensor) or repeats[axis] != 1:
            copies.append(len(parts))
            parts.append(op.Slice(repeats, [axis], [axis + 1]) if isinstance(repeats, Tensor) else repeats[[axis]])
        parts.append(lengths(step.x, [axis]))
    summed = sum_over(op.Reshape(dy, joined(*parts)), copies, keepdims=False) if copies else dy
    return [summed.shaped_like(step.x), None]


def _depth_to_space(step: Step, dy: Tensor) -> list[Tensor]:
    """SpaceToDepth; it leaves a block's positions before the channels, as mode DCR has them, and CRD behind."""
    block = step.attribute("blocksize")
    deep = op.SpaceToDepth(dy, blocksize=block)
    if step.attribute("mode", "DCR") == "CRD":
        split = op.Reshape(deep, joined([0, block * block, -1], lengths(deep, [2, 3])))
        deep = op.Reshape(op.Transpose(split, perm=[0, 2, 1, 3, 4]), joined([0, -1], lengths(deep, [2, 3])))
    return [deep.shaped_like(step.x)]


def _space_to_depth(step: Step, dy: Tensor) -> list[Tensor]:
    block, mode = step.attribute("blocksize"), step.attribute("mode", "DCR")
    return [op.DepthToSpace(dy, blocksize=block, mode=mode).shaped_like(step.x)]


def _dropout(step: Step, dy: Tensor, *_mask: Tensor) -> list[Tensor | None]:
    if step.has_input(2) and np.any(step.input(2).array is None or step.input(2).array):
        raise refusal(step, "may drop numbers at random, as in training")
    return first_only(step, dy)


def _trilu(step: Step, dy: Tensor) -> list[Tensor | None]:
    """What was set to zero has no influence."""
    diagonal = [step.input(1)] if step.has_input(1) else []
    return first_only(step, op.Trilu(dy, *diagonal, upper=step.attribute("upper", 1)))


def _reverse_sequence(step: Step, dy: Tensor) -> list[Tensor | None]:
    """Its own inverse."""
    axes = {"batch_axis": step.attribute("batch_axis", 1), "time_axis": step.attribute("time_axis", 0)}
    return [op.ReverseSequence(dy, step.input(1), **axes), None]


RULES: dict[str, Rule] = {
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), _reshape),
    "Identity": lambda step, dy: [dy],
    "Dropout": _dropout,
    "Transpose": _transpose,
    "Concat": _concat,
    "Split": _split,
    "Expand": _expand,
    "Tile": _tile,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
    "Trilu": _trilu,
    "ReverseSequence": _reverse_sequence,
}

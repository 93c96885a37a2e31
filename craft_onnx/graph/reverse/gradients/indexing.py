"""Gradients of operators that pick single positions."""

from __future__ import annotations

import numpy as np

from craft_onnx.graph.reverse.broadcast import sum_over
from craft_onnx.graph.reverse.gradients.shapes import Integers, from_front, integers, joined, lengths, zeros_like
from craft_onnx.graph.reverse.gradients.slicing import put_back
from craft_onnx.graph.reverse.rules import Rule, Step
from craft_onnx.graph.reverse.tensor import Tensor, op


def _gather(step: Step, dy: Tensor) -> list[Tensor | None]:
    """y[.., i, ..] = x[.., indices[i], ..]: each position of x gets the sum of what it gave."""
    axis = step.axis("axis", 0)
    indices = integers(step.input(1))
    positions = indices.reshape(-1) if isinstance(indices, np.ndarray) else op.Reshape(indices, [-1])
    return [placed(_along_one_axis(step, dy, axis), positions, axis, step.x), None]


def _along_one_axis(step: Step, dy: Tensor, axis: int) -> Tensor:
    """The axes of the indices as a single one."""
    count = step.input(1).rank
    if count == 0:
        return op.Unsqueeze(dy, [axis])
    behind = lengths(step.x, range(axis + 1, step.x.rank)) if axis + 1 < step.x.rank else []
    return dy if count == 1 else op.Reshape(dy, joined([0] * axis + [-1], behind))


def placed(part: Tensor, positions: Integers, axis: int, whole: Tensor) -> Tensor:
    """Sums of a part's slices along an axis at their positions in the whole; zeros where there are none."""
    if isinstance(positions, np.ndarray):
        if _is_run(positions):
            return put_back(part, whole, [axis], from_front(positions[:1], lengths(whole, [axis])))
        size = whole.shape[axis]
        if isinstance(size, int) and (table := _sources(positions % size, size)).size <= 4 * positions.size + size:
            return _collected(part, table, axis).shaped_like(whole)
    column = [-1, *[1] * (whole.rank - axis - 1)]
    spread = op.Reshape(positions, column) if isinstance(positions, Tensor) else positions.reshape(column)
    everywhere = op.Expand(spread, op.Shape(part))
    return op.ScatterElements(zeros_like(whole), everywhere, part, axis=axis, reduction="add").shaped_like(whole)


def _is_run(positions: np.ndarray) -> bool:
    """One position, or consecutive ones; 0 is not the one behind -1."""
    consecutive = positions.size > 0 and bool((np.diff(positions) == 1).all())
    return consecutive and not positions[0] < 0 <= positions[-1]


def _sources(positions: np.ndarray, size: int) -> np.ndarray:
    """For each of `size` positions, who is there: rows of equal length, filled with the number of `positions`."""
    order = np.argsort(positions, kind="stable")
    counts = np.bincount(positions, minlength=size)
    rows = np.repeat(np.arange(size), counts)
    columns = np.arange(positions.size) - np.repeat(np.cumsum(counts) - counts, counts)
    table = np.full((size, counts.max(initial=1)), positions.size)
    table[rows, columns] = order
    return table


def _collected(part: Tensor, table: np.ndarray, axis: int) -> Tensor:
    """For each row of a table, the sum of the slices it names; the slice behind the last is zero."""
    padded = op.Pad(part, [0, 1], None, [axis]) if table.max() == part.shape[axis] else part
    if table.shape[1] == 1:
        return op.Gather(padded, table[:, 0], axis=axis)
    return sum_over(op.Gather(padded, table, axis=axis), [axis + 1], keepdims=False)


RULES: dict[str, Rule] = {"Gather": _gather}

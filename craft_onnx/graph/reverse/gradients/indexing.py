"""Gradients of operators that pick single positions, or write to them.

Sums go through ScatterElements: onnxruntime's ScatterND adds in several threads, and what two of them add to one place
at a time is lost.
"""

from __future__ import annotations

import numpy as np

from craft_onnx.graph.reverse.broadcast import in_float32, sum_over
from craft_onnx.graph.reverse.gradients.refusal import refusal
from craft_onnx.graph.reverse.gradients.shapes import (
    Integers,
    from_front,
    integers,
    joined,
    lengths,
    padded,
    reshaped,
    zeros_like,
)
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
    behind = lengths(step.x, range(axis + 1, step.x.rank))
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
    return added(part, op.Expand(spread, op.Shape(part)), axis, whole)


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
    longer = padded(part, [0, 1], [axis]) if table.max() == part.shape[axis] else part
    if table.shape[1] == 1:
        return op.Gather(longer, table[:, 0], axis=axis)
    return sum_over(op.Gather(longer, table, axis=axis), [axis + 1], keepdims=False)


def added(part: Tensor, places: Tensor, axis: int, whole: Tensor) -> Tensor:
    """Zeros in the shape of the whole, with each number of a part added at its place along an axis.

    In float32 at least: sums in float16 lose much, and onnxruntime's CPU provider has none.
    """

    def add(part: Tensor) -> Tensor:
        zeros = zeros_like(whole, part.dtype)
        return op.ScatterElements(zeros, places, part, axis=axis, reduction="add").shaped_like(whole)

    return in_float32(add, part)


def _gather_elements(step: Step, dy: Tensor) -> list[Tensor | None]:
    return [added(dy, step.input(1), step.axis("axis", 0), step.x), None]


def _top_k(step: Step, dy: Tensor | None, *_no_derivative: Tensor) -> list[Tensor | None]:
    """To where the largest came from: the operator's own second output."""
    assert dy is not None
    return [added(dy, step.outputs[1], step.axis(), step.x), None]


def _compress(step: Step, dy: Tensor) -> list[Tensor | None]:
    """y has the positions of x, or of all its numbers in a row, where the condition holds."""
    positions = op.Reshape(op.NonZero(step.input(1)), [-1])
    if step.attribute("axis") is not None:
        return [placed(dy, positions, step.axis(), step.x), None]
    return [reshaped(placed(dy, positions, 0, op.Reshape(step.x, [-1])), step.x), None]


def _gather_nd(step: Step, dy: Tensor) -> list[Tensor | None]:
    """y[i] = x[indices[i]]: with the axes that the indices count made one, what Gather does."""
    depth = step.input(1).shape[-1]
    if not isinstance(depth, int):
        raise refusal(step, "has indices of an open length")
    counted = step.attribute("batch_dims", 0) + depth
    behind = lengths(step.x, range(counted, step.x.rank))
    rows = op.Reshape(step.x, joined([-1], behind))
    found = placed(op.Reshape(dy, joined([-1], behind)), _row_numbers(step, depth), 0, rows)
    return [reshaped(found, step.x), None]


def _row_numbers(step: Step, depth: int) -> Tensor:
    """The row of each number of y among the axes that are counted, batch axes first."""
    batch = step.attribute("batch_dims", 0)
    sizes = op.Shape(step.x, end=batch + depth)
    row: Integers = np.zeros(1, np.int64)
    for axis in range(batch + depth):
        size = op.Slice(sizes, [axis], [axis + 1])
        row = row * size + _index(step.input(1), axis, batch, size)
    return op.Reshape(row, [-1])


def _index(indices: Tensor, axis: int, batch: int, size: Tensor) -> Tensor:
    """Positions along one axis of x, to broadcast: on a batch axis, where the indices themselves are."""
    if axis < batch:
        return op.Reshape(op.Range(0, op.Squeeze(size, [0]), 1), [-1, *[1] * (indices.rank - 2 - axis)])
    given = op.Gather(indices, np.array(axis - batch), axis=-1)
    return op.Where(given < 0, given + size, given)


def _scatter_elements(step: Step, dy: Tensor) -> list[Tensor | None]:
    """What was overwritten has no influence; what was written has that of its place."""
    axis, places, updates = step.axis("axis", 0), step.input(1), step.input(2)
    dx = dy if _adds(step) else op.ScatterElements(dy, places, zeros_like(updates), axis=axis)
    return [dx.shaped_like(step.x), None, op.GatherElements(dy, places, axis=axis).shaped_like(updates)]


def _scatter_nd(step: Step, dy: Tensor) -> list[Tensor | None]:
    """As `_scatter_elements`."""
    places, updates = step.input(1), step.input(2)
    dx = dy if _adds(step) else op.ScatterND(dy, places, zeros_like(updates))
    return [dx.shaped_like(step.x), None, op.GatherND(dy, places).shaped_like(updates)]


def _adds(step: Step) -> bool:
    reduction = step.attribute("reduction", "none")
    if reduction not in ("none", "add"):
        raise refusal(step, f"writes with reduction {reduction!r}")
    return bool(reduction == "add")


RULES: dict[str, Rule] = {
    "Compress": _compress,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
    "TopK": _top_k,
}

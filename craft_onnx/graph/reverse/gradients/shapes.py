"""Shapes for rules to calculate with: numbers where they are known, tensors where lengths are open."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from craft_onnx.graph.reverse.tensor import Tensor, op

Integers = np.ndarray | Tensor  # of one axis, int64; arithmetic on them works alike


def lengths(x: Tensor, axes: Sequence[int] | None = None) -> Integers:
    """Lengths of axes, all by default: an array where every one is known."""
    axes = range(x.rank) if axes is None else axes
    sizes = [x.shape[axis] for axis in axes]
    if all(isinstance(size, int) for size in sizes):
        return np.array(sizes, np.int64)
    if list(axes) == list(range(axes[0], axes[-1] + 1)):
        return op.Shape(x, start=axes[0], end=axes[-1] + 1)
    return op.Gather(op.Shape(x), list(axes))


def integers(x: Tensor) -> Integers:
    """A tensor of integers, as an array where it is constant."""
    return x if x.array is None else x.array.astype(np.int64)


def joined(*parts: Integers | Sequence[int]) -> Integers:
    """One behind the other."""
    if any(isinstance(part, Tensor) for part in parts):
        return op.Concat(*parts, axis=0)
    return np.concatenate([np.asarray(part, np.int64) for part in parts])


def from_front(positions: Integers, sizes: Integers) -> Integers:
    """Positions along axes; a negative one counts from the end."""
    if isinstance(positions, np.ndarray):
        return positions + (positions < 0).astype(np.int64) * sizes if positions.min(initial=0) < 0 else positions
    return op.Where(positions < np.zeros(1, np.int64), positions + sizes, positions)


def padded(x: Tensor, pads: Integers | Sequence[int], axes: Sequence[int], fill: Any = None) -> Tensor:
    """A tensor with `pads` before and behind it on some axes, filled with zeros or a number.

    Pad can be told which axes, but onnxruntime's transpose optimizer takes its pads for those of all.
    """
    one, count = joined(pads, [0]), len(axes)  # the last is for the other axes
    which = np.full((2, x.rank), 2 * count)
    which[:, list(axes)] = np.arange(2 * count).reshape(2, count)
    return op.Pad(x, taken(one, which.ravel()), fill)


def taken(x: Integers, positions: np.ndarray) -> Integers:
    """The integers at some positions."""
    return x[positions] if isinstance(x, np.ndarray) else op.Gather(x, positions)


def clipped(x: Integers, low: int, high: Integers) -> Integers:
    """No smaller than `low`, no larger than `high`."""
    if isinstance(x, np.ndarray) and isinstance(high, np.ndarray):
        return np.clip(x, low, high)
    return op.Max(op.Min(x, high), np.array([low]))


def reshaped(x: Tensor, like: Tensor) -> Tensor:
    """The same numbers in the shape of another tensor."""
    if x.shape == like.shape:
        return x
    sizes = [-1 if isinstance(size, str) else size for size in like.shape]
    if sizes.count(-1) > 1 or 0 in sizes:
        return op.Reshape(x, op.Shape(like), allowzero=1).shaped_like(like)
    return op.Reshape(x, sizes).shaped_like(like)


def zeros_like(x: Tensor, kind: ir.DataType | None = None) -> Tensor:
    """Zeros in the shape of a tensor, and in its type where no other is given."""
    zero = ir.tensor(np.zeros(1, (kind or x.dtype).numpy()))
    return op.ConstantOfShape(op.Shape(x), value=zero).shaped_like(x)

"""The gradient of Resize.

Resizing is linear in x and acts on each axis by a matrix of its own, (length of y, length of x): dx is the product of
dy with each of them. The matrix is the operator itself on the identity, so that all modes work alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from craft_onnx.graph.reverse.broadcast import sum_over
from craft_onnx.graph.reverse.gradients.refusal import refusal
from craft_onnx.graph.reverse.gradients.shapes import Integers, joined, lengths
from craft_onnx.graph.reverse.rules import Rule, Step
from craft_onnx.graph.reverse.tensor import Tensor, op

_HALF = {"half_pixel", "half_pixel_symmetric", "pytorch_half_pixel"}
_NOT_OF_AN_AXIS = {"axes", "keep_aspect_ratio_policy", "extrapolation_value"}


def _resize(step: Step, dy: Tensor) -> list[Tensor | None]:
    if step.attribute("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise refusal(step, "keeps the ratio of its sides, by sizes that are rounded")
    axes = [one for one in _resized_axes(step) if not _is_same(step, one)]
    repeats = {one.axis: _whole_scale(step, one) for one in axes}
    if _copies(step) and all(repeats.values()):
        dx = _block_sums(dy, step.x, repeats)
    else:
        dx = dy
        for one in reversed(axes):
            dx = _along(dx, _matrix(step, one), one.axis)
    return [dx.shaped_like(step.x), *[None] * (len(step.inputs) - 1)]


@dataclass(frozen=True)
class _Axis:
    """One axis that Resize has a scale or size for.

    Attributes
    ----------
    axis : int
        Of x.
    place : int
        Among the axes that it has numbers for.
    scale : float or None
        None where a size is given, or where it is computed.
    """

    axis: int
    place: int
    scale: float | None


def _resized_axes(step: Step) -> list[_Axis]:
    axes = [int(axis) % step.x.rank for axis in step.attribute("axes", range(step.x.rank))]
    scales = step.input(2).array if step.has_input(2) else None
    numbers = [None] * len(axes) if scales is None or not scales.size else [float(scale) for scale in scales]
    return [_Axis(axis, place, number) for place, (axis, number) in enumerate(zip(axes, numbers, strict=True))]


def _is_same(step: Step, one: _Axis) -> bool:
    """Whether nothing happens along an axis."""
    if step.attribute("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        return False
    return one.scale == 1 or (one.scale is None and step.x.shape[one.axis] == step.y.shape[one.axis])


def _copies(step: Step) -> bool:
    """Whether whole scales only repeat positions.

    Position i of y lies at i / s (asymmetric) or (i + 1/2) / s - 1/2 (half pixels) of x: the former rounded down, and
    the latter rounded to the nearest, are i // s for whole s.
    """
    coordinates = step.attribute("coordinate_transformation_mode", "half_pixel")
    rounding = step.attribute("nearest_mode", "round_prefer_floor")
    nearest = coordinates in _HALF and rounding in ("round_prefer_floor", "round_prefer_ceil")
    copies = nearest or (coordinates == "asymmetric" and rounding == "floor")
    return copies and bool(step.attribute("mode", "nearest") == "nearest")


def _whole_scale(step: Step, one: _Axis) -> int:
    """The scale of an axis, 0 where it is not whole or not known."""
    before, after = step.x.shape[one.axis], step.y.shape[one.axis]
    scale = one.scale or 0
    if step.has_input(3) and isinstance(before, int) and isinstance(after, int) and before:
        scale = after / before
    return int(scale) if scale == int(scale) else 0


def _block_sums(dy: Tensor, x: Tensor, repeats: dict[int, int]) -> Tensor:
    """Each position of x gets the sum of its copies: dy as (length, copies) along each axis.

    Where the axes are those of positions, pooling takes a tenth of the time on a CPU; it has three at most.
    """
    if min(repeats, default=0) >= 2 and x.rank <= 5:
        window = [repeats.get(axis, 1) for axis in range(2, x.rank)]
        return op.AveragePool(dy, kernel_shape=window, strides=window) * math.prod(window)
    parts: list[Integers] = []
    copies = []
    for axis in range(x.rank):
        parts.append(lengths(x, [axis]))
        if axis in repeats:
            copies.append(len(parts))
            parts.append(np.array([repeats[axis]]))
    return sum_over(op.Reshape(dy, joined(*parts)), copies, keepdims=False)


def _matrix(step: Step, one: _Axis) -> Tensor:
    """The node on an identity matrix: along the first axis, it does as along this one of x."""
    attributes = {name: attr.value for name, attr in step.node.attributes.items() if name not in _NOT_OF_AN_AXIS}
    before, after = (op.Shape(x, start=one.axis, end=one.axis + 1) for x in (step.x, step.y))
    scales = None if step.has_input(3) else _scales(step, one)
    sizes = op.Concat(after, before, axis=0) if step.has_input(3) else None
    matrix = op.Resize(_identity(before, step.x), _roi(step, one), scales, sizes, **attributes)
    matrix.value.shape = ir.Shape([step.y.shape[one.axis], step.x.shape[one.axis]])
    return matrix


def _scales(step: Step, one: _Axis) -> Tensor:
    """Of this axis and none of the other, in float32 whatever x is."""
    scale = op.Slice(step.input(2), [one.place], [one.place + 1])
    return op.Concat(scale, np.ones(1), axis=0)


def _roi(step: Step, one: _Axis) -> np.ndarray | None:
    """The region of interest along this axis, and all of the other."""
    if step.attribute("coordinate_transformation_mode", "half_pixel") != "tf_crop_and_resize":
        return None
    roi = step.input(1).array
    if roi is None:
        raise refusal(step, "computes the region that it takes")
    begin, end = roi.reshape(2, -1)[:, one.place]
    return np.array([begin, 0, end, 1], roi.dtype)


def _identity(length: Tensor, like: Tensor) -> Tensor:
    places = op.Range(0, op.Squeeze(length, [0]), 1)
    return op.Cast(op.Equal(places, op.Unsqueeze(places, [1])), to=like.dtype)


def _along(dy: Tensor, matrix: Tensor, axis: int) -> Tensor:
    """dy times a matrix (length of y, length of x) along one axis."""
    if axis == dy.rank - 1:
        return op.MatMul(dy, matrix)
    turned, behind = op.Transpose(matrix, perm=[1, 0]), dy.rank - 1 - axis
    if behind == 1:
        return op.MatMul(turned, dy)
    found = op.MatMul(turned, op.Reshape(dy, [0] * (axis + 1) + [-1]))
    return op.Reshape(found, joined([0] * (axis + 1), lengths(dy, range(axis + 1, dy.rank))))


RULES: dict[str, Rule] = {"Resize": _resize}

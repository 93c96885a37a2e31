"""Undo broadcasting: the cotangent of what was repeated is the sum over its copies."""

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from craft_onnx.graph.reverse.tensor import Tensor, op

_NARROW = {ir.DataType.FLOAT16, ir.DataType.BFLOAT16}


def unbroadcast(cotangent: Tensor, like: Tensor) -> Tensor:
    """Sum a cotangent over the axes along which `like` was broadcast, to the shape of `like`.

    Axes whose sizes are both known, or of the same name, are decided now; any other when the graph runs.

    Raises
    ------
    AssertionError
        If the shapes cannot come from broadcasting: then the rule that made the cotangent is wrong.
    """
    if cotangent.shape == like.shape:
        return cotangent
    added = cotangent.rank - like.rank
    assert added >= 0, f"{cotangent} is no cotangent of {like}"
    pairs = list(zip(cotangent.shape[added:], like.shape, strict=True))
    if any(have != want and isinstance(want, str) for have, want in pairs):
        return _unbroadcast_at_run_time(cotangent, like)
    assert all(have == want or want == 1 or isinstance(have, str) for have, want in pairs), f"{cotangent} for {like}"
    repeated = [added + axis for axis, (have, want) in enumerate(pairs) if have != want and want == 1]
    summed = sum_over(cotangent, [*range(added), *repeated])
    return (op.Squeeze(summed, list(range(added))) if added else summed).shaped_like(like)


def _unbroadcast_at_run_time(cotangent: Tensor, like: Tensor) -> Tensor:
    """Sum over the axes where `like` turns out to have length 1: where the cotangent has too, that changes nothing."""
    ones = np.ones(cotangent.rank - like.rank, np.int64)
    aligned = op.Concat(ones, op.Shape(like), axis=0)
    axes = op.Reshape(op.NonZero(op.Equal(aligned, 1)), [-1])
    summed = in_float32(lambda wide: op.ReduceSum(wide, axes, keepdims=1, noop_with_empty_axes=1), cotangent)
    return op.Reshape(summed, op.Shape(like)).shaped_like(like)


def sum_over(x: Tensor, axes: Sequence[int], keepdims: bool = True) -> Tensor:
    """The sum over axes; nothing happens where there are none."""
    if not axes:
        return x
    return in_float32(lambda wide: op.ReduceSum(wide, list(axes), keepdims=int(keepdims)), x)


def in_float32(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """Calculate in float32 with tensors of half precision: long sums lose their small terms there."""
    kind = tensors[0].dtype
    if kind not in _NARROW:
        return function(*tensors)
    return op.Cast(function(*(op.Cast(x, to=ir.DataType.FLOAT) for x in tensors)), to=kind)

"""Gradients of convolutions, and of sums of windows: each is a convolution again.

Measured on onnxruntime's CPU provider: where windows are dense, a Conv is up to five times as fast as a ConvTranspose
(depthwise) and seldom slower (2.5 times, to an image of three channels). With strides, the dense
convolutions of all phases with a DepthToSpace behind them take longer in sum than a ConvTranspose, over the 3x3
convolutions of a ResNet50; depthwise, that DepthToSpace alone takes twice as long. There a ConvTranspose runs in one
thread and its neighbours reorder channels: the cotangent spread out by a product with zeros and ones, and a Conv behind
it, take 7 to 54 % less time together with these, on maps of 128 to 7.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from craft_onnx.graph.reverse.broadcast import sum_over
from craft_onnx.graph.reverse.gradients.refusal import refusal
from craft_onnx.graph.reverse.gradients.shapes import integers, padded
from craft_onnx.graph.reverse.gradients.windows import Windows, conv_windows, known, transpose_windows
from craft_onnx.graph.reverse.rules import Rule, Step
from craft_onnx.graph.reverse.tensor import Tensor, op

FLOAT = ir.DataType.FLOAT
BLOCK = 8  # channels, at least
WIDEST = 128  # of maps that are spread by a product; at twice that it takes longer than a ConvTranspose


def _conv(step: Step, dy: Tensor) -> list[Tensor | None]:
    x, w, windows = step.input(0), step.input(1), conv_windows(step)
    dx = conv_input_gradient(x, w, dy, windows) if step.wanted[0] else None
    dw = weight_gradient(w, x, dy, windows) if step.wanted[1] else None
    return [dx, dw, *_bias_gradient(step, dy)]


def _conv_transpose(step: Step, dy: Tensor) -> list[Tensor | None]:
    x, w, windows = step.input(0), step.input(1), transpose_windows(step)
    dx = conv_transpose_input_gradient(x, w, dy, windows) if step.wanted[0] else None
    dw = weight_gradient(w, dy, x, windows) if step.wanted[1] else None
    return [dx, dw, *_bias_gradient(step, dy)]


def _bias_gradient(step: Step, dy: Tensor) -> list[Tensor | None]:
    wanted = [sum_over(dy, [0, *range(2, dy.rank)], keepdims=False) if want else None for want in step.wanted[2:]]
    return list(wanted)


def conv_input_gradient(x: Tensor, w: Tensor, dy: Tensor, windows: Windows) -> Tensor:
    """y[o] = sum_k w[k] x[s o + d k - p], so dx[i] = sum of w[k] dy[o] over all s o + d k - p = i.

    With dy spread out to every s-th position this is a convolution with the windows turned around; where they are dense
    (s = 1), nothing is to be spread.
    """
    margins = _margins(x, dy, windows)
    convolved = windows.is_dense or (_is_depthwise(w, windows) and _can_spread(dy))
    if convolved and known(w.shape) and margins is not None and min(margins) >= 0:
        spread = dy if windows.is_dense else _spread(dy, windows.strides)
        back = turned(w, windows.group)
        dx = op.Conv(spread, back, pads=margins, dilations=windows.dilations, group=windows.group)
        return dx.shaped_like(x)
    return _scattered(x, w, dy, windows)


def _margins(x: Tensor, dy: Tensor, windows: Windows) -> list[int] | None:
    """Pads of the spread dy, where they are known: windows turned around then end where x does."""
    rest = [0] * len(windows.kernel) if windows.is_dense else windows.uncovered(x.shape[2:], dy.shape[2:])
    if windows.pads is None or rest is None:
        return None
    half = len(windows.kernel)
    front = [extent - 1 - pad for extent, pad in zip(windows.extents, windows.pads[:half], strict=True)]
    terms = zip(windows.extents, windows.pads[half:], rest, windows.strides, strict=True)
    return front + [extent - pad + beyond - stride for extent, pad, beyond, stride in terms]


def _is_depthwise(w: Tensor, windows: Windows) -> bool:
    """Whether each channel has one window of its own."""
    return windows.group > 1 and tuple(w.shape[:2]) == (windows.group, 1)


def _can_spread(dy: Tensor) -> bool:
    """Whether `_spread` can be had, and is the faster way."""
    return dy.rank == 4 and isinstance(dy.shape[3], int) and dy.shape[3] <= WIDEST


def _spread(dy: Tensor, strides: Sequence[int]) -> Tensor:
    """Maps (N, C, h, w) with zeros between their positions, (N, C, s h, t w), by a product that the positions share.

    A row of w positions becomes s rows of t w; all of them but every t-th of the first are zero.
    """
    rows, columns = strides
    width = dy.shape[3]
    assert isinstance(width, int)
    # Sessions fold it, and files stay small.
    zero = dy.emitter.tensor(dy.emitter.constant(np.array(0)))
    places = op.Range(zero, np.array(columns * width), np.array(columns))
    ones = op.Cast(op.OneHot(places, np.array(rows * columns * width), np.array([0, 1])), to=dy.dtype)
    return op.Reshape(op.MatMul(dy, ones), [0, 0, -1, columns * width])


def turned(w: Tensor, group: int) -> Tensor:
    """Weights (M, C/group, ...) as those of the way back, (C, M/group, ...), each window turned around."""
    swapped = _swapped(w, group)
    axes = [axis for axis in range(2, w.rank) if w.shape[axis] != 1]
    if not axes:
        return swapped
    backwards = [-1] * len(axes)
    return op.Slice(swapped, backwards, [-(2**31)] * len(axes), axes, backwards)


def _swapped(w: Tensor, group: int) -> Tensor:
    """Weights (M, C/group, ...) as (C, M/group, ...)."""
    outputs, inputs, *window = w.shape
    if group == 1:
        return op.Transpose(w, perm=[1, 0, *range(2, w.rank)])
    assert isinstance(outputs, int) and isinstance(inputs, int)
    split = op.Reshape(w, [group, outputs // group, inputs, *window])
    swapped = op.Transpose(split, perm=[0, 2, 1, *range(3, split.rank)])
    return op.Reshape(swapped, [group * inputs, outputs // group, *window])


def _scattered(x: Tensor, w: Tensor, dy: Tensor, windows: Windows) -> Tensor:
    """The ConvTranspose that puts each window back; positions behind the last are zeros, as many as x has."""

    def put(pads: tuple[int, ...], rest: list[int]) -> Tensor:
        shape = {"strides": windows.strides, "dilations": windows.dilations, "group": windows.group}
        return op.ConvTranspose(dy, w, pads=pads, output_padding=rest, **shape)

    rest = windows.uncovered(x.shape[2:], dy.shape[2:])
    if rest is not None and windows.pads is not None:
        return _in_blocks(put(windows.pads, rest).shaped_like(x))
    axes, lengths = list(range(2, x.rank)), op.Shape(x, start=2)
    most, none = [stride - 1 for stride in windows.strides], [0] * len(axes)
    if windows.pads is not None:
        return op.Slice(put(windows.pads, most), none, lengths, axes).shaped_like(x)
    front, _ = windows.run_time_pads(dy, x)
    return op.Slice(put((0,) * 2 * len(axes), most), front, front + lengths, axes).shaped_like(x)


def _in_blocks(maps: Tensor) -> Tensor:
    """The same maps, behind a pooling of single positions: there onnxruntime keeps channels in blocks on a CPU.

    Behind a ConvTranspose it does not, nor in sums with other branches, and every convolution further back has to
    reorder its cotangent: 4 % of the gradients of ResNet50 and MobileNetV2.
    """
    channels = maps.shape[1]
    if maps.rank != 4 or maps.dtype != FLOAT or not isinstance(channels, int) or channels % BLOCK:
        return maps
    return op.AveragePool(maps, kernel_shape=[1, 1]).shaped_like(maps)


def conv_transpose_input_gradient(x: Tensor, w: Tensor, dy: Tensor, windows: Windows) -> Tensor:
    """A ConvTranspose is the way back of a Conv, so its own way back is that Conv, on as many windows as x has."""
    dy, windows = _padded(dy, x, windows)
    shape = {"pads": windows.pads, "strides": windows.strides, "dilations": windows.dilations}
    dx = op.Conv(dy, w, group=windows.group, **shape)
    if any(rest >= stride for rest, stride in zip(windows.rest, windows.strides, strict=True)):
        axes = list(range(2, x.rank))
        dx = op.Slice(dx, [0] * len(axes), op.Shape(x, start=2), axes)
    return dx.shaped_like(x)


def weight_gradient(w: Tensor, image: Tensor, at: Tensor, windows: Windows) -> Tensor:
    """dw[k] = sum_o at[o] image[s o + d k - p]: `at` slides over the image, strides and dilations change places.

    The examples, which are summed, take the place of channels: the image is (C/group, group N, ...), `at` (M, N, ...).
    """
    image, windows = _padded(image, at, windows)
    spatial = list(range(2, w.rank))
    dw = op.Conv(
        _examples_as_channels(image, windows.group),
        op.Transpose(at, perm=[1, 0, *spatial]),
        pads=windows.pads,
        strides=windows.dilations,
        dilations=windows.strides,
        group=windows.group,
    )
    # Positions that no window reaches would make it slide further.
    dw = op.Slice(dw, [0] * len(spatial), list(windows.kernel), spatial)
    return op.Transpose(dw, perm=[1, 0, *spatial]).shaped_like(w)


def _padded(image: Tensor, count: Tensor, windows: Windows) -> tuple[Tensor, Windows]:
    """Pads that are not known now become part of the image."""
    if windows.pads is not None:
        return image, windows
    spatial = len(windows.kernel)
    pads = op.Concat(*windows.run_time_pads(count, image), axis=0)
    return padded(image, pads, range(2, 2 + spatial)), replace(windows, pads=(0,) * (2 * spatial))


def _examples_as_channels(x: Tensor, group: int) -> Tensor:
    """(N, group C', ...) as (C', group N, ...)."""
    if group == 1:
        return op.Transpose(x, perm=[1, 0, *range(2, x.rank)])
    lengths = op.Shape(x, start=2)
    split = op.Reshape(x, op.Concat([0, group, -1], lengths, axis=0))
    swapped = op.Transpose(split, perm=[2, 1, 0, *range(3, split.rank)])
    return op.Reshape(swapped, op.Concat(op.Shape(swapped, start=0, end=1), [-1], lengths, axis=0))


def _col2im(step: Step, dy: Tensor) -> list[Tensor | None]:
    """Columns are added up where they lie: their cotangents are what windows of dy show, picked by a Conv of ones."""
    block = integers(step.input(2))
    rows = step.x.shape[1]
    if not (isinstance(block, np.ndarray) and isinstance(rows, int)):
        raise refusal(step, "has windows or channels of an open number")
    size = int(block.prod())
    picked = np.tile(np.eye(size, dtype=np.float32).reshape(size, 1, *block), (rows // size, *[1] * (1 + len(block))))
    shape = {name: step.attribute(name) for name in ("dilations", "pads", "strides") if step.attribute(name)}
    columns = op.Conv(dy, picked, group=rows // size, **shape)
    return [op.Reshape(columns, [0, rows, -1]).shaped_like(step.x), None, None]


RULES: dict[str, Rule] = {"Conv": _conv, "ConvTranspose": _conv_transpose, "Col2Im": _col2im}

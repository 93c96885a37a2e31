"""Gradients of convolutions: each of the three products of Conv is a Conv or a ConvTranspose again."""

from craft_onnx.graph.reverse.broadcast import sum_over
from craft_onnx.graph.reverse.gradients.windows import Windows, conv_windows, run_time_pads
from craft_onnx.graph.reverse.rules import Rule, Step
from craft_onnx.graph.reverse.tensor import Tensor, op


def _conv(step: Step, dy: Tensor) -> list[Tensor | None]:
    windows = conv_windows(step)
    x, w = step.input(0), step.input(1)
    dx = input_gradient(x, w, dy, windows) if step.wanted[0] else None
    dw = weight_gradient(x, w, dy, windows) if step.wanted[1] else None
    db = _bias_gradient(dy) if any(step.wanted[2:]) else None
    return [dx, dw, db][: len(step.inputs)]


def _bias_gradient(dy: Tensor) -> Tensor:
    return sum_over(dy, [0, *range(2, dy.rank)], keepdims=False)


def input_gradient(x: Tensor, w: Tensor, dy: Tensor, windows: Windows) -> Tensor:
    """y[o] = sum_k w[k] x[s o + d k - p], so dx[i] = sum over s o + d k - p = i of w[k] dy[o]."""
    if windows.is_dense and windows.pads is not None and _is_static(w):
        margins = windows.opposite_pads
        if min(margins) >= 0:
            return op.Conv(
                dy, flipped(w, windows.group), pads=margins, dilations=windows.dilations, group=windows.group
            ).shaped_like(x)
    return _transposed(x, w, dy, windows)


def _is_static(x: Tensor) -> bool:
    return all(isinstance(size, int) for size in x.shape)


def flipped(w: Tensor, group: int) -> Tensor:
    """Weights (M, C/group, ...) as those of the way back, (C, M/group, ...), each window turned around."""
    outputs, inputs, *window = w.shape
    spatial = range(2, w.rank)
    if group == 1:
        turned = op.Transpose(w, perm=[1, 0, *spatial])
    else:
        split = op.Reshape(w, [group, outputs // group, inputs, *window])
        turned = op.Reshape(
            op.Transpose(split, perm=[0, 2, 1, *(axis + 1 for axis in spatial)]),
            [group * inputs, outputs // group, *window],
        )
    moved = [axis for axis in spatial if w.shape[axis] != 1]
    if not moved:
        return turned
    count = len(moved)
    return op.Slice(turned, [-1] * count, [-(2**31)] * count, moved, [-1] * count)


def _transposed(x: Tensor, w: Tensor, dy: Tensor, windows: Windows) -> Tensor:
    """A ConvTranspose; how many of the last positions no window covered is known now, or cut off when it runs."""
    common = {"strides": windows.strides, "dilations": windows.dilations, "group": windows.group}
    rest = windows.uncovered(x.shape[2:], dy.shape[2:])
    if rest is not None and windows.pads is not None:
        dx = op.ConvTranspose(dy, w, pads=windows.pads, output_padding=rest, **common)
        return dx.shaped_like(x)
    most = [stride - 1 for stride in windows.strides]
    axes = list(range(2, x.rank))
    lengths = op.Shape(x, start=2)
    if windows.pads is not None:
        dx = op.ConvTranspose(dy, w, pads=windows.pads, output_padding=most, **common)
        return op.Slice(dx, [0] * len(axes), lengths, axes).shaped_like(x)
    dx = op.ConvTranspose(dy, w, output_padding=most, **common)
    begin, _ = run_time_pads(x, dy, windows)
    return op.Slice(dx, begin, begin + lengths, axes).shaped_like(x)


def weight_gradient(x: Tensor, w: Tensor, dy: Tensor, windows: Windows) -> Tensor:
    """dw[k] = sum_o dy[o] x[s o + d k - p]: dy slides over x as weights do, with strides and dilations exchanged.

    The examples take the place of the channels that are summed: x as (C/group, group N, ...), dy as (M, N, ...).
    """
    spatial = list(range(2, x.rank))
    pads = windows.pads
    if pads is None:
        x, pads = _padded(x, dy, windows), None
    kernel = op.Transpose(dy, perm=[1, 0, *spatial])
    dw = op.Conv(
        _examples_as_channels(x, windows.group),
        kernel,
        pads=pads or [0] * (2 * len(spatial)),
        strides=windows.dilations,
        dilations=windows.strides,
        group=windows.group,
    )
    dw = op.Transpose(dw, perm=[1, 0, *spatial])
    return op.Slice(dw, [0] * len(spatial), list(windows.kernel), spatial).shaped_like(w)


def _padded(x: Tensor, dy: Tensor, windows: Windows) -> Tensor:
    begin, end = run_time_pads(x, dy, windows)
    return op.Pad(x, op.Concat(begin, end, axis=0), None, list(range(2, x.rank)))


def _examples_as_channels(x: Tensor, group: int) -> Tensor:
    """(N, group C', ...) -> (C', group N, ...)."""
    spatial = list(range(2, x.rank))
    if group == 1:
        return op.Transpose(x, perm=[1, 0, *spatial])
    lengths = op.Shape(x, start=2)
    split = op.Reshape(x, op.Concat([0, group, -1], lengths, axis=0))
    moved = op.Transpose(split, perm=[2, 1, 0, *(axis + 1 for axis in spatial)])
    channels = op.Shape(moved, start=0, end=1)
    return op.Reshape(moved, op.Concat(channels, [-1], lengths, axis=0))


RULES: dict[str, Rule] = {"Conv": _conv}

"""Gradients of normalizations.

Most are z = (x - mean) r over some axes, with r = 1 / sqrt(variance + epsilon). With g = dL/dz, what only moves the
mean or the scale of x changes nothing, so those parts of g vanish: dx = (g - mean(g) - z mean(g z)) r.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from craft_onnx.graph.reverse.broadcast import in_float32, sum_over
from craft_onnx.graph.reverse.gradients.refusal import refusal
from craft_onnx.graph.reverse.gradients.shapes import reshaped
from craft_onnx.graph.reverse.rules import Rule, Step
from craft_onnx.graph.reverse.tensor import Tensor, op


def _mean(x: Tensor, axes: Sequence[int]) -> Tensor:
    return op.ReduceMean(x, list(axes), keepdims=1)


def _standardized(x: Tensor, axes: Sequence[int], epsilon: float) -> tuple[Tensor, Tensor]:
    """z and r; the mean goes first, since x may be far from zero."""
    centred = x - _mean(x, axes)
    r = op.Reciprocal(op.Sqrt(_mean(centred * centred, axes) + epsilon))
    return centred * r, r


def _through(g: Tensor, z: Tensor, r: Tensor, axes: Sequence[int]) -> Tensor:
    """From the cotangent of z to that of x."""
    return (g - z * _mean(g * z, axes) - _mean(g, axes)) * r


def _layer_normalization(step: Step, dy: Tensor | None, *statistics: Tensor | None) -> list[Tensor | None]:
    """y = scale z + bias, z over the axes from `axis` on."""
    if dy is None or any(one is not None for one in statistics):
        raise refusal(step, "gives its mean or deviation to other layers")
    axes, epsilon = range(step.axis(), step.x.rank), step.attribute("epsilon", 1e-5)

    def to_x(dy: Tensor, x: Tensor, scale: Tensor) -> Tensor:
        return _through(dy * scale, *_standardized(x, axes, epsilon), axes)

    def to_scale(dy: Tensor, x: Tensor) -> Tensor:
        return dy * _standardized(x, axes, epsilon)[0]

    dx = in_float32(to_x, dy, step.x, step.input(1)) if step.wanted[0] else None
    dscale = in_float32(to_scale, dy, step.x) if step.wanted[1] else None
    return [dx, dscale, dy][: len(step.inputs)]


def _rms_normalization(step: Step, dy: Tensor) -> list[Tensor | None]:
    """y = scale z with z = x / rms: the mean of x stays, and so does that of g."""
    axes, epsilon = range(step.axis(), step.x.rank), step.attribute("epsilon", 1e-5)

    def rms(x: Tensor) -> Tensor:
        return op.Sqrt(_mean(x * x, axes) + epsilon)

    def to_x(dy: Tensor, x: Tensor, scale: Tensor) -> Tensor:
        g, z = dy * scale, x / rms(x)
        return (g - z * _mean(g * z, axes)) / rms(x)

    dx = in_float32(to_x, dy, step.x, step.input(1)) if step.wanted[0] else None
    dscale = in_float32(lambda dy, x: dy * (x / rms(x)), dy, step.x) if step.wanted[1] else None
    return [dx, dscale]


def _instance_normalization(step: Step, dy: Tensor) -> list[Tensor | None]:
    """y = scale z + bias, z over the positions of each channel."""
    axes, epsilon = range(2, step.x.rank), step.attribute("epsilon", 1e-5)

    def to_x(dy: Tensor, x: Tensor, scale: Tensor) -> Tensor:
        return _through(dy * _per_channel(scale, x.rank), *_standardized(x, axes, epsilon), axes)

    def to_scale(dy: Tensor, x: Tensor) -> Tensor:
        return dy * _standardized(x, axes, epsilon)[0]

    return [
        in_float32(to_x, dy, step.x, step.input(1)) if step.wanted[0] else None,
        _channel_sum(in_float32(to_scale, dy, step.x)) if step.wanted[1] else None,
        _channel_sum(dy) if step.wanted[2] else None,
    ]


def _mean_variance_normalization(step: Step, dy: Tensor) -> list[Tensor]:
    """y = z; ONNX adds its 1e-9 to std itself, a difference that no precision of x shows."""
    axes = [int(axis) % dy.rank for axis in step.attribute("axes", (0, 2, 3))]
    return [in_float32(lambda dy, x: _through(dy, *_standardized(x, axes, 1e-18), axes), dy, step.x)]


def _group_normalization(step: Step, dy: Tensor) -> list[Tensor | None]:
    """As LayerNormalization over all numbers of a group of channels; scale and bias are per channel from opset 21 on.

    Before, they are per group.
    """
    x, groups, epsilon = step.x, step.attribute("num_groups"), step.attribute("epsilon", 1e-5)
    per_channel = x.emitter.model.opset_imports[""] >= 21

    def grouped(x: Tensor) -> Tensor:
        return op.Reshape(x, [0, groups, -1])

    def scaled(dy: Tensor, scale: Tensor) -> Tensor:
        return grouped(dy * _per_channel(scale, x.rank)) if per_channel else grouped(dy) * op.Unsqueeze(scale, [1])

    def to_x(dy: Tensor, x: Tensor, scale: Tensor) -> Tensor:
        return _through(scaled(dy, scale), *_standardized(grouped(x), [2], epsilon), [2])

    def to_scale(dy: Tensor, x: Tensor) -> Tensor:
        z = _standardized(grouped(x), [2], epsilon)[0]
        return dy * reshaped(z, x) if per_channel else grouped(dy) * z

    return [
        reshaped(in_float32(to_x, dy, x, step.input(1)), x) if step.wanted[0] else None,
        _channel_sum(in_float32(to_scale, dy, x)) if step.wanted[1] else None,
        _channel_sum(dy if per_channel else grouped(dy)) if step.wanted[2] else None,
    ]


def _batch_normalization(step: Step, dy: Tensor, *_statistics: Tensor | None) -> list[Tensor | None]:
    """y = scale (x - mean) / std + bias with statistics that are given: affine in x, channel by channel."""
    if step.attribute("training_mode", 0):
        raise refusal(step, "takes its statistics from the batch, as in training")
    scale, _, mean, variance = (_per_channel(step.input(index), step.x.rank) for index in range(1, 5))
    std = op.Sqrt(variance + step.attribute("epsilon", 1e-5))
    factor = scale / std
    z = (step.x - mean) / std
    forms = [lambda: dy * z, lambda: dy, lambda: -dy * factor, lambda: dy * (z * factor / (-2 * std))]
    wanted = zip(forms, step.wanted[1:], strict=True)
    return [dy * factor, *(_channel_sum(form()) if want else None for form, want in wanted)]


def _per_channel(x: Tensor, rank: int) -> Tensor:
    """A parameter (C) as (C, 1, ...), to broadcast against (N, C, ...)."""
    return op.Unsqueeze(x, list(range(1, rank - 1))) if rank > 2 else x


def _channel_sum(x: Tensor) -> Tensor:
    return sum_over(x, [0, *range(2, x.rank)], keepdims=False)


def _lp_normalization(step: Step, dy: Tensor) -> list[Tensor]:
    """y = x / |x|_p, so dx = (dy - n sum(dy y)) / |x|_p, where n is the gradient of the norm: y or sign(x).

    Where x is zero, so is y, and dx is taken for zero as well.
    """
    axis, squared = step.axis(), step.attribute("p", 2) == 2

    def to_x(dy: Tensor, x: Tensor) -> Tensor:
        norm = (op.ReduceL2 if squared else op.ReduceL1)(x, [axis], keepdims=1)
        inverse = 1 / op.Where(norm > 0, norm, np.inf)
        y = x * inverse
        return (dy - (y if squared else op.Sign(x)) * sum_over(dy * y, [axis])) * inverse

    return [in_float32(to_x, dy, step.x)]


def _local_response_normalization(step: Step, dy: Tensor) -> list[Tensor]:
    """y = x d^-b with d = k + a M(x^2), M the mean over a window of channels (LRN divides by its full size).

    dx = dy d^-b - 2 a b x M'(dy x d^-(b + 1)), where M' takes those windows that a channel is in.
    """
    size, alpha = step.attribute("size"), step.attribute("alpha", 1e-4)
    beta, bias = step.attribute("beta", 0.75), step.attribute("bias", 1.0)
    before, behind = (size - 1) // 2, size // 2

    def to_x(dy: Tensor, x: Tensor) -> Tensor:
        d = bias + alpha * _channel_mean(x * x, before, behind)
        power = _negative_power(d, beta)
        return dy * power - (2 * alpha * beta * x) * _channel_mean(dy * (x * power / d), behind, before)

    return [in_float32(to_x, dy, step.x)]


def _channel_mean(x: Tensor, before: int, behind: int) -> Tensor:
    """The mean over channels from `before` in front of one to `behind` after it; zeros beyond the ends count."""
    ones = [0] * (x.rank - 2)
    window, pads = [before + 1 + behind, *(1 for _ in ones)], [before, *ones, behind, *ones]
    pooled = op.AveragePool(op.Unsqueeze(x, [1]), kernel_shape=window, pads=pads, count_include_pad=1)
    return op.Squeeze(pooled, [1])


def _negative_power(x: Tensor, exponent: float) -> Tensor:
    """x^-exponent; onnxruntime takes roots many times faster than powers, and the exponent is 3/4 nearly always."""
    if exponent != 0.75:
        return op.Pow(x, -exponent)
    root = op.Sqrt(x)
    return 1 / (root * op.Sqrt(root))


RULES: dict[str, Rule] = {
    "BatchNormalization": _batch_normalization,
    "GroupNormalization": _group_normalization,
    "InstanceNormalization": _instance_normalization,
    "LayerNormalization": _layer_normalization,
    "LpNormalization": _lp_normalization,
    "LRN": _local_response_normalization,
    "MeanVarianceNormalization": _mean_variance_normalization,
    "RMSNormalization": _rms_normalization,
}

"""Gradients of normalizations.

Most are z = (x - mean) / std over some axes, with std = sqrt(variance + epsilon). With g = dL/dz, what moves the mean
or the scale of x changes nothing, so those parts of g vanish: dx = (g - mean(g) - z mean(g z)) / std.
"""

from __future__ import annotations

from collections.abc import Sequence

from craft_onnx.graph.reverse.broadcast import in_float32, sum_over
from craft_onnx.graph.reverse.gradients.refusal import refusal
from craft_onnx.graph.reverse.rules import Rule, Step
from craft_onnx.graph.reverse.tensor import Tensor, op


def _mean(x: Tensor, axes: Sequence[int]) -> Tensor:
    return op.ReduceMean(x, list(axes), keepdims=1)


def _standardized(x: Tensor, axes: Sequence[int], epsilon: float) -> tuple[Tensor, Tensor]:
    """(x - mean) / std and std; the mean goes first, since x may be far from zero."""
    centred = x - _mean(x, axes)
    std = op.Sqrt(_mean(centred * centred, axes) + epsilon)
    return centred / std, std


def _through_standardized(g: Tensor, z: Tensor, std: Tensor, axes: Sequence[int]) -> Tensor:
    return (g - z * _mean(g * z, axes) - _mean(g, axes)) / std


def _layer_normalization(step: Step, dy: Tensor | None, *statistics: Tensor | None) -> list[Tensor | None]:
    """y = scale z + bias, z over the axes from `axis` on."""
    if dy is None or any(one is not None for one in statistics):
        raise refusal(step, "gives its mean or deviation to other layers")
    axes = range(step.axis(), step.x.rank)
    epsilon = step.attribute("epsilon", 1e-5)

    def dx(dy: Tensor, x: Tensor, scale: Tensor) -> Tensor:
        return _through_standardized(dy * scale, *_standardized(x, axes, epsilon), axes)

    def dscale(dy: Tensor, x: Tensor) -> Tensor:
        return dy * _standardized(x, axes, epsilon)[0]

    x, scale = step.input(0), step.input(1)
    return [
        in_float32(dx, dy, x, scale).shaped_like(x) if step.wanted[0] else None,
        in_float32(dscale, dy, x) if step.wanted[1] else None,
        dy,
    ][: len(step.inputs)]


def _batch_normalization(step: Step, dy: Tensor, *_statistics: Tensor) -> list[Tensor | None]:
    """y = scale (x - mean) / std + bias with statistics that are given: affine in x, channel by channel."""
    if step.attribute("training_mode", 0):
        raise refusal(step, "takes its statistics from the batch, as in training")
    x, scale, _, mean, variance = (_per_channel(step.input(index), step.x.rank, index) for index in range(5))
    std = op.Sqrt(variance + step.attribute("epsilon", 1e-5))
    factor = scale / std
    z = (x - mean) / std
    channels = [
        lambda: dy * z,
        lambda: dy,
        lambda: -dy * factor,
        lambda: dy * (z * factor / (-2 * std)),
    ]
    found = [_channel_sum(form()) if want else None for form, want in zip(channels, step.wanted[1:], strict=True)]
    return [dy * factor, *found]


def _per_channel(x: Tensor, rank: int, index: int) -> Tensor:
    """A parameter (C) as (C, 1, ...), to broadcast against (N, C, ...)."""
    return op.Unsqueeze(x, list(range(1, rank - 1))) if index and rank > 2 else x


def _channel_sum(x: Tensor) -> Tensor:
    return sum_over(x, [0, *range(2, x.rank)], keepdims=False)


RULES: dict[str, Rule] = {
    "LayerNormalization": _layer_normalization,
    "BatchNormalization": _batch_normalization,
}

"""Gradients under noise: their mean, their variance, the mean of their squares."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from craft_onnx.attribution.channels import Channels, reduce_channels
from craft_onnx.attribution.gradients import pulled
from craft_onnx.attribution.model import Differentiable, Progress, Rows, batches
from craft_onnx.attribution.registry import Maps, method
from craft_onnx.attribution.targets import Target
from craft_onnx.errors import InputError
from craft_onnx.runtime.batches import BATCH_SIZE

Array = NDArray[Any]


@method("smoothgrad", needs="gradients")
def smoothgrad(
    model: Differentiable,
    inputs: Array,
    targets: Target,
    *,
    samples: int = 50,
    noise: float = 0.15,
    stdev: float | None = None,
    channels: Channels = "max_abs",
    batch_size: int = BATCH_SIZE,
    seed: int = 0,
    progress: Progress | None = None,
) -> Maps:
    """Mean gradient of noisy copies of the input (Smilkov et al. 2017, arXiv 1706.03825, section 3).

    Parameters
    ----------
    model : SplitModel
        With gradients.
    inputs : (n, ...) array
        Preprocessed pictures in the model's layout.
    targets : int, (n,) ints or Target, optional
        What to explain; the predicted class of each by default.
    samples : int
        Noisy copies of each input.
    noise : float
        Standard deviation of the noise, as a share of the range (largest minus smallest number) of each input.
    stdev : float, optional
        Standard deviation of the noise in units of the input, in place of `noise`.
    channels : "max_abs", "mean_abs", "sum" or None
        What to take over the channels; None keeps them.
    batch_size : int
        Gradients in one run; copies and inputs share them.
    seed : int
        Of the noise.
    progress : callable, optional
        Told (done, total) gradients after each run.

    Returns
    -------
    (n, H, W) array
        In units of the target per unit of the input.
    """
    sums, _ = _moments(model, inputs, targets, samples, _deviations(inputs, noise, stdev), seed, batch_size, progress)
    return reduce_channels(sums, model, channels)


@method("vargrad", needs="gradients")
def vargrad(
    model: Differentiable,
    inputs: Array,
    targets: Target,
    *,
    samples: int = 50,
    noise: float = 0.15,
    stdev: float | None = None,
    channels: Channels = "max_abs",
    batch_size: int = BATCH_SIZE,
    seed: int = 0,
    progress: Progress | None = None,
) -> Maps:
    """Variance of the gradients of noisy copies of the input (Adebayo et al. 2018, arXiv 1810.03307).

    E[g^2] - E[g]^2; the parameters are those of `smoothgrad`.

    Returns
    -------
    (n, H, W) array
        Not negative, in squared units of a gradient.
    """
    deviations = _deviations(inputs, noise, stdev)
    mean, squares = _moments(model, inputs, targets, samples, deviations, seed, batch_size, progress)
    return reduce_channels(np.maximum(squares - mean**2, 0), model, channels)


@method("squaregrad", needs="gradients")
def squaregrad(
    model: Differentiable,
    inputs: Array,
    targets: Target,
    *,
    samples: int = 50,
    noise: float = 0.15,
    stdev: float | None = None,
    channels: Channels = "max_abs",
    batch_size: int = BATCH_SIZE,
    seed: int = 0,
    progress: Progress | None = None,
) -> Maps:
    """Mean square of the gradients of noisy copies of the input (SmoothGrad-Squared, Hooker et al. 2019, 1806.10758).

    E[g^2]; the parameters are those of `smoothgrad`.

    Returns
    -------
    (n, H, W) array
        Not negative, in squared units of a gradient.
    """
    deviations = _deviations(inputs, noise, stdev)
    _, squares = _moments(model, inputs, targets, samples, deviations, seed, batch_size, progress)
    return reduce_channels(squares, model, channels)


def noise_of(shape: tuple[int, ...], rows: Rows, draws: Rows, seed: int) -> Array:
    """Standard normal numbers (m, *shape), those of each input and copy the same in any batch."""
    generators = [np.random.default_rng((seed, row, draw)) for row, draw in zip(rows, draws, strict=True)]
    return np.stack([one.standard_normal(shape, np.float32) for one in generators])


def _deviations(inputs: Array, noise: float, stdev: float | None) -> Array:
    """Standard deviation of the noise for each input, (n, 1, ...)."""
    if (noise if stdev is None else stdev) < 0:
        raise InputError(f"Noise of {noise if stdev is None else stdev} is negative.", "Give 0 or more.")
    axes = tuple(range(1, inputs.ndim))
    spread = inputs.max(axis=axes, keepdims=True) - inputs.min(axis=axes, keepdims=True)
    return noise * spread if stdev is None else np.full_like(spread, stdev)


def _moments(
    model: Differentiable,
    inputs: Array,
    target: Target,
    samples: int,
    deviations: Array,
    seed: int,
    batch_size: int,
    progress: Progress | None,
) -> tuple[Array, Array]:
    """Means of the gradients and of their squares over noisy copies, both like the inputs, in float64."""
    if samples < 1:
        raise InputError(f"{samples} samples are none.", "Give at least 1.")
    mean, squares = np.zeros(inputs.shape), np.zeros(inputs.shape)
    for numbers in batches(len(inputs) * samples, batch_size, progress):
        rows, draws = np.divmod(numbers, samples)
        x = inputs[rows] + deviations[rows] * noise_of(inputs.shape[1:], rows, draws, seed)
        for row, part in zip(rows, pulled(model, x, target, rows).astype(np.float64), strict=True):
            mean[row] += part / samples
            squares[row] += part**2 / samples
    return mean, squares

"""Integrated gradients."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from craft_onnx.attribution.baselines import Baseline, baseline_of
from craft_onnx.attribution.channels import Channels, reduce_channels
from craft_onnx.attribution.gradients import pulled
from craft_onnx.attribution.model import Differentiable, Progress, batches, tensor
from craft_onnx.attribution.registry import Maps, method
from craft_onnx.attribution.targets import Target
from craft_onnx.errors import InputError
from craft_onnx.runtime.batches import BATCH_SIZE

Array = NDArray[Any]
Quadrature = Literal["gauss_legendre", "midpoint"]


@method("integrated_gradients", needs="gradients", complete=True)
def integrated_gradients(
    model: Differentiable,
    inputs: Array,
    targets: Target,
    *,
    baseline: Baseline = "zero",
    steps: int = 50,
    quadrature: Quadrature = "gauss_legendre",
    channels: Channels = "sum",
    batch_size: int = BATCH_SIZE,
    progress: Progress | None = None,
) -> tuple[Maps, NDArray[np.float64]]:
    """(x - b) times the mean gradient on the way from a baseline b to x (Sundararajan et al. 2017, arXiv 1703.01365).

    Equation 1. A map adds up to f(x) - f(b), exactly but for the error of the quadrature (completeness, proposition 1).

    Parameters
    ----------
    model : SplitModel
        With gradients.
    inputs : (n, ...) array
        Preprocessed pictures in the model's layout.
    targets : int, (n,) ints or Target, optional
        What to explain; the predicted class of each by default.
    baseline : str, float or array
        "zero" (after preprocessing), "black", "white", "blur", or an array; see `baselines.baseline_of`.
    steps : int
        Gradients for each input.
    quadrature : "gauss_legendre" or "midpoint"
        Where they are taken.
    channels : "sum", "max_abs", "mean_abs" or None
        What to take over the channels; only sums keep completeness. None keeps the channels.
    batch_size : int
        Gradients in one run; steps and inputs share them.
    progress : callable, optional
        Told (done, total) gradients after each run.

    Returns
    -------
    (n, H, W) array
        Signed, in units of the target.
    """
    start = baseline_of(model, inputs, baseline)
    difference = inputs - start
    points, weights = nodes(quadrature, steps)
    mean = np.zeros(inputs.shape, np.float64)
    for numbers in batches(len(inputs) * steps, batch_size, progress):
        rows, step = np.divmod(numbers, steps)
        x = start[rows] + along(points[step], difference[rows])
        for row, part in zip(rows, along(weights[step], pulled(model, x, targets, rows)), strict=True):
            mean[row] += part
    attributions = mean * difference
    residual = incompleteness(model, attributions, inputs, start, targets, batch_size)
    return reduce_channels(attributions, model, channels), residual


def nodes(quadrature: Quadrature, steps: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points in (0, 1) and weights that add up to 1.

    Raises
    ------
    InputError
        If there is no such rule, or no step.
    """
    if steps < 1:
        raise InputError(f"{steps} steps are none.", "Give at least 1.")
    if quadrature == "midpoint":
        return (np.arange(steps) + 0.5) / steps, np.full(steps, 1 / steps)
    if quadrature == "gauss_legendre":
        points, weights = np.polynomial.legendre.leggauss(steps)
        return (points + 1) / 2, weights / 2
    raise InputError(f"There is no quadrature {quadrature!r}.", "Take gauss_legendre or midpoint.")


def along(numbers: NDArray[np.float64], x: Array) -> Array:
    """Rows (m, ...) times a number each, in their type."""
    return x * numbers.astype(x.dtype).reshape(-1, *[1] * (x.ndim - 1))


def incompleteness(
    model: Differentiable, attributions: Array, inputs: Array, start: Array, target: Target, batch_size: int
) -> NDArray[np.float64]:
    """By how much the sums of attributions (n, ...) miss f(x) - f(b), relative to it, (n,)."""
    rows = np.arange(len(inputs))
    ends = [
        target.value(tensor(model, target.of, x, batch_size), rows).astype(float) for x in (inputs, np.array(start))
    ]
    change = ends[0] - ends[1]
    sums = attributions.reshape(len(inputs), -1).sum(axis=1, dtype=np.float64)
    return np.abs(sums - change) / np.maximum(np.abs(change), np.finfo(np.float32).tiny)

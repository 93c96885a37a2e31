"""Methods that need one gradient."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from craft_onnx.attribution.channels import Channels, reduce_channels
from craft_onnx.attribution.model import Differentiable, Progress, Rows, batches
from craft_onnx.attribution.registry import Maps, method
from craft_onnx.attribution.targets import Target
from craft_onnx.errors import CraftWarning
from craft_onnx.runtime.batches import BATCH_SIZE

Array = NDArray[Any]


@method("saliency", needs="gradients")
def saliency(
    model: Differentiable,
    inputs: Array,
    targets: Target,
    *,
    channels: Channels = "max_abs",
    batch_size: int = BATCH_SIZE,
    progress: Progress | None = None,
) -> Maps:
    """Absolute value of the gradient (Simonyan et al. 2013, arXiv 1312.6034, section 3).

    Parameters
    ----------
    model : SplitModel
        With gradients.
    inputs : (n, ...) array
        Preprocessed pictures in the model's layout.
    targets : int, (n,) ints or Target, optional
        What to explain; the predicted class of each by default.
    channels : "max_abs", "mean_abs", "sum" or None
        What to take over the channels; None keeps them.
    batch_size : int
        Inputs in one run.
    progress : callable, optional
        Told (done, total) after each run.

    Returns
    -------
    (n, H, W) array
        Not negative, in units of the target per unit of the input.
    """
    gradients = gradient(model, inputs, targets, batch_size, progress)
    return reduce_channels(np.abs(gradients), model, channels)


@method("gradient_input", needs="gradients")
def gradient_input(
    model: Differentiable,
    inputs: Array,
    targets: Target,
    *,
    channels: Channels = "sum",
    batch_size: int = BATCH_SIZE,
    progress: Progress | None = None,
) -> Maps:
    """Gradient times input (Shrikumar et al. 2016, arXiv 1605.01713), exact for a linear model without bias.

    The parameters are those of `saliency`.

    Returns
    -------
    (n, H, W) array
        Signed, in units of the target.
    """
    return reduce_channels(inputs * gradient(model, inputs, targets, batch_size, progress), model, channels)


@method("guided_backprop", needs="gradients")
def guided_backprop(
    model: Differentiable,
    inputs: Array,
    targets: Target,
    *,
    channels: Channels = "max_abs",
    batch_size: int = BATCH_SIZE,
    progress: Progress | None = None,
) -> Maps:
    """Gradient that every ReLU cuts where it, or the ReLU's input, is negative (Springenberg et al. 2014, 1412.6806).

    The parameters are those of `saliency`.

    Returns
    -------
    (n, H, W) array
        In units of the target per unit of the input.
    """
    found = gradient(model, inputs, targets, batch_size, progress, rules="guided_backprop")
    return reduce_channels(found, model, channels)


@method("deconvnet", needs="gradients")
def deconvnet(
    model: Differentiable,
    inputs: Array,
    targets: Target,
    *,
    channels: Channels = "max_abs",
    batch_size: int = BATCH_SIZE,
    progress: Progress | None = None,
) -> Maps:
    """Gradient that every ReLU cuts where it is negative, whatever the ReLU's input (Zeiler, Fergus 2013, 1311.2901).

    The parameters are those of `saliency`.

    Returns
    -------
    (n, H, W) array
        In units of the target per unit of the input.
    """
    return reduce_channels(gradient(model, inputs, targets, batch_size, progress, rules="deconvnet"), model, channels)


def gradient(
    model: Differentiable,
    inputs: Array,
    target: Target,
    batch_size: int = BATCH_SIZE,
    progress: Progress | None = None,
    rules: str = "gradient",
) -> Array:
    """The target's derivatives with respect to the inputs, an array like these."""
    found = np.empty(inputs.shape, np.float32)
    for rows in batches(len(inputs), batch_size, progress):
        found[rows] = pulled(model, inputs[rows], target, rows, rules)
    return found


def pulled(model: Differentiable, x: Array, target: Target, rows: Rows, rules: str = "gradient") -> Array:
    """The target's derivatives at one batch of points (m, ...) that stem from the inputs `rows`.

    A batch that does not fit in memory goes in halves.
    """
    try:
        y, pullback = model.vjp(x, of=target.of, rules=rules)
        return pullback(target.cotangent(y, rows))
    except MemoryError:
        if len(rows) == 1:
            raise
    half = len(rows) // 2
    warnings.warn(f"Gradients of {len(rows)} rows at once do not fit in memory.", CraftWarning, stacklevel=2)
    parts = (slice(None, half), slice(half, None))
    return np.concatenate([pulled(model, x[part], target, rows[part], rules) for part in parts])

"""Methods that read a map off the activations at a cut."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from craft_onnx.attribution.grid import Grid
from craft_onnx.attribution.model import Cut, Differentiable, Progress, Rows, batches, image_axes
from craft_onnx.attribution.registry import Maps, method
from craft_onnx.attribution.targets import Target
from craft_onnx.attribution.upsample import upsampled
from craft_onnx.errors import CraftWarning
from craft_onnx.runtime.batches import BATCH_SIZE

Array = NDArray[Any]

GAUSSIAN = np.outer([0.25, 0.5, 0.25], [0.25, 0.5, 0.25]).astype(np.float32)


@method("gradcam", needs="gradients at a cut")
def gradcam(
    model: Differentiable,
    inputs: Array,
    targets: Target,
    *,
    relu: bool = True,
    upsample: bool = True,
    batch_size: int = BATCH_SIZE,
    progress: Progress | None = None,
) -> Maps:
    """Channels at the cut, weighted with their mean gradients (Selvaraju et al. 2017, arXiv 1610.02391).

    Equations 1 and 2. A target of the activations, such as a concept, is differentiated where it is read: that needs
    no gradient graph.

    Parameters
    ----------
    model : SplitModel
        With gradients, cut where the map is to be read: the last convolutional layer is usual.
    inputs : (n, ...) array
        Preprocessed pictures in the model's layout.
    targets : int, (n,) ints or Target, optional
        What to explain; the predicted class of each by default.
    relu : bool
        Keep what speaks for the target alone.
    upsample : bool
        Bring the maps to the input's size, bilinearly; else they have that of the activations.
    batch_size : int
        Inputs in one run.
    progress : callable, optional
        Told (done, total) after each run.

    Returns
    -------
    (n, H, W) array
        In units of the target, up to the number of positions.
    """
    return _cam(model, inputs, targets, _mean_gradient, relu, upsample, batch_size, progress)


@method("gradcam_pp", needs="gradients at a cut")
def gradcam_pp(
    model: Differentiable,
    inputs: Array,
    targets: Target,
    *,
    relu: bool = True,
    upsample: bool = True,
    batch_size: int = BATCH_SIZE,
    progress: Progress | None = None,
) -> Maps:
    """Grad-CAM with the positive gradients of a channel weighted by position (Chattopadhay et al. 2018, 1710.11063).

    Equations 5 and 19 for an exponential on top of the logit, whose factor exp(logit), one for all positions, is left
    out. The parameters are those of `gradcam`.

    Returns
    -------
    (n, H, W) array
        Comparable within a map, not between maps.
    """
    return _cam(model, inputs, targets, _weighted_gradient, relu, upsample, batch_size, progress)


@method("reciprocam", needs="cut")
def reciprocam(
    model: Cut,
    inputs: Array,
    targets: Target,
    *,
    gaussian: bool = True,
    softmax: bool = True,
    normalise: bool = True,
    upsample: bool = True,
    batch_size: int = BATCH_SIZE,
    progress: Progress | None = None,
) -> Maps:
    """What the head says to each position of the feature map alone (Byun, Lee 2022, arXiv 2209.14074).

    No gradient is needed: the head, or a target of the activations, is evaluated once for every position, all others
    masked.

    Parameters
    ----------
    model : SplitModel
        Cut where the map is to be read.
    inputs : (n, ...) array
        Preprocessed pictures in the model's layout.
    targets : int, (n,) ints or Target, optional
        What to explain; the predicted class of each by default.
    gaussian : bool
        Leave the eight neighbours, fainter; else the position is alone.
    softmax : bool
        Read the target from probabilities, as the paper does, rather than from logits; one of the activations is read
        from these.
    normalise : bool
        Bring every map to 0..1, as the paper does.
    upsample : bool
        Bring the maps to the input's size, bilinearly; else they have that of the activations.
    batch_size : int
        Positions in one run.
    progress : callable, optional
        Told (done, total) inputs.

    Returns
    -------
    (n, H, W) array
        In 0..1, or in units of the target where it is not normalised.
    """
    found: list[Array] = []
    for rows in batches(len(inputs), batch_size, progress):
        values = _alone(model, inputs[rows], targets, rows, gaussian, softmax, batch_size)
        found.extend(_to_unit(values) if normalise else values)
    return _sized(np.stack(found), model, inputs, upsample)


def _cam(
    model: Differentiable,
    inputs: Array,
    target: Target,
    weigh: Any,
    relu: bool,
    upsample: bool,
    batch_size: int,
    progress: Progress | None,
) -> Maps:
    """Sum of the channels with weights from activations and gradients (m, channels, h, w), (m, channels)."""
    found: list[Array] = []
    for rows in batches(len(inputs), batch_size, progress):
        a = model.g(inputs[rows], len(rows))
        grid = _grid(model, a, inputs)
        maps, gradients = grid.maps(a), grid.maps(_derivative(model, a, target, rows))
        if target.of == "logits" and not gradients.any():
            _warn_of_unread(model)
        found.append(np.einsum("nc,nchw->nhw", weigh(maps, gradients), maps))
    total = np.concatenate(found)
    return _sized(np.maximum(total, 0) if relu else total, model, inputs, upsample)


def _derivative(model: Differentiable, a: Array, target: Target, rows: Rows) -> Array:
    """Of the target with respect to the activations."""
    if target.of == "activations":
        return target.cotangent(a, rows)
    logits, pullback = model.vjp_h(a)
    return pullback(target.cotangent(logits, rows))


def _mean_gradient(maps: Array, gradients: Array) -> Array:
    return gradients.mean(axis=(2, 3))


def _weighted_gradient(maps: Array, gradients: Array) -> Array:
    """sum_ij alpha_ij relu(g_ij), alpha = g^2 / (2 g^2 + sum_ab A_ab g^3); zero where g is."""
    below = 2 * gradients**2 + maps.sum(axis=(2, 3), keepdims=True) * gradients**3
    alphas = np.divide(gradients**2, below, out=np.zeros_like(gradients), where=below != 0)
    return (alphas * np.maximum(gradients, 0)).sum(axis=(2, 3))


def _alone(model: Cut, x: Array, target: Target, rows: Rows, gaussian: bool, softmax: bool, batch_size: int) -> Array:
    """The target (m, h, w) with one position of the activations at a time."""
    a = model.g(x, len(x))
    grid = _grid(model, a, x)
    masks = _masks(grid.height, grid.width, gaussian)
    masked, stems = _masked(a, masks, grid, batch_size), np.repeat(rows, len(masks))
    if target.of == "activations":
        parts = [target.value(some, part) for some, part in zip(masked, _parts(stems, batch_size), strict=True)]
        return np.concatenate(parts).reshape(len(x), grid.height, grid.width)
    logits = model.h(masked, batch_size)
    values = target.value(_softmax(logits) if softmax else logits, stems).reshape(len(x), grid.height, grid.width)
    if (np.ptp(values, axis=(1, 2)) == 0).all():
        _warn_of_unread(model)
    return values


def _parts(rows: Rows, size: int) -> list[Rows]:
    return [rows[numbers] for numbers in batches(len(rows), size)]


def _masked(a: Array, masks: Array, grid: Grid, batch_size: int) -> Iterator[Array]:
    for numbers in batches(len(a) * len(masks), batch_size):
        row, position = np.divmod(numbers, len(masks))
        yield grid.weighted(a[row], masks[position])


def _masks(height: int, width: int, gaussian: bool) -> Array:
    """For every position what is left of the others, (height * width, height, width)."""
    masks = np.zeros((height, width, height + 2, width + 2), np.float32)
    for i, j in np.ndindex(height, width):
        if gaussian:
            masks[i, j, i : i + 3, j : j + 3] = GAUSSIAN
        else:
            masks[i, j, i + 1, j + 1] = 1
    return masks[:, :, 1:-1, 1:-1].reshape(-1, height, width)


def _softmax(logits: Array) -> Array:
    powers = np.exp((logits - logits.max(axis=1, keepdims=True)).astype(np.float64))
    return powers / powers.sum(axis=1, keepdims=True)


def _to_unit(values: Array) -> list[Array]:
    """Every map from 0 to 1; zeros where it is flat."""
    spans = [float(np.ptp(one)) for one in values]
    return [(one - one.min()) / (span or 1.0) for one, span in zip(values, spans, strict=True)]


def _grid(model: Cut, a: Array, x: Array) -> Grid:
    _, rows, columns = image_axes(model, x.shape)
    return Grid.of(a.shape, model.cut.channel_axis, (x.shape[rows], x.shape[columns]))


def _sized(maps: Array, model: Cut, inputs: Array, upsample: bool) -> Maps:
    _, rows, columns = image_axes(model, inputs.shape)
    size = inputs.shape[rows], inputs.shape[columns]
    return upsampled(maps, size) if upsample else np.asarray(maps, np.float32)


def _warn_of_unread(model: Cut) -> None:
    name = getattr(model.cut, "name", "the cut")
    warnings.warn(
        f"Nothing that the target reads at {name} depends on a position: the map is empty. Behind the last block of a "
        "transformer only the class token is read; cut before it.",
        CraftWarning,
        stacklevel=2,
    )

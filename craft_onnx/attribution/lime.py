"""LIME: a linear model of the target around one input, in terms of which segments are shown."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from craft_onnx.attribution.baselines import Baseline
from craft_onnx.attribution.coalitions import coalition_values, painted
from craft_onnx.attribution.model import Predicts, Progress, image_axes
from craft_onnx.attribution.perturbation import Perturbed
from craft_onnx.attribution.registry import Maps, method
from craft_onnx.attribution.segments import Labels, segment_means, segments_of
from craft_onnx.attribution.targets import Target
from craft_onnx.errors import InputError
from craft_onnx.runtime.batches import BATCH_SIZE

Array = NDArray[Any]
Floats = NDArray[np.float64]


@method("lime", needs="predictions")
def lime(
    model: Predicts,
    inputs: Array,
    targets: Target,
    *,
    segments: Any = 8,
    n_samples: int = 1000,
    kernel_width: float = 0.25,
    alpha: float = 1.0,
    baseline: Baseline = "mean",
    batch_size: int = BATCH_SIZE,
    seed: int = 0,
    progress: Progress | None = None,
) -> Maps:
    """Coefficients of a local linear model of the segments shown (Ribeiro et al. 2016, arXiv 1602.04938, section 3.4).

    Segments are shown or hidden with probability 1/2; samples count by exp(-d^2 / kernel_width^2)^(1/2), with d the
    cosine distance to all segments shown; the fit is ridge regression. Defaults are those of the lime package.

    Parameters
    ----------
    model : SplitModel or callable
        Predictions are enough.
    inputs : (n, ...) array
        Preprocessed pictures in the model's layout.
    targets : int, (n,) ints or Target, optional
        What to explain; the predicted class of each by default.
    segments : int, (int, int), "slic" or (H, W) or (n, H, W) label maps
        Cells of a grid along either side, superpixels, or segments of one's own.
    n_samples : int
        Copies to evaluate; the first shows everything.
    kernel_width : float
        Distance at which samples begin to count little.
    alpha : float
        Strength of the ridge penalty.
    baseline : "mean", "zero", "black", "white", "blur", number or array
        What hides a segment; "mean" is its own mean colour.
    batch_size : int
        Copies in one run.
    seed : int
        Of the samples.
    progress : callable, optional
        Told (done, total), in copies, after each run.

    Returns
    -------
    (n, H, W) array
        The coefficient of every pixel's segment, in units of the target.

    Raises
    ------
    InputError
        If an option makes no sense.
    """
    if n_samples < 2 or kernel_width <= 0 or alpha < 0:
        problem = f"{n_samples} samples, a kernel of width {kernel_width} and a penalty of {alpha} fit no model."
        raise InputError(problem, "Give 2 samples or more, a positive width, and a penalty that is not negative.")
    axes = image_axes(model, inputs.shape)
    labels = segments_of(inputs, segments, axes)
    hidden = mean_colours(inputs, labels, axes) if isinstance(baseline, str) and baseline == "mean" else baseline
    drawn = {count: draw(count, n_samples, seed) for count in {int(one.max()) + 1 for one in labels}}
    shown = [drawn[int(one.max()) + 1] for one in labels]
    look = Perturbed(model, inputs, targets, hidden)
    values = coalition_values(look, labels, shown, batch_size, progress)
    fitted = [fit(z, some, kernel_width, alpha) for z, some in zip(shown, values, strict=True)]
    return painted(fitted, labels)


def draw(count: int, n_samples: int, seed: int = 0) -> NDArray[np.bool_]:
    """Which of `count` segments each sample shows, (n_samples, count); the first shows all."""
    shown = np.random.default_rng(seed).random((n_samples, count)) < 0.5
    shown[0] = True
    return shown


def fit(shown: NDArray[np.bool_], values: Floats, kernel_width: float, alpha: float) -> Floats:
    """Coefficients (K,) of the weighted ridge regression of values (m,) on samples (m, K), with an intercept."""
    z = shown.astype(float)
    distance = 1 - np.sqrt(z.mean(axis=1))  # the cosine of z and all ones is sqrt(|z| / K)
    weights = np.exp(-np.square(distance / kernel_width) / 2)
    centred, change = z - np.average(z, 0, weights), values - np.average(values, weights=weights)
    return np.linalg.solve((centred.T * weights) @ centred + alpha * np.eye(z.shape[1]), (centred.T * weights) @ change)


def mean_colours(inputs: Array, labels: list[Labels], axes: tuple[int, int, int]) -> Array:
    """Inputs whose every segment has its mean colour throughout."""
    flat = np.empty_like(inputs)
    pictures, painted_over = (np.moveaxis(array, axes, (3, 1, 2)) for array in (inputs, flat))
    for picture, where, out in zip(pictures, labels, painted_over, strict=True):
        means = segment_means(picture.reshape(where.size, -1), where.ravel(), int(where.max()) + 1)
        out[...] = means[where]
    return flat

"""What stands for "nothing there": where integrated gradients start, the values that a removed pixel takes."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from craft_onnx.attribution.model import image_axes
from craft_onnx.errors import InputError

Array = NDArray[Any]
Baseline = str | float | NDArray[Any]
# Standard deviation of the default blur, as a share of the shorter side: 11 pixels of 224 (10 in Fong & Vedaldi 2017).
BLUR = 0.05


def baseline_of(model: Any, inputs: Array, baseline: Baseline) -> Array:
    """Baselines of inputs.

    Parameters
    ----------
    model : SplitModel or callable
        Says which axes are which, and how pictures become input.
    inputs : array (n, ...)
        Preprocessed pictures.
    baseline : "zero", "black", "white", "blur", number or array
        "zero" is zero after preprocessing: the mean colour where the preprocessing subtracts it. "black" and "white"
        are such a picture, preprocessed; "blur" the input without its details. A number or an array is meant after
        preprocessing; an array has one number a channel, the shape of one input for all, or (n, ...) one for each.

    Returns
    -------
    array like `inputs`
        Read-only where it repeats values.

    Raises
    ------
    InputError
        If there is no such baseline, or an array does not fit.
    """
    if isinstance(baseline, str):
        return _named(model, inputs, baseline)
    given = np.asarray(baseline, inputs.dtype)
    if given.ndim == 1 and inputs.ndim == 4:
        given = _per_channel(model, given, inputs.shape)
    try:
        return np.broadcast_to(given, inputs.shape)
    except ValueError as error:
        problem = f"A baseline of shape {given.shape} does not fit inputs of shape {inputs.shape}."
        remedy = "Give a number, one a channel, or an array of the shape of one input or of all."
        raise InputError(problem, remedy) from error


def blurred(inputs: Array, axes: tuple[int, int, int], sigma: float | None = None) -> Array:
    """Inputs after a Gaussian blur.

    Parameters
    ----------
    inputs : array (n, ...)
        Pictures.
    axes : (int, int, int)
        Of the channels, the height and the width.
    sigma : float, optional
        Standard deviation in pixels, by default `BLUR` of the shorter side; edges are mirrored.
    """
    height, width = (inputs.shape[axis] for axis in axes[1:])
    sigma = BLUR * min(height, width) if sigma is None else sigma
    pictures = np.moveaxis(inputs, axes, (3, 1, 2))  # channels last
    result = np.empty_like(inputs)
    for picture, out in zip(pictures, np.moveaxis(result, axes, (3, 1, 2)), strict=True):
        smooth = cv2.GaussianBlur(np.ascontiguousarray(picture), (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101)
        out[...] = smooth.reshape(out.shape)
    return result


def _named(model: Any, inputs: Array, name: str) -> Array:
    if name == "blur":
        return blurred(inputs, image_axes(model, inputs.shape))
    shades = {"zero": lambda: np.zeros(1), "black": lambda: _shade(model, 0), "white": lambda: _shade(model, 255)}
    if name not in shades:
        raise InputError(f"There is no baseline {name!r}.", "Take zero, black, white, blur, a number or an array.")
    shade = shades[name]().astype(inputs.dtype)
    return np.broadcast_to(shade if len(shade) == 1 else _per_channel(model, shade, inputs.shape), inputs.shape)


def _shade(model: Any, pixel: float) -> Array:
    """A grey pixel, preprocessed: one number a channel."""
    rule = getattr(model, "preprocessing", None)
    if rule is None:
        raise InputError(
            "The model does not say how pictures become its input, so that black and white are not known.",
            "Give the number that black becomes, or take the baseline zero.",
        )
    return (pixel * rule.scale - np.array(rule.mean)) / np.array(rule.std)


def _per_channel(model: Any, numbers: Array, shape: tuple[int, ...]) -> Array:
    """One number for each channel (channels,), in a shape that broadcasts over inputs."""
    channels = image_axes(model, shape)[0]
    return numbers.reshape([-1 if axis == channels else 1 for axis in range(len(shape))])

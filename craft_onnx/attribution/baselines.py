"""What stands for "nothing there": the values that a removed pixel takes."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from craft_onnx.errors import InputError

Array = NDArray[Any]
# Standard deviation of the default blur, as a share of the shorter side: 11 pixels of 224 (10 in Fong & Vedaldi 2017).
BLUR = 0.05


def baseline_of(inputs: Array, baseline: Any, axes: tuple[int, int, int]) -> Array:
    """Baselines of inputs.

    Parameters
    ----------
    inputs : array (n, ...)
        Preprocessed pictures.
    baseline : "zero", "blur", number or array
        Zero is the mean colour where the preprocessing subtracts it; an array is taken for all inputs, or (n, ...)
        one for each.
    axes : (int, int, int)
        Of the channels, the height and the width.

    Returns
    -------
    array like `inputs`
        Read-only where it repeats one value.

    Raises
    ------
    InputError
        If there is no such baseline, or an array does not fit.
    """
    if isinstance(baseline, str):
        if baseline not in ("zero", "blur"):
            raise InputError(f"There is no baseline {baseline!r}.", "Take 'zero', 'blur', a number or an array.")
        return blurred(inputs, axes) if baseline == "blur" else np.broadcast_to(inputs.dtype.type(0), inputs.shape)
    given = np.asarray(baseline, inputs.dtype)
    try:
        return np.broadcast_to(given, inputs.shape)
    except ValueError as error:
        problem = f"A baseline of shape {given.shape} does not fit inputs of shape {inputs.shape}."
        raise InputError(problem, "Give a number, or an array of the shape of one input or of all.") from error


def blurred(inputs: Array, axes: tuple[int, int, int], sigma: float | None = None) -> Array:
    """Inputs after a Gaussian blur; `sigma` in pixels, by default `BLUR` of the shorter side, edges mirrored."""
    height, width = (inputs.shape[axis] for axis in axes[1:])
    sigma = BLUR * min(height, width) if sigma is None else sigma
    pictures = np.moveaxis(inputs, axes, (3, 1, 2))  # channels last
    result = np.empty_like(inputs)
    for picture, out in zip(pictures, np.moveaxis(result, axes, (3, 1, 2)), strict=True):
        smooth = cv2.GaussianBlur(np.ascontiguousarray(picture), (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101)
        out[...] = smooth.reshape(out.shape)
    return result

"""From an attribution of every number of the input to one of every pixel."""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from craft_onnx.attribution.model import image_axes
from craft_onnx.errors import InputError

Array = NDArray[Any]
Channels = Literal["max_abs", "mean_abs", "sum"] | None

REDUCTIONS = {
    "max_abs": lambda values, axis: np.abs(values).max(axis=axis),
    "mean_abs": lambda values, axis: np.abs(values).mean(axis=axis),
    "sum": lambda values, axis: values.sum(axis=axis),
}


def reduce_channels(values: Array, model: Any, channels: Channels) -> NDArray[np.float32]:
    """One number a pixel.

    Parameters
    ----------
    values : array (n, ...)
        Attributions in the shape of the input.
    model : SplitModel or callable
        Says which axis holds the channels.
    channels : "max_abs", "mean_abs", "sum" or None
        What to take over the channels; None leaves the array as it is.

    Returns
    -------
    array (n, H, W) float32
        Or of the shape of the input.

    Raises
    ------
    InputError
        If there is no such reduction, or the inputs are no pictures.
    """
    if channels is None:
        return np.asarray(values, np.float32)
    if channels not in REDUCTIONS:
        raise InputError(f"There is no reduction {channels!r} of channels.", f"Take {', '.join(REDUCTIONS)} or None.")
    return np.asarray(REDUCTIONS[channels](values, image_axes(model, values.shape)[0]), np.float32)

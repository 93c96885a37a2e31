"""The bounds of a model's input, which the rule ZBox needs."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from craft_onnx.attribution.model import image_axes
from craft_onnx.runtime.model import SplitModel


def input_bounds(model: SplitModel) -> tuple[NDArray[Any], NDArray[Any]]:
    """The least and the largest value that each channel of the input can have.

    Parameters
    ----------
    model : SplitModel
        That knows how pictures become its input.

    Returns
    -------
    low, high : (channels, 1, 1) arrays
        As `EpsilonGammaBox` takes them.

    Raises
    ------
    InputError
        If the model does not know its preprocessing.
    """
    picture = np.zeros((2, 2, 3), np.uint8)
    x = model.preprocess([picture, picture + 255])
    channels, height, width = image_axes(model, x.shape)
    ends = np.moveaxis(x, (channels, height, width), (1, 2, 3))[:, :, :1, :1]
    return ends.min(axis=0), ends.max(axis=0)

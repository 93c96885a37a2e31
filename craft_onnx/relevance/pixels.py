"""The arithmetic of a model's preprocessing with its derivative: RGB from 0 to 1 into the model's input."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from craft_onnx.description import Preprocessing
from craft_onnx.errors import InputError
from craft_onnx.runtime.model import SplitModel

Array = NDArray[Any]
# From RGB to the model's channels; grey as OpenCV has it (ITU-R BT.601).
CHANNELS = {"rgb": np.eye(3), "bgr": np.eye(3)[::-1], "gray": np.array([[0.299, 0.587, 0.114]])}


def differentiable_rule(model: SplitModel) -> Preprocessing:
    """How pictures become the model's input.

    Raises
    ------
    InputError
        If that is not known, or part of a graph that takes bytes, to which no gradient leads.
    """
    rule = model.preprocessing
    if rule is None:
        raise InputError(
            "It is not known how pictures become this model's input.", "Convert it with a preprocessing preset."
        )
    if rule.baked:
        raise InputError(
            "This model takes bytes (its preprocessing is part of the graph), to which no gradient leads.",
            "Take the model without --bake-preprocessing.",
        )
    return rule


def as_input(pictures: Array, rule: Preprocessing) -> Array:
    """Pictures of the model's size as its input: (255 x scale - mean) / std in the model's order of channels.

    Parameters
    ----------
    pictures : array (n, height, width, 3)
        RGB from 0 to 1.
    rule : Preprocessing
        Of the model.

    Returns
    -------
    array (n, ...)
        float32, in the model's layout.
    """
    x = pictures @ _weights(rule).T - np.divide(rule.mean, rule.std).astype(np.float32)
    return np.ascontiguousarray(np.moveaxis(x, -1, 1) if rule.layout == "NCHW" else x, np.float32)


def pixel_cotangent(dx: Array, rule: Preprocessing) -> Array:
    """The cotangent (n, height, width, 3) of pictures for one of the input."""
    channels_last = np.moveaxis(dx, 1, -1) if rule.layout == "NCHW" else dx
    result: Array = channels_last.astype(np.float32) @ _weights(rule)
    return result


def _weights(rule: Preprocessing) -> Array:
    """From RGB (0 to 1) to the model's channels, (channels, 3)."""
    return (255 * rule.scale * CHANNELS[rule.channel_order] / np.array(rule.std)[:, None]).astype(np.float32)

"""Derivatives of a logit along directions in the space of activations, on the gradient graph of h."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from craft_onnx.attribution.targets import Logit
from craft_onnx.errors import InputError

if TYPE_CHECKING:
    from craft_onnx.concepts.halves import Halves
    from craft_onnx.description import Layout
    from craft_onnx.runtime.model import SplitModel

Floats = NDArray[np.floating]


def logit_gradients(halves: "Halves", activations: Floats, class_id: int, layout: "Layout") -> Floats:
    """Derivatives of a logit with respect to activations.

    Parameters
    ----------
    halves : Halves
        Those of a bundle with gradient graphs.
    activations : array (n, H', W', p), (n, T, p) or (n, p)
        Channels last; one batch, all of it goes through at once.
    class_id : int
        The class of the logit.
    layout : "NCHW" or "NHWC"
        Of the images.

    Returns
    -------
    array like `activations`

    Raises
    ------
    InputError
        If the model has no gradient graphs, or no such class.
    """
    axis = halves.axis_of_channels(layout, activations.ndim)
    a = np.ascontiguousarray(np.moveaxis(activations, -1, axis))
    logits, pullback = differentiable(halves).vjp_h(a)
    rows = np.arange(len(a))
    gradient: Floats = np.moveaxis(pullback(Logit(class_id).cotangent(logits, rows)), axis, -1)
    return gradient


def differentiable(halves: "Halves") -> "SplitModel":
    """The bundle's model behind the halves; InputError for callables, whose gradient nobody knows."""
    if halves.model is None:
        raise InputError(
            "Derivatives of the logit need the gradient graph of h.", "Give a bundle, as craft_onnx.load returns it."
        )
    return halves.model


def along(gradients: Floats, directions: Floats) -> NDArray[np.float64]:
    """Directional derivatives, summed over the positions.

    Parameters
    ----------
    gradients : array (n, ..., p)
        Channels last.
    directions : array (d, p) or (d, ..., p)
        The same at all positions, or with them.

    Returns
    -------
    array (n, d)

    Raises
    ------
    InputError
        If the directions have another shape.
    """
    pooled = gradients.sum(axis=tuple(range(1, gradients.ndim - 1))) if directions.ndim == 2 else gradients
    if pooled.shape[1:] != directions.shape[1:]:
        raise InputError(
            f"A direction of shape {directions.shape[1:]} does not fit activations {gradients.shape[1:]}.",
            f"Give one of shape {gradients.shape[-1:]}, or {gradients.shape[1:]}, channels last.",
        )
    rows, columns = (x.reshape(len(x), -1).astype(np.float64) for x in (pooled, directions))
    return rows @ columns.T


def derivatives(
    halves: "Halves", batches: Iterator[Any], class_id: int, layout: "Layout", directions: Floats
) -> NDArray[np.float64]:
    """Directional derivatives (n, d) of a logit at the activations of batches of images."""
    return np.concatenate(
        [along(logit_gradients(halves, a, class_id, layout), directions) for a in halves.activations(batches, layout)]
    )

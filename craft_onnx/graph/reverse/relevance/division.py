"""Relevance over what it is divided by, and products that such divisions can be moved into."""

from __future__ import annotations

from craft_onnx.graph.reverse.gradients.masks import below
from craft_onnx.graph.reverse.tensor import Tensor

EPSILON = 1e-6


class Product(Tensor):
    """Data times what is carried back to it.

    Attributes
    ----------
    data, carried : Tensor
        The factors; data are of the forward pass.
    """

    def __init__(self, data: Tensor, carried: Tensor) -> None:
        super().__init__(data.emitter, (data * carried).value)
        self.data, self.carried = data, carried


def stabilized(z: Tensor, epsilon: float = EPSILON) -> Tensor:
    """z moved away from 0 by epsilon, 0 itself upwards."""
    if z.nonnegative:
        return z + epsilon
    return z + epsilon - (2 * epsilon) * below(z, 0)


def divided(relevance: Tensor, z: Tensor) -> Tensor:
    """Relevance / z, z of the forward pass.

    The data of a product are divided instead: then that is done once for all that is carried back, and is all that is
    kept of both. Behind a rectifier it is at most 1, where the product over a small z may be two large numbers.
    """
    if isinstance(relevance, Product) and relevance.data.shape == z.shape:
        return relevance.carried * (relevance.data / z)
    return relevance / z

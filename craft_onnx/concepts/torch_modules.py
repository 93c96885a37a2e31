"""PyTorch modules as functions of arrays. PyTorch is never imported: who gives a module has loaded it."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from craft_onnx.errors import InputError
from craft_onnx.runtime.batches import as_array

Array = NDArray[Any]


def array_function(model: Callable[..., Any], device: Any = None) -> Callable[[Array], Any]:
    """A function of arrays of a PyTorch module, or of a method of one; any other callable as it is.

    The module runs without gradients, where its parameters are and in their precision, and in evaluation mode: in
    training mode BatchNormalization would mix the images of a batch, and Dropout would be random. It is left in the
    mode it was in.

    Parameters
    ----------
    model : callable
        The module.
    device : str or torch.device, optional
        Where the caller wants it to run.

    Raises
    ------
    InputError
        If the module is elsewhere.
    """
    module = _module_of(model)
    if module is None:
        return model
    parameter = next(module.parameters(), None)
    _check_device(device, parameter)
    torch: Any = sys.modules["torch"]

    def run(x: Array) -> Array:
        tensor = torch.tensor(np.ascontiguousarray(x))
        if parameter is not None:
            tensor = tensor.to(parameter.device, parameter.dtype)
        with torch.no_grad(), _evaluating(module):
            return as_array(model(tensor))

    return run


def _module_of(model: Any) -> Any:
    """The module that `model` is, or is a method of; None where it is neither."""
    torch: Any = sys.modules.get("torch")
    kind = getattr(getattr(torch, "nn", None), "Module", None)
    owner = getattr(model, "__self__", model)
    return owner if kind is not None and isinstance(owner, kind) else None


def _check_device(device: Any, parameter: Any) -> None:
    asked = None if device is None else str(device).partition(":")[0]
    if asked is not None and parameter is not None and parameter.device.type != asked:
        raise InputError(
            f"The module is on {parameter.device}, device={str(device)!r} was asked for.",
            f"Move it first: module.to({str(device)!r}).",
        )


@contextmanager
def _evaluating(module: Any) -> Iterator[None]:
    """Evaluation mode, inside."""
    training = [each for each in module.modules() if each.training]
    module.eval()
    try:
        yield
    finally:
        for each in training:
            each.training = True

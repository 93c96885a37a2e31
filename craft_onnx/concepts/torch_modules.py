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


class ModuleFunction:
    """A PyTorch module, or a method of one, as a function of arrays.

    The module runs without gradients, where its parameters are and in their precision, and in evaluation mode: in
    training mode BatchNormalization would mix the images of a batch, and Dropout would be random. It is left in the
    mode it was in.

    Parameters
    ----------
    function : callable
        The module or its method.
    module : torch.nn.Module
        The module.
    """

    def __init__(self, function: Callable[..., Any], module: Any) -> None:
        self.function = function
        self.module = module
        self.parameter = next(module.parameters(), None)

    def __call__(self, x: Array) -> Array:
        """The module's output for an array."""
        torch: Any = sys.modules["torch"]
        tensor = torch.tensor(np.ascontiguousarray(x))
        if self.parameter is not None:
            tensor = tensor.to(self.parameter.device, self.parameter.dtype)
        with torch.no_grad(), _evaluating(self.module):
            return as_array(self.function(tensor))

    @property
    def affine_after_pooling(self) -> bool:
        """Whether it is a sequence that begins with global average pooling and goes on with affine layers alone."""
        nn: Any = sys.modules["torch"].nn
        first, *rest = _leaves(self.function, nn)
        pooled = type(first) is nn.AdaptiveAvgPool2d and first.output_size in (1, (1, 1))
        hooked = any(each._forward_hooks or each._forward_pre_hooks for each in self.module.modules())
        return pooled and not hooked and all(type(each) in _affine(nn) for each in rest)


def array_function(model: Callable[..., Any], device: Any = None) -> Callable[[Array], Any]:
    """A function of arrays of a PyTorch module, or of a method of one; any other callable as it is.

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
    function = ModuleFunction(model, module)
    _check_device(device, function.parameter)
    return function


def _leaves(model: Any, nn: Any) -> list[Any]:
    """Layers of nested sequences, in the order in which they run."""
    if type(model) is not nn.Sequential:
        return [model]
    return [leaf for child in model for leaf in _leaves(child, nn)] or [model]


def _affine(nn: Any) -> tuple[type, ...]:
    """Layers that are affine in evaluation mode."""
    return (nn.Linear, nn.Flatten, nn.Dropout, nn.Identity)


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

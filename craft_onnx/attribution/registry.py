"""The methods by name, and what they have in common."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from craft_onnx.attribution.model import as_inputs, as_model, resolved
from craft_onnx.errors import InputError
from craft_onnx.runtime.batches import BATCH_SIZE

Maps = NDArray[np.float32]
# Options that every method takes, whether they change anything for it or not.
COMMON = ("batch_size", "seed", "progress")
# What a model must have: (attributes, what to do without).
NEEDED = {
    "predictions": (("predict",), "Give a SplitModel, or a function from x to logits."),
    "cut": (("g", "h", "cut"), "Give a model cut in two, as craft_onnx.load returns it."),
    "gradients": (("vjp",), "Give a bundle with gradient graphs, as craft_onnx.load returns it."),
    "gradients at a cut": (("g", "vjp_h", "cut"), "Give a bundle with gradient graphs, as craft_onnx.load returns it."),
}

# The files that hold methods: importing one registers them.
MODULES = ("gradients", "noise", "integrated", "cam", "occlusion", "rise", "sobol", "shap", "lime")
METHODS: dict[str, Method] = {}


@dataclass(frozen=True)
class Method:
    """An attribution method.

    Attributes
    ----------
    name : str
        By which it is asked for.
    function : callable
        ``function(model, inputs, target, **options)`` -> maps, or (maps, residual) where complete.
    needs : str
        What it needs of a model, a key of `NEEDED`.
    complete : bool
        Its maps promise to add up to the change of the target from a baseline to the input.
    relative : bool
        Zero means nothing in its maps, only which pixel has more than another.
    """

    name: str
    function: Callable[..., Any]
    needs: str
    complete: bool = False
    relative: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """Names and defaults of its options."""
        parameters = inspect.signature(self.function).parameters.values()
        return {one.name: one.default for one in parameters if one.kind is inspect.Parameter.KEYWORD_ONLY}

    @property
    def summary(self) -> str:
        """What it does, in one line."""
        return (self.function.__doc__ or "").partition("\n")[0]

    def run(
        self, model: Any, inputs: Any, targets: Any = None, **options: Any
    ) -> tuple[Maps, NDArray[np.float64] | None]:
        """Maps, and where the method is complete what each misses of its promise, relative to the change."""
        model, x = as_model(model), as_inputs(inputs)
        self._check(model, targets, options)
        target = resolved(model, x, targets, options.get("batch_size", BATCH_SIZE))
        taken = {name: value for name, value in options.items() if name in self.options}
        result = self.function(model, x, target, **taken)
        return result if self.complete else (result, None)

    def _check(self, model: Any, targets: Any, options: dict[str, Any]) -> None:
        # A target of the activations is differentiated there by itself.
        at_the_cut = self.needs == "gradients at a cut" and getattr(targets, "of", None) == "activations"
        needs = "cut" if at_the_cut else self.needs
        attributes, remedy = NEEDED[needs]
        if not all(hasattr(model, name) for name in attributes):
            raise InputError(f"{self.name} needs {needs}, which a {type(model).__name__} has not.", remedy)
        if unknown := sorted(options.keys() - self.options.keys() - set(COMMON)):
            own = ", ".join(name for name in self.options if name not in COMMON)
            raise InputError(f"{self.name} has no option {unknown[0]!r}.", f"It has {own or 'none of its own'}.")


def method(
    name: str, needs: str, complete: bool = False, relative: bool = False
) -> Callable[[Callable[..., Any]], Callable[..., Maps]]:
    """Decorator that registers a method under a name.

    The function gets a model with what it `needs`, inputs as an array and a `Target`, whatever its caller gave.

    Parameters
    ----------
    name : str
        By which `attribute` finds it.
    needs : str
        A key of `NEEDED`.
    complete : bool
        The function returns (maps, residual (n,)): by how much the sum of each map misses the change of the target
        from the baseline to the input, relative to that change.
    relative : bool
        Zero means nothing in the maps.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Maps]:
        METHODS[name] = registered = Method(name, function, needs, complete, relative)

        @functools.wraps(function)
        def public(model: Any, inputs: Any, targets: Any = None, **options: Any) -> Maps:
            return registered.run(model, inputs, targets, **options)[0]

        return public

    return register


def methods() -> dict[str, Method]:
    """All methods by name, those of the package loaded and first: whatever was imported before, in the same order."""
    files = [f"craft_onnx.attribution.{module}" for module in MODULES]
    for file in files:
        importlib.import_module(file)
    places = {file: place for place, file in enumerate(files)}
    return dict(sorted(METHODS.items(), key=lambda item: places.get(item[1].function.__module__, len(files))))


def find_method(name: str) -> Method:
    """The method of a name.

    Raises
    ------
    InputError
        If there is none.
    """
    found = methods()
    if name not in found:
        raise InputError(f"There is no attribution method {name!r}.", f"Take one of {', '.join(found)}.")
    return found[name]

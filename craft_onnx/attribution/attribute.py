"""One call for any method, and a result that carries its evidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from craft_onnx.attribution.model import Progress, as_inputs, as_model, resolved, tensor
from craft_onnx.attribution.registry import COMMON, Maps, Method, find_method
from craft_onnx.runtime.batches import BATCH_SIZE


@dataclass(frozen=True)
class Attribution:
    """Maps of some inputs, with how they came about.

    Attributes
    ----------
    maps : array (n, H, W)
        Attribution of every pixel of the input; of the input's shape with ``channels=None``.
    method : str
        The method.
    values : array (n,)
        Of the target at each input.
    residual : array (n,), optional
        Where the method promises that a map adds up to the change of the target from a baseline to the input: by how
        much it misses it, relative to that change.
    provider : str, optional
        The execution provider that ran the model, where it says so.
    seed : int
        Of everything random.
    options : dict
        Of the method, defaults included.
    """

    maps: Maps
    method: str
    values: NDArray[Any]
    residual: NDArray[np.float64] | None
    provider: str | None
    seed: int
    options: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """A dictionary of JSON values: everything but the maps; arrays among the options by their shape."""
        return {
            "method": self.method,
            "values": np.asarray(self.values, np.float64).tolist(),
            "residual": None if self.residual is None else self.residual.tolist(),
            "provider": self.provider,
            "seed": self.seed,
            "options": {name: _plain(value) for name, value in self.options.items()},
        }


def attribute(
    model: Any,
    inputs: Any,
    targets: Any = None,
    method: str = "integrated_gradients",
    *,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
    progress: Progress | None = None,
    **options: Any,
) -> Attribution:
    """Explain a target of a model by any method.

    Parameters
    ----------
    model : SplitModel or callable
        A model; black-box methods take any function from inputs to logits.
    inputs : (n, ...) array or tensor
        Preprocessed pictures in the model's layout.
    targets : int, (n,) ints or Target, optional
        What to explain: a class, one for each input, or any target; the predicted class of each by default.
    method : str
        Name of the method.
    seed : int
        Of everything random.
    batch_size : int
        Rows in one run.
    progress : callable, optional
        Told (done, total) after each run.
    **options
        Of the method.

    Returns
    -------
    Attribution
        Maps and evidence.

    Raises
    ------
    InputError
        If there is no such method, option or class, or the model has not what the method needs.
    """
    chosen, model, x = find_method(method), as_model(model), as_inputs(inputs)
    target = resolved(model, x, targets, batch_size)
    maps, residual = chosen.run(model, x, target, seed=seed, batch_size=batch_size, progress=progress, **options)
    values = target.value(tensor(model, target.of, x, batch_size), np.arange(len(x)))
    provider = getattr(model, "provider", None)
    return Attribution(maps, method, values, residual, provider, seed, with_defaults(chosen, options))


def with_defaults(method: Method, options: dict[str, Any]) -> dict[str, Any]:
    """The options of a method that are its own, those that were not given with their defaults."""
    defaults = {name: value for name, value in method.options.items() if name not in COMMON}
    return defaults | {name: value for name, value in options.items() if name in defaults}


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    if isinstance(value, np.ndarray):
        return {"shape": list(value.shape)}
    return value.item() if isinstance(value, np.generic) else value

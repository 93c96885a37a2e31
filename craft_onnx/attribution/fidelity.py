"""How faithful a map is to the model: what becomes of the target when pixels come or go in the map's order."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from craft_onnx.attribution.baselines import Baseline
from craft_onnx.attribution.model import Progress, as_inputs, as_model, resolved
from craft_onnx.attribution.perturbation import Perturbed
from craft_onnx.attribution.targets import Logit, Probability, Target
from craft_onnx.errors import InputError
from craft_onnx.runtime.batches import BATCH_SIZE, as_array

Array = NDArray[Any]


@dataclass(frozen=True)
class Curve:
    """The target along the way.

    Attributes
    ----------
    fractions : (steps + 1,) array
        Share of the pixels that have come or gone, from 0 to 1.
    values : (n, steps + 1) array
        The target there.
    areas : (n,) array
        Under each curve, by trapezia: the mean of the target along the way.
    """

    fractions: NDArray[np.float64]
    values: NDArray[np.float64]
    areas: NDArray[np.float64]


def deletion(
    model: Any,
    inputs: Any,
    maps: Any,
    targets: Any = None,
    *,
    steps: int = 50,
    baseline: Baseline = "zero",
    batch_size: int = BATCH_SIZE,
    progress: Progress | None = None,
) -> Curve:
    """Remove the pixels, the most important first (Petsiuk et al. 2018, section 4.1); a small area is good.

    Parameters
    ----------
    model : SplitModel or callable
        Predictions are enough.
    inputs : (n, ...) array
        Preprocessed pictures in the model's layout.
    maps : (n, H, W) array
        Importance of every pixel; only its order counts, and equal pixels go from the top left on.
    targets : int, (n,) ints or Target, optional
        What to measure: the probability of a class, by default the predicted one, or any target.
    steps : int
        In how many equal parts the pixels go.
    baseline : "zero", "black", "white", "blur", number or array
        What replaces them.
    batch_size : int
        Copies in one run.
    progress : callable, optional
        Told (done, total), in copies, after each run.

    Returns
    -------
    Curve
        From the input to the baseline.

    Raises
    ------
    InputError
        If maps and inputs do not belong together, or there are no steps or more than pixels.
    """
    return _curve(model, inputs, maps, targets, steps, baseline, batch_size, progress, inserted=False)


def insertion(
    model: Any,
    inputs: Any,
    maps: Any,
    targets: Any = None,
    *,
    steps: int = 50,
    baseline: Baseline = "blur",
    batch_size: int = BATCH_SIZE,
    progress: Progress | None = None,
) -> Curve:
    """Put the pixels in, the most important first (Petsiuk et al. 2018, section 4.1); a large area is good.

    Parameters, result and errors are those of `deletion`; the curve goes from the baseline to the input.
    """
    return _curve(model, inputs, maps, targets, steps, baseline, batch_size, progress, inserted=True)


def _curve(
    model: Any,
    inputs: Any,
    maps: Any,
    targets: Any,
    steps: int,
    baseline: Baseline,
    batch_size: int,
    progress: Progress | None,
    inserted: bool,
) -> Curve:
    model, x = as_model(model), as_inputs(inputs)
    look = Perturbed(model, x, _measured(model, x, targets, batch_size), baseline)
    ranks = ranking(as_array(maps), (len(x), *look.size))
    pixels = look.size[0] * look.size[1]
    if not 1 <= steps <= pixels:
        raise InputError(f"{steps} steps do not divide {pixels} pixels.", f"Take 1 to {pixels}.")
    bounds = np.rint(np.linspace(0, pixels, steps + 1)).astype(int)[:, None, None]

    def make(row: int, which: slice) -> NDArray[np.bool_]:
        return (ranks[row] < bounds[which]) == inserted

    values = np.stack(look.values(steps + 1, make, batch_size, progress))
    fractions = bounds.ravel() / pixels
    return Curve(fractions, values, ((values[:, 1:] + values[:, :-1]) / 2 @ np.diff(fractions)))


def ranking(maps: Array, shape: tuple[int, ...]) -> NDArray[np.intp]:
    """The place of every pixel (n, H, W) in the order from the largest to the smallest, equal ones as they lie.

    Raises
    ------
    InputError
        If the maps have another shape, or hold numbers that have no order.
    """
    if maps.shape != shape:
        raise InputError(f"Maps of shape {maps.shape} do not fit inputs of {shape}.", "Give one (H, W) map an input.")
    if np.isnan(maps).any():
        raise InputError("A map holds NaN, which has no rank.", "Give numbers.")
    order = np.argsort(-maps.reshape(len(maps), -1), axis=1, kind="stable")
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(order.shape[1])[None], axis=1)
    return ranks.reshape(shape)


def _measured(model: Any, x: Array, targets: Any, batch_size: int) -> Target:
    """Probabilities of classes, and other targets as they are."""
    if hasattr(targets, "value"):
        return targets
    chosen = resolved(model, x, targets, batch_size)
    return Probability(chosen.class_ids) if isinstance(chosen, Logit) else chosen

"""Sobol attribution: the share of the target's variance under random masks that goes when a cell is not known."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from craft_onnx.attribution.baselines import Baseline
from craft_onnx.attribution.coalitions import coalition_values
from craft_onnx.attribution.model import Predicts, Progress
from craft_onnx.attribution.perturbation import Perturbed
from craft_onnx.attribution.registry import Maps, method
from craft_onnx.attribution.segments import grid
from craft_onnx.attribution.targets import Target
from craft_onnx.attribution.total_indices import Estimator, Sampler, design, masks, total_indices
from craft_onnx.runtime.batches import BATCH_SIZE
from craft_onnx.runtime.resample import bicubic

Array = NDArray[Any]


@method("sobol", needs="predictions")
def sobol(
    model: Predicts,
    inputs: Array,
    targets: Target,
    *,
    grid_size: int = 8,
    nb_design: int = 32,
    sampler: Sampler = "sobol",
    estimator: Estimator = "jansen",
    baseline: Baseline = "zero",
    batch_size: int = BATCH_SIZE,
    seed: int = 0,
    progress: Progress | None = None,
) -> Maps:
    """Total Sobol indices of the cells of a grid (Fel et al. 2021, arXiv 2111.04138, sections 3.2 and 3.3).

    Parameters
    ----------
    model : SplitModel or callable
        Predictions are enough.
    inputs : (n, ...) array
        Preprocessed pictures in the model's layout.
    targets : int, (n,) ints or Target, optional
        What to explain; the predicted class of each by default.
    grid_size : int
        Cells of a mask along either side.
    nb_design : int
        Points of the design; nb_design (grid_size^2 + 1) masks are evaluated.
    sampler, estimator : str
        See `craft_onnx.attribution.total_indices`.
    baseline : "zero", "black", "white", "blur", number or array
        What a mask blends the picture with: "zero" is the paper's inpainting.
    batch_size : int
        Masked copies in one run.
    seed : int
        Of the design.
    progress : callable, optional
        Told (done, total), in copies, after each run.

    Returns
    -------
    (n, H, W) array
        Total indices of the cells, enlarged by bicubic interpolation within their range; they have no sign.

    Raises
    ------
    InputError
        If an option makes no sense.
    """
    look = Perturbed(model, inputs, targets, baseline)
    cells = grid(look.size, grid_size, grid_size)
    points = masks(design(sampler, grid_size**2, nb_design, seed))
    values = coalition_values(look, [cells] * len(inputs), [points] * len(inputs), batch_size, progress)
    outputs = np.stack(values).reshape(len(inputs), grid_size**2 + 1, -1)
    indices = total_indices(outputs, estimator, ddof=0 if sampler == "sobol" else 1)
    return enlarged(indices.reshape(-1, grid_size, grid_size), look.size)


def enlarged(maps: Array, size: tuple[int, int]) -> Maps:
    """Maps (n, h, w) at a size, by bicubic interpolation that does not overshoot the range of each map."""
    smooth = np.moveaxis(bicubic(np.moveaxis(maps, 0, -1), size), -1, 0)
    return np.clip(smooth, maps.min((1, 2), keepdims=True), maps.max((1, 2), keepdims=True)).astype(np.float32)

"""RISE: the mean of random masks, weighted by what the model says of the picture behind them."""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from craft_onnx.attribution.baselines import Baseline
from craft_onnx.attribution.model import Predicts, Progress
from craft_onnx.attribution.perturbation import Perturbed
from craft_onnx.attribution.registry import Maps, method
from craft_onnx.attribution.targets import Target
from craft_onnx.errors import InputError
from craft_onnx.runtime.batches import BATCH_SIZE
from craft_onnx.runtime.resample import linear_taps

Array = NDArray[Any]
Floats = NDArray[np.float32]


@method("rise", needs="predictions", relative=True)
def rise(
    model: Predicts,
    inputs: Array,
    targets: Target,
    *,
    n_masks: int = 2000,
    feature_res: int = 8,
    p_keep: float = 0.5,
    normalize: Literal["observed", "expected"] = "observed",
    baseline: Baseline = "zero",
    batch_size: int = BATCH_SIZE,
    seed: int = 0,
    progress: Progress | None = None,
) -> Maps:
    """Random masks weighted by the target behind them (Petsiuk et al. 2018, arXiv 1806.07421, section 3.1).

    Parameters
    ----------
    model : SplitModel or callable
        Predictions are enough.
    inputs : (n, ...) array
        Preprocessed pictures in the model's layout.
    targets : int, (n,) ints or Target, optional
        What to explain; the predicted class of each by default.
    n_masks : int
        Number of masks, the same for every input.
    feature_res : int
        Cells of a mask along either side, before it is enlarged and shifted.
    p_keep : float
        Probability that a cell is kept.
    normalize : "observed" or "expected"
        Divide the sum of weighted masks by the sum of the masks (the mean in equation 3, over the masks that were
        drawn), or by its expected value n_masks * p_keep (equation 6; so do the original, DIANNA and OpenVINO XAI).
        The latter shows every pixel's luck in being kept, times the mean of the target, which for logits is large.
    baseline : "zero", "black", "white", "blur", number or array
        What is seen where a mask is dark.
    batch_size : int
        Masked copies in one run.
    seed : int
        Of the masks.
    progress : callable, optional
        Told (done, total), in copies, after each run.

    Returns
    -------
    (n, H, W) array
        Mean of the target over masks that keep the pixel, in its units; 0 where none did.

    Raises
    ------
    InputError
        If an option makes no sense.
    """
    if normalize not in ("observed", "expected"):
        raise InputError(f"RISE has no normalisation {normalize!r}.", "Take 'observed' or 'expected'.")
    look = Perturbed(model, inputs, targets, baseline)
    masks = ShiftedGrids(look.size, n_masks, feature_res, p_keep, seed)
    sums, kept = np.zeros((len(inputs), *look.size), np.float32), np.zeros(look.size, np.float32)
    for row, _, some, values in look.evaluate(n_masks, masks, batch_size, progress):
        flat = some.reshape(len(some), -1)
        sums[row] += (values.astype(np.float32) @ flat).reshape(look.size)
        if row == 0:  # all inputs have the same masks
            kept += (np.ones(len(some), np.float32) @ flat).reshape(look.size)
    return sums / (n_masks * np.float32(p_keep) if normalize == "expected" else np.where(kept > 0, kept, 1))


class ShiftedGrids:
    """Random grids of cells that are kept or not, enlarged linearly and shifted by up to a cell (section 3.2).

    Enlarging and shifting are one matrix for either side, so that a mask is rows @ grid @ columns.

    Parameters
    ----------
    size : (int, int)
        Height and width of the masks.
    count, feature_res, p_keep, seed
        As in `rise`.
    """

    def __init__(self, size: tuple[int, int], count: int, feature_res: int, p_keep: float, seed: int) -> None:
        if count < 1 or feature_res < 1 or not 0 < p_keep <= 1:
            raise InputError(
                f"{count} masks of {feature_res} cells, kept with probability {p_keep}, are none to explain with.",
                "Give positive numbers, and a probability of 1 at most.",
            )
        rng = np.random.default_rng(seed)
        cells = [-(-side // feature_res) for side in size]
        self.grids = (rng.random((count, feature_res, feature_res)) < p_keep).astype(np.float32)
        self.shifts = rng.integers(0, cells, (count, 2))
        self._sides = [_windows(enlarging(feature_res, cell), side) for cell, side in zip(cells, size, strict=True)]

    def __call__(self, _row: int, which: slice) -> Floats:
        """Some of the masks, (m, H, W), in [0, 1]."""
        rows, columns = (side[shift] for side, shift in zip(self._sides, self.shifts[which].T, strict=True))
        return rows @ self.grids[which] @ columns.transpose(0, 2, 1)


def enlarging(cells: int, cell: int) -> Floats:
    """The matrix ((cells + 1) cell, cells) of linear enlargement from `cells` to (cells + 1) * cell pixels.

    Half-pixel centres; beyond the outer ones, positions are mirrored there, as scikit-image does in the original.
    """
    length = (cells + 1) * cell
    positions = np.abs((np.arange(length) + 0.5) * cells / length - 0.5)
    positions = np.minimum(positions, 2 * (cells - 1) - positions) if cells > 1 else 0 * positions
    matrix = np.zeros((length, cells), np.float32)
    indices, weights = linear_taps(positions, cells)
    np.add.at(matrix, (np.arange(length)[:, None], indices), weights)
    return matrix


def _windows(matrix: Floats, side: int) -> Floats:
    """All runs of `side` rows, (shifts, side, cells), without a copy."""
    return np.lib.stride_tricks.sliding_window_view(matrix, side, axis=0).transpose(0, 2, 1)

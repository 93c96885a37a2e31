"""Occlusion: what the target loses when a window is covered."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from craft_onnx.attribution.baselines import Baseline
from craft_onnx.attribution.model import Predicts, Progress, tensor
from craft_onnx.attribution.perturbation import Perturbed
from craft_onnx.attribution.registry import Maps, method
from craft_onnx.attribution.targets import Target
from craft_onnx.errors import InputError
from craft_onnx.runtime.batches import BATCH_SIZE

Array = NDArray[Any]
Pair = int | tuple[int, int]


@method("occlusion", needs="predictions")
def occlusion(
    model: Predicts,
    inputs: Array,
    targets: Target,
    *,
    window: Pair | None = None,
    stride: Pair | None = None,
    baseline: Baseline = "zero",
    batch_size: int = BATCH_SIZE,
    progress: Progress | None = None,
) -> Maps:
    """What the target loses when a sliding window is covered (Zeiler & Fergus 2014, arXiv 1311.2901, section 4.2).

    Parameters
    ----------
    model : SplitModel or callable
        Predictions are enough.
    inputs : (n, ...) array
        Preprocessed pictures in the model's layout.
    targets : int, (n,) ints or Target, optional
        What to explain; the predicted class of each by default.
    window : int or (int, int), optional
        Height and width of the window, in pixels; an eighth of the input's by default.
    stride : int or (int, int), optional
        Steps between windows, in pixels, no larger than the window; half of it by default.
    baseline : "zero", "black", "white", "blur", number or array
        What covers the window.
    batch_size : int
        Covered copies in one run.
    progress : callable, optional
        Told (done, total), in copies, after each run.

    Returns
    -------
    (n, H, W) array
        Mean loss of the target over the windows that cover the pixel, in its units.

    Raises
    ------
    InputError
        If window or stride make no sense.
    """
    look = Perturbed(model, inputs, targets, baseline)
    down, across = (
        covered(side, *steps) for side, steps in zip(look.size, _steps(look.size, window, stride), strict=True)
    )

    def make(_row: int, which: slice) -> NDArray[np.bool_]:
        y, x = np.divmod(np.arange(which.start, which.stop), len(across))
        return ~(down[y][:, :, None] & across[x][:, None, :])

    whole = targets.value(tensor(model, targets.of, inputs, batch_size), np.arange(len(inputs)))
    covered_values = look.values(len(down) * len(across), make, batch_size, progress)
    losses = (whole[:, None] - np.stack(covered_values)).reshape(-1, len(down), len(across))
    windows = down.sum(axis=0)[:, None] * across.sum(axis=0)  # that cover a pixel
    return (down.T.astype(float) @ losses @ across / windows).astype(np.float32)


def covered(side: int, window: int, stride: int) -> NDArray[np.bool_]:
    """The pixels of a side that each window covers, (windows, side); the last window may reach beyond the end."""
    starts = stride * np.arange(-(-(side - window) // stride) + 1)
    pixels = np.arange(side)
    return (pixels >= starts[:, None]) & (pixels < starts[:, None] + window)


def _steps(size: tuple[int, int], window: Pair | None, stride: Pair | None) -> list[tuple[int, int]]:
    """Window and stride along height and width."""
    windows = [max(1, side // 8) for side in size] if window is None else np.broadcast_to(window, 2).tolist()
    strides = [max(1, one // 2) for one in windows] if stride is None else np.broadcast_to(stride, 2).tolist()
    for side, one, step in zip(size, windows, strides, strict=True):
        if not 1 <= step <= one <= side:
            raise InputError(
                f"A window of {one} pixels in steps of {step} does not cover {side} pixels.",
                "Give a window no larger than the input and a stride no larger than the window.",
            )
    return list(zip(windows, strides, strict=True))

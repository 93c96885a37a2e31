"""Kernel SHAP: Shapley values of segments from a weighted least squares fit over coalitions."""

from itertools import combinations
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray

from craft_onnx.attribution.baselines import Baseline
from craft_onnx.attribution.coalitions import coalition_values, spread
from craft_onnx.attribution.model import Predicts, Progress
from craft_onnx.attribution.perturbation import Perturbed
from craft_onnx.attribution.registry import Maps, method
from craft_onnx.attribution.segments import segments_of
from craft_onnx.attribution.targets import Target
from craft_onnx.errors import InputError
from craft_onnx.runtime.batches import BATCH_SIZE

Array = NDArray[Any]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@method("kernel_shap", needs="predictions", complete=True)
def kernel_shap(
    model: Predicts,
    inputs: Array,
    targets: Target,
    *,
    segments: Any = 8,
    n_samples: int = 2048,
    baseline: Baseline = "zero",
    batch_size: int = BATCH_SIZE,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[Maps, Floats]:
    """Shapley values of segments, from coalitions (Lundberg & Lee 2017, arXiv 1705.07874, section 4.1).

    With `n_samples` of 2^K - 2 or more for K segments, all coalitions are taken and the values are exact. Otherwise
    the smallest and the largest coalitions are taken whole, as far as the samples go, and others at random.

    Parameters
    ----------
    model : SplitModel or callable
        Predictions are enough.
    inputs : (n, ...) array
        Preprocessed pictures in the model's layout.
    targets : int, (n,) ints or Target, optional
        What to explain; the predicted class of each by default.
    segments : int, (int, int), "slic" or (H, W) or (n, H, W) label maps
        Cells of a grid along either side, superpixels, or segments of one's own.
    n_samples : int
        Coalitions to evaluate besides the empty one and that of all.
    baseline : "zero", "black", "white", "blur", number or array
        What stands for a missing segment.
    batch_size : int
        Copies in one run.
    seed : int
        Of the random coalitions.
    progress : callable, optional
        Told (done, total), in copies, after each run.

    Returns
    -------
    (n, H, W) array
        The Shapley value of every segment, in units of the target, shared among its pixels: a map adds up to the
        change of the target from the baseline to the input.

    Raises
    ------
    InputError
        If an option makes no sense.
    """
    look = Perturbed(model, inputs, targets, baseline)
    labels = segments_of(inputs, segments, look.axes)
    drawn = {count: draw(count, n_samples, seed) for count in {int(one.max()) + 1 for one in labels}}
    chosen = [drawn[int(one.max()) + 1] for one in labels]
    values = coalition_values(look, labels, [coalitions for coalitions, _ in chosen], batch_size, progress)
    shapley = [fit(*design, some) for design, some in zip(chosen, values, strict=True)]
    maps = spread(shapley, labels)
    return maps, _residual(maps, np.array([some[1] - some[0] for some in values]))


def draw(count: int, n_samples: int, seed: int = 0) -> tuple[Bools, Floats]:
    """Coalitions of K segments and their weights in the fit.

    A coalition of s segments has the weight (K - 1) / (C(K, s) s (K - s)) (theorem 2). Single segments, and all but
    one, are taken whole, which determines the fit; then sizes s and K - s together, inwards, while the samples left
    are as many as these coalitions deserve by weight. The rest is drawn by weight, each together with its complement.

    Parameters
    ----------
    count : int
        K.
    n_samples : int
        Coalitions, besides the empty one and that of all.
    seed : int
        Of what is drawn.

    Returns
    -------
    coalitions : (m, K) bool array
        The empty one and that of all come first.
    weights : (m,) array
        Adding up to 1; of these two, 0: the fit passes through them exactly.

    Raises
    ------
    InputError
        If there are not samples enough for the fit to be determined.
    """
    if n_samples < min(2 * count, 2**count - 2):
        raise InputError(f"{n_samples} samples do not determine {count} values.", f"Take {2 * count} or more.")
    mass = {size: 1 / (size * (count - size)) for size in range(1, count)}  # of all coalitions of a size
    parts, left = [(np.array([[False] * count, [True] * count]), np.zeros(2))], n_samples
    for size in range(1, count // 2 + 1):
        sizes = sorted({size, count - size})
        number = sum(comb(count, one) for one in sizes)
        deserved = left * sum(mass[one] for one in sizes) / sum(mass.values())
        if size > 1 and deserved < number * (1 - 1e-9):
            break
        parts += [(_all_of(count, one), np.full(comb(count, one), mass.pop(one) / comb(count, one))) for one in sizes]
        left -= number
    if mass and left > 1:
        random = _random(count, mass, left // 2, np.random.default_rng(seed))
        parts.append((random, np.full(len(random), sum(mass.values()) / len(random))))
    coalitions, weights = (np.concatenate(column) for column in zip(*parts, strict=True))
    return coalitions, weights / max(weights.sum(), 1e-300)


def _all_of(count: int, size: int) -> Bools:
    """All coalitions of a size, (C(K, size), K)."""
    members = np.array(list(combinations(range(count), size)))
    coalitions = np.zeros((len(members), count), bool)
    np.put_along_axis(coalitions, members, True, axis=1)
    return coalitions


def _random(count: int, mass: dict[int, float], pairs: int, rng: np.random.Generator) -> Bools:
    """Random coalitions, their sizes by mass, each followed by its complement."""
    sizes = rng.choice(list(mass), pairs, p=np.array(list(mass.values())) / sum(mass.values()))
    ranks = rng.random((pairs, count)).argsort(axis=1).argsort(axis=1)
    coalitions = ranks < sizes[:, None]
    return np.stack([coalitions, ~coalitions], axis=1).reshape(-1, count)


def fit(coalitions: Bools, weights: Floats, values: Floats) -> Floats:
    """Shapley values (K,): the weighted least squares fit that adds up to the value of all minus that of none.

    Minimises sum_z w_z (v_z - v_0 - z . phi)^2 subject to sum phi = v_1 - v_0, by its Lagrange multiplier: with
    A = Z' W Z and b = Z' W (v - v_0), the linear system (A 1; 1' 0) (phi, lambda) = (b, v_1 - v_0).

    Parameters
    ----------
    coalitions, weights : arrays
        As from `draw`.
    values : (m,) array
        Of the target under each.
    """
    z, gain, change = coalitions.astype(float), values - values[0], values[1] - values[0]
    k = z.shape[1]
    system = np.zeros((k + 1, k + 1))
    system[:k, :k], system[k, :k], system[:k, k] = (z.T * weights) @ z, 1, 1
    phi = np.linalg.lstsq(system, np.append((z.T * weights) @ gain, change), rcond=None)[0][:k]
    return phi + (change - phi.sum()) / k  # what rounding left


def _residual(maps: Maps, change: Floats) -> Floats:
    return np.abs(maps.sum(axis=(1, 2), dtype=float) - change) / np.maximum(np.abs(change), np.finfo(np.float32).tiny)

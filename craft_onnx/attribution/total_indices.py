"""Total Sobol indices: the share of an output's variance that goes when everything but one input is known.

y is a function of masks m in [0, 1]^k. A design is two independent samples A and B of N masks, drawn as one sample in
2k dimensions; C_i is A with column i from B. All estimators here need y on A and on the C_i alone: N (k + 1)
evaluations.
"""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from craft_onnx.errors import InputError
from craft_onnx.extras import require

Sampler = Literal["sobol", "halton", "lhs"]
Estimator = Literal["jansen", "homma", "janon", "glen", "saltelli"]
Array = NDArray[np.float64]
# Outputs that do not vary have indices 0 and not 0 / 0; the floor of Xplique and of craft-xai.
VARIANCE_FLOOR = 1e-12


def design(sampler: Sampler, dimension: int, size: int, seed: int | None = 0) -> NDArray[np.float32]:
    """Masks A and B side by side.

    Parameters
    ----------
    sampler : "sobol", "halton" or "lhs"
        Scrambled Sobol sequence (Owen), unscrambled Halton sequence (as in Xplique; its later columns are ramps, so
        use it for comparison only), or Latin hypercube.
    dimension : int
        k.
    size : int
        N; powers of two keep a Sobol sequence balanced.
    seed : int, optional
        Of the scrambling or of the hypercube; the Halton sequence has none.

    Returns
    -------
    array (N, 2 k), float32

    Raises
    ------
    InputError
        If the sampler is unknown or `size` is below 2.
    """
    if sampler not in _SAMPLERS:
        raise InputError(f"There is no sampler {sampler!r}.", f"Take one of {', '.join(_SAMPLERS)}.")
    if size < 2:
        raise InputError(f"A design of {size} points has no variance.", "Give nb_design=2 or more; 256 is the default.")
    points = _SAMPLERS[sampler](require("scipy.stats.qmc", "build"), 2 * dimension, size, seed)
    return np.asarray(points, np.float32)


def designs(sampler: Sampler, dimension: int, size: int, count: int, seed: int | None = 0) -> NDArray[np.float32]:
    """Independent designs (count, N, 2 k), each from its own child of `seed`; a Halton sequence has but one."""
    seeds = np.random.SeedSequence(seed).generate_state(count)
    return np.stack([design(sampler, dimension, size, int(child)) for child in seeds])


def masks(design: NDArray[np.float32]) -> NDArray[np.float32]:
    """All masks of a design (N, 2 k): A, then C_1 .. C_k, as one array (N (k + 1), k)."""
    n, k = design.shape[0], design.shape[1] // 2
    replicated = np.repeat(design[None, :, :k], k + 1, axis=0)
    columns = np.arange(k)
    replicated[columns + 1, :, columns] = design[:, k:].T
    return replicated.reshape(n * (k + 1), k)


def total_indices(outputs: NDArray[np.floating], estimator: Estimator = "jansen", ddof: int = 1) -> Array:
    """Total Sobol indices from a function's values on the masks of a design.

    Parameters
    ----------
    outputs : array (..., k + 1, N)
        Values on A, then on C_1 .. C_k.
    estimator : "jansen", "homma", "janon", "glen" or "saltelli"
        Jansen (1999), Homma & Saltelli (1996), Janon et al. (2014), Glen & Isaacs (2012), Saltelli et al. (2008).
    ddof : 1 or 0
        Variances divide by N - ddof. 1 is unbiased for independent points, and what Xplique takes; the mean of a
        scrambled Sobol sequence has next to no error to correct for, and 1 makes all indices too small there, by a
        share of 1 / N.

    Returns
    -------
    array (..., k)

    Raises
    ------
    InputError
        If the estimator is unknown.
    """
    if estimator not in ESTIMATORS:
        raise InputError(f"There is no estimator {estimator!r}.", f"Take one of {', '.join(ESTIMATORS)}.")
    y = np.asarray(outputs, np.float64)
    return ESTIMATORS[estimator](y[..., :1, :], y[..., 1:, :], ddof)


def jansen(y_a: Array, y_c: Array, ddof: int = 1) -> Array:
    """ST_i = mean (y_A - y_Ci)^2 / (2 Var y_A)."""
    return np.square(y_a - y_c).mean(-1) / (2 * _variance_of_first(y_a, y_c, ddof))


def homma(y_a: Array, y_c: Array, ddof: int = 1) -> Array:
    """ST_i = (Var y_A - mean(y_A y_Ci) + mean(y_A)^2) / Var y_A."""
    variance = _variance_of_first(y_a, y_c, ddof)
    return (variance - (y_a * y_c).mean(-1) + np.square(y_a.mean(-1))) / variance


def janon(y_a: Array, y_c: Array, _ddof: int = 1) -> Array:
    """ST_i = 1 - (mean(y_A y_Ci) - m_i^2) / V_i, with mean m_i and variance V_i over y_A and y_Ci together."""
    mean = (y_a.mean(-1) + y_c.mean(-1)) / 2
    variance = (np.square(y_a).mean(-1) + np.square(y_c).mean(-1)) / 2 - np.square(mean)
    return 1 - ((y_a * y_c).mean(-1) - np.square(mean)) / np.maximum(variance, VARIANCE_FLOOR)


def glen(y_a: Array, y_c: Array, ddof: int = 1) -> Array:
    """ST_i = 1 - corr(y_A, y_Ci)."""
    n = y_a.shape[-1]
    covariance = ((y_a - y_a.mean(-1, keepdims=True)) * (y_c - y_c.mean(-1, keepdims=True))).sum(-1) / (n - ddof)
    return 1 - covariance / np.sqrt(_variance(y_a, ddof) * _variance(y_c, ddof))


def saltelli(y_a: Array, y_c: Array, ddof: int = 1) -> Array:
    """ST_i = 1 - (mean(y_A y_Ci) - mean(y_A)^2) / Var y_A; the same as Homma's by algebra, as in Xplique."""
    return 1 - ((y_a * y_c).mean(-1) - np.square(y_a.mean(-1))) / _variance_of_first(y_a, y_c, ddof)


ESTIMATORS: dict[str, Callable[[Array, Array, int], Array]] = {
    "jansen": jansen,
    "homma": homma,
    "janon": janon,
    "glen": glen,
    "saltelli": saltelli,
}


def _variance_of_first(y_a: Array, y_c: Array, ddof: int) -> Array:
    """Variance of y_A; of all outputs where y_A, one of k + 1 samples of them, has less than that share of it.

    A few points may all miss what is seldom there, such as a concept that takes several others: the variance of y_A is
    then next to nothing, and so is any meaning of a quotient by it.
    """
    own, whole = _variance(y_a, ddof), _variance(np.concatenate([y_a, y_c], axis=-2).reshape(*y_a.shape[:-2], -1), ddof)
    return np.where(own * (1 + y_c.shape[-2]) < whole[..., None], whole[..., None], own)


def _variance(y: Array, ddof: int) -> Array:
    return np.maximum(y.var(-1, ddof=ddof), VARIANCE_FLOOR)


def _sobol(qmc: Any, dimension: int, size: int, seed: int | None) -> Any:
    """The first `size` points of the smallest balanced sequence that holds them."""
    return qmc.Sobol(dimension, scramble=True, rng=seed).random_base2(int(np.ceil(np.log2(size))))[:size]


def _halton(qmc: Any, dimension: int, size: int, _seed: int | None) -> Any:
    return qmc.Halton(dimension, scramble=False).random(size)


def _lhs(qmc: Any, dimension: int, size: int, seed: int | None) -> Any:
    return qmc.LatinHypercube(dimension, rng=seed).random(size)


_SAMPLERS: dict[str, Callable[[Any, int, int, int | None], Any]] = {"sobol": _sobol, "halton": _halton, "lhs": _lhs}

"""How much each concept matters for the logit of a class: total Sobol indices and signed contributions.

The masks m in [0, 1]^k multiply the coefficients, one mask for all positions: y(m) = h((u * m) W). Where y is affine
in m, y = sum_i c_i m_i + bias, with c_i the contribution of concept i to the logit, and ST_i = c_i^2 / sum_j c_j^2.
Other heads are sampled.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from craft_onnx.attribution.total_indices import VARIANCE_FLOOR, Estimator, Sampler, designs, masks, total_indices
from craft_onnx.concepts.head import ConceptHead
from craft_onnx.errors import CraftWarning, InputError
from craft_onnx.extras import require

Floats = NDArray[np.floating]
Array = NDArray[np.float64]
# Designs of a local importance. T_975 is Student's quantile for their 4 degrees of freedom.
LOCAL_DESIGNS = 5
T_975 = 2.7764451051977987
MOST_REPEATED = 16
MOST_POINTS = 1 << 14  # where `tol` chooses the points of a design


@dataclass(frozen=True)
class Sampling:
    """How a head that is not linear is sampled.

    Attributes
    ----------
    sampler, estimator : str
        See `craft_onnx.attribution.total_indices`.
    nb_design : int
        Points of one design.
    random_state : int, optional
        Seed of the designs.
    """

    sampler: Sampler = "sobol"
    estimator: Estimator = "jansen"
    nb_design: int = 256
    random_state: int | None = 0

    def draw(self, k: int, count: int) -> NDArray[np.float32]:
        """Independent designs (count, nb_design, 2 k); a Halton sequence has but one."""
        return designs(self.sampler, k, self.nb_design, 1 if self.sampler == "halton" else count, self.random_state)


@dataclass(frozen=True)
class Importance:
    """Importances of k concepts, with the evidence.

    Attributes
    ----------
    values : array (k,)
        Total Sobol indices, their mean over the images.
    intervals : array (k, 2), optional
        95 % confidence intervals of `values` for the error of sampling; of no width where exact, None where one
        design alone was used.
    contributions : array (k,)
        Signed, in logits, mean over the images. Exact: their sum and `bias` are the logit of the reconstruction.
        Sampled: what the logit loses when the concept alone is removed.
    bias : float
        The logit without any concept.
    exact : bool
        Nothing was sampled.
    evaluations : int
        Of the head.
    """

    values: Array
    intervals: Array | None
    contributions: Array
    bias: float
    exact: bool
    evaluations: int

    def to_json(self) -> dict[str, Any]:
        """A dictionary of JSON values."""
        return {
            "values": self.values.tolist(),
            "intervals": None if self.intervals is None else self.intervals.tolist(),
            "contributions": self.contributions.tolist(),
            "bias": self.bias,
            "exact": self.exact,
            "evaluations": self.evaluations,
        }

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "Importance":
        """The inverse of `to_json`."""
        arrays = {
            name: None if fields[name] is None else np.array(fields[name], np.float64)
            for name in ("values", "intervals", "contributions")
        }
        return cls(**{**fields, **arrays})


def linear_indices(contributions: Floats) -> Array:
    """ST_i = c_i^2 / sum_j c_j^2 over the last axis; zeros where nothing contributes, as when sampled."""
    squares = np.square(np.asarray(contributions, np.float64))
    total = squares.sum(axis=-1, keepdims=True)
    return np.where(total > VARIANCE_FLOOR, squares / np.maximum(total, VARIANCE_FLOOR), 0.0)


def linear_importance(head: ConceptHead, u: Floats) -> Importance:
    """Exact importances of a linear head over images (N, ..., k), reduced as the head takes them."""
    effects, bias = head.effects(u.shape[1:-1])
    contributions = (u * effects).sum(axis=tuple(range(1, u.ndim - 1)))
    values = linear_indices(contributions).mean(axis=0)
    return Importance(values, np.stack([values, values], 1), contributions.mean(axis=0), bias, True, effects.size + 1)


def sampled_importance(head: ConceptHead, u: Floats, sampling: Sampling) -> Importance:
    """Sampled importances over images with coefficients u (N, ..., k).

    Every image has a design of its own, and up to 16 images have one more (a single image has four more): their
    differences give the error of one estimate, pooled, hence the error of the mean.

    Parameters
    ----------
    head : ConceptHead
        The head.
    u : array (N, ..., k)
        Coefficients, reduced as the head takes them.
    sampling : Sampling
        How to sample.
    """
    if sampling.sampler == "halton":
        return _with_designs(head, u, sampling.draw(u.shape[-1], 1), sampling)
    n, k = len(u), u.shape[-1]
    spare = min(max(n, LOCAL_DESIGNS - 1), MOST_REPEATED)
    repeats = 1 + np.bincount(np.arange(spare) * n // spare if spare < n else np.arange(spare) % n, minlength=n)
    drawn = np.split(sampling.draw(k, int(repeats.sum())), np.cumsum(repeats)[:-1])
    estimates = [_indices(head, one, some, sampling) for one, some in zip(u, drawn, strict=True)]
    values = np.mean([each.mean(axis=0) for each in estimates], axis=0)
    spread = np.sum([np.square(each - each.mean(axis=0)).sum(axis=0) for each in estimates], axis=0) / spare
    quantile = float(require("scipy.stats", "build").t.ppf(0.975, spare))
    half = quantile * np.sqrt(spread * np.sum(1 / repeats)) / n
    return _sampled(head, u, values, half, int(repeats.sum()) * sampling.nb_design)


def local_importance(head: ConceptHead, u: Floats, drawn: NDArray[np.float32], sampling: Sampling) -> Importance:
    """Importances over few images (N, ..., k): exact where possible, else with the same designs (r, n, 2 k)."""
    return linear_importance(head, u) if head.linear else _with_designs(head, u, drawn, sampling)


def refined(estimate: Callable[[int], Importance], points: int, tol: float | None) -> tuple[Importance, int]:
    """Importances from designs that are doubled until every interval's half width is at most `tol`.

    Parameters
    ----------
    estimate : callable
        Points of a design to importances.
    points : int
        To begin with.
    tol : float, optional
        Largest half width; None takes `points` as they are.

    Returns
    -------
    (Importance, int)
        The last estimate and its points, `MOST_POINTS` at most (or `points`, if that is more): a CraftWarning says
        how wide the intervals are where that was not enough.

    Raises
    ------
    InputError
        If `tol` is not positive, or there are no intervals.
    """
    if tol is not None and not tol > 0:
        raise InputError(f"A tolerance of {tol} cannot be met.", "Give a positive number, such as 0.01.")
    found = estimate(points)
    if tol is None:
        return found, points
    while (width := _half_width(found)) > tol and 2 * points <= MOST_POINTS:
        points *= 2
        found = estimate(points)
    if width > tol:
        text = f"With {points} points the intervals are {width:.2g} wide to either side, not {tol:g}."
        warnings.warn(text, CraftWarning, stacklevel=3)
    return found, points


def _half_width(importance: Importance) -> float:
    """Of the widest interval; the upper half, since the lower one ends at 0."""
    if importance.intervals is None:
        raise InputError("One design alone gives no intervals to choose nb_design by.", "Take sampler='sobol'.")
    return float((importance.intervals[:, 1] - importance.values).max())


def _with_designs(head: ConceptHead, u: Floats, drawn: NDArray[np.float32], sampling: Sampling) -> Importance:
    estimates = np.mean([_indices(head, one, drawn, sampling) for one in u], axis=0)
    half = None
    if len(drawn) > 1:
        half = T_975 * estimates.std(axis=0, ddof=1) / np.sqrt(len(drawn))
    return _sampled(head, u, estimates.mean(axis=0), half, len(u) * drawn.shape[0] * drawn.shape[1])


def _indices(head: ConceptHead, u: Floats, drawn: NDArray[np.float32], sampling: Sampling) -> Array:
    """Estimates (r, k) of one image with each of r designs."""
    k = u.shape[-1]
    outputs = [head.masked(u, masks(design)).reshape(k + 1, -1) for design in drawn]
    return total_indices(np.stack(outputs), sampling.estimator, ddof=0 if sampling.sampler == "sobol" else 1)


def _sampled(head: ConceptHead, u: Floats, values: Array, half: Array | None, points: int) -> Importance:
    intervals = None
    if half is not None:  # no index is below 0, though an estimate may be
        intervals = np.stack([np.maximum(values - half, np.minimum(values, 0)), values + half], axis=1)
    contributions, bias = removals(head, u)
    k = u.shape[-1]
    return Importance(values, intervals, contributions, bias, False, points * (k + 1) + len(u) * (k + 2))


def removals(head: ConceptHead, u: Floats) -> tuple[Array, float]:
    """What the logit loses without each concept alone (k,), and the logit without any, means over the images."""
    k = u.shape[-1]
    kept = np.concatenate([np.ones((1, k)), 1 - np.eye(k), np.zeros((1, k))]).astype(np.float32)
    logits = np.mean([head.masked(one, kept) for one in u], axis=0)
    return logits[0] - logits[1:-1], float(logits[-1])


def ranking(importances: Sequence[float] | Floats) -> NDArray[np.intp]:
    """Concepts from the most to the least important, ties as Xplique breaks them (the later one first)."""
    return np.argsort(importances)[::-1]

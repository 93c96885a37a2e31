"""How many concepts: reconstruction error, stability and redundancy over a range of k."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from craft_onnx.concepts.factorisation import Factorisation
from craft_onnx.concepts.stability import STABLE, cosines, stability
from craft_onnx.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.floating]
Array = NDArray[np.float64]
# Two concepts with a larger cosine are one concept twice.
REDUNDANT = 0.9
# The share of what more concepts gain in all, over the range, that is enough.
ENOUGH = 0.9
RULE = (
    "Of the k whose concepts are all found again (similarity at least 0.9) and whose redundancy is at most 0.9, the "
    "smallest one that has 90 % of the fall in error from the smallest of them to the best; where there is none such, "
    "the k that most concepts are found again of."
)


@dataclass(frozen=True)
class Choice:
    """What speaks for each number of concepts.

    Attributes
    ----------
    numbers : (m,) int array
        Each k.
    errors : (m,) array
        ||A - U W|| / ||A|| on the crops.
    similarities : (m,) array
        Mean over the concepts of how well they are found again, see `craft_onnx.concepts.stability`.
    lowest : (m,) array
        That of the least stable concept.
    stable : (m,) int array
        How many of the k concepts are stable.
    redundancies : (m,) array
        The largest cosine between two concepts; 0 for one concept.
    best : int
        The k that `RULE` picks.
    """

    numbers: NDArray[np.intp]
    errors: Array
    similarities: Array
    lowest: Array
    stable: NDArray[np.intp]
    redundancies: Array
    best: int

    def rows(self) -> list[dict[str, Any]]:
        """The table, one dictionary of JSON values for each k."""
        return [
            {
                "k": int(self.numbers[i]),
                "relative_error": float(self.errors[i]),
                "stability": float(self.similarities[i]),
                "least_stable": float(self.lowest[i]),
                "stable_concepts": int(self.stable[i]),
                "redundancy": float(self.redundancies[i]),
            }
            for i in range(len(self.numbers))
        ]

    def table(self) -> list[str]:
        """The table as lines of text."""
        head = f"{'k':>4} {'error':>8} {'stability':>10} {'least':>6} {'stable':>7} {'redundancy':>11}"
        return [head] + [
            f"{row['k']:>4} {row['relative_error']:>8.3f} {row['stability']:>10.3f} {row['least_stable']:>6.3f} "
            f"{row['stable_concepts']:>7} {row['redundancy']:>11.3f}"
            for row in self.rows()
        ]

    @property
    def reason(self) -> str:
        """Why `best` was picked, in a sentence."""
        fit = acceptable(self.lowest, self.redundancies)
        if not len(fit):
            return f"No number of concepts is all stable and without redundancy: most stable ones, {self.stable.max()}."
        return (
            f"{len(fit)} of {len(self.numbers)} are stable and not redundant: of these the smallest that errs little."
        )

    def to_json(self) -> dict[str, Any]:
        """A dictionary of JSON values."""
        return {"rows": self.rows(), "best": self.best, "rule": RULE}


def choose(
    pooled: Floats,
    numbers: Iterable[int],
    factorise: Callable[[Floats, int, int | None], Factorisation],
    repeats: int = 3,
    seed: int = 0,
) -> Choice:
    """Factorise activations into each number of concepts, and pick one by `RULE`.

    Parameters
    ----------
    pooled : array (n, p)
        Activations of the crops.
    numbers : iterable of int
        Each k, at most half the crops.
    factorise : callable
        ``factorise(pooled, k, seed)`` -> Factorisation; without a seed, that of the fit.
    repeats, seed : int
        Of the stability.

    Returns
    -------
    Choice

    Raises
    ------
    InputError
        If there are no numbers, or one does not fit the crops.
    """
    ks = sorted(set(map(int, numbers)))
    if not ks:
        raise InputError("There is no number of concepts to try.", "Give some, such as range(5, 31).")
    _check_largest(ks[-1], pooled.shape)
    found = [factorise(pooled, k, None) for k in ks]
    again = [
        stability(pooled, one.w, lambda rows, child, k=k: factorise(rows, k, child).w, repeats, seed)  # type: ignore[misc]  # mypy cannot infer a lambda's default
        for k, one in zip(ks, found, strict=True)
    ]
    errors = np.array([one.relative_error for one in found])
    means = np.array([one.similarities.mean() for one in again])
    lowest = np.array([one.similarities.min() for one in again])
    stable = np.array([(~one.unstable).sum() for one in again])
    redundancies = np.array([redundancy(one.w) for one in found])
    best = ks[pick(errors, lowest, stable, redundancies)]
    return Choice(np.array(ks), errors, means, lowest, stable, redundancies, best)


def redundancy(w: Floats) -> float:
    """The largest cosine between two rows of a concept bank (k, p); 0 for one row."""
    similar = cosines(w, w)
    np.fill_diagonal(similar, 0.0)
    return float(similar.max(initial=0.0))


def pick(errors: Array, lowest: Array, stable: NDArray[np.intp], redundancies: Array) -> int:
    """Which entry `RULE` picks, of arrays (m,) in the order of k."""
    fit = acceptable(lowest, redundancies)
    if not len(fit):
        return int(stable.argmax())
    enough = errors[fit[0]] - ENOUGH * (errors[fit[0]] - errors[fit].min())
    return int(fit[np.flatnonzero(errors[fit] <= enough)[0]])


def acceptable(lowest: Array, redundancies: Array) -> NDArray[np.intp]:
    """The entries of arrays (m,) whose concepts are all stable and not redundant."""
    return np.flatnonzero((lowest >= STABLE) & (redundancies <= REDUNDANT))


def _check_largest(k: int, shape: tuple[int, ...]) -> None:
    most = min((shape[0] + 1) // 2, shape[1])
    if k > most:
        raise InputError(
            f"Stability of {k} concepts cannot be had from {shape[0]} crops with {shape[1]} channels.",
            f"Ask for {most} at most: concepts are sought in half of the crops too. Or give more pictures.",
        )


def plotted(choice: Choice) -> "Figure":
    """The figure of a choice."""
    from craft_onnx.show.curves import choice_curves

    return choice_curves(
        choice.numbers,
        choice.errors,
        choice.similarities,
        choice.lowest,
        choice.redundancies,
        choice.best,
        (STABLE, REDUNDANT),
    )

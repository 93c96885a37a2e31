"""Whether the same concepts are found again: factorisations of half of the crops, matched concept by concept."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from craft_onnx.errors import InputError
from craft_onnx.extras import require

Floats = NDArray[np.floating]
Array = NDArray[np.float64]
# A concept is unstable below this mean cosine. Between non-negative vectors cosines are large: the similarity of two
# banks of random directions is about 0.64 before they are matched.
STABLE = 0.9


@dataclass(frozen=True)
class Stability:
    """How well each concept is found again.

    Attributes
    ----------
    similarities : (k,) array
        Mean over the repeats of the cosine between the concept and its match, from 0 to 1.
    repeats : (r, k) array
        These cosines.
    matched : (r, k) int array
        The concept of each repeat that was matched.
    unstable : (k,) bool array
        Whose similarity is below `threshold`.
    threshold : float
        0.9.
    crops : int
        How many each repeat was fitted to.
    """

    similarities: Array
    repeats: Array
    matched: NDArray[np.intp]
    unstable: NDArray[np.bool_]
    threshold: float
    crops: int

    def to_json(self) -> dict[str, Any]:
        """A dictionary of JSON values."""
        return {
            "similarities": self.similarities.tolist(),
            "repeats": self.repeats.tolist(),
            "matched": self.matched.tolist(),
            "unstable": np.flatnonzero(self.unstable).tolist(),
            "threshold": self.threshold,
            "crops": self.crops,
        }


def cosines(w: Floats, others: Floats) -> Array:
    """Cosine similarities (k, k') of the rows of two concept banks; 0 for a row of zeros, a concept that died."""
    return _unit(w) @ _unit(others).T


def match(w: Floats, others: Floats) -> tuple[NDArray[np.intp], Array]:
    """Match the concepts of two banks one to one, so that their similarities sum to the most (Hungarian algorithm).

    Parameters
    ----------
    w : array (k, p)
        Concept bank.
    others : array (k', p)
        Another one, k' >= k.

    Returns
    -------
    matched : int array (k,)
        The row of `others` for every row of `w`.
    similarities : array (k,)
        Their cosines.

    Raises
    ------
    InputError
        If the other bank is smaller, or has other channels.
    """
    if len(others) < len(w) or others.shape[1] != w.shape[1]:
        raise InputError(
            f"Concept banks of shapes {w.shape} and {others.shape} cannot be matched.",
            "Give banks of the same model and cut, the larger one second.",
        )
    similar = cosines(w, others)
    rows, matched = require("scipy.optimize", "build").linear_sum_assignment(similar, maximize=True)
    return matched, similar[rows, matched]


def stability(
    pooled: Floats,
    w: Floats,
    factorise: Callable[[Floats, int], Floats],
    repeats: int = 5,
    seed: int = 0,
    threshold: float = STABLE,
) -> Stability:
    """Fit again to random halves of the crops, with other seeds, and match the concepts with those of the fit.

    Parameters
    ----------
    pooled : array (n, p)
        Activations of all crops.
    w : array (k, p)
        Concepts found in them.
    factorise : callable
        ``factorise(pooled, seed)`` -> concept bank (k, p).
    repeats : int
        How often.
    seed : int
        Of the halves, and of the seeds of the factorisations.
    threshold : float
        Below it a concept counts as unstable.

    Returns
    -------
    Stability

    Raises
    ------
    InputError
        If there are no repeats, or half of the crops are fewer than k.
    """
    half = (len(pooled) + 1) // 2
    if repeats < 1:
        raise InputError(f"{repeats} repeats tell nothing.", "Give 1 or more; 5 is the default.")
    if half < len(w):
        raise InputError(
            f"Half of {len(pooled)} crops are fewer than {len(w)} concepts.", "Give more pictures, or fewer concepts."
        )
    pairs = [match(w, factorise(pooled[rows], child)) for rows, child in _halves(len(pooled), half, repeats, seed)]
    found = np.stack([similar for _, similar in pairs])
    matched = np.stack([rows for rows, _ in pairs])
    mean = found.mean(axis=0)
    return Stability(mean, found, matched, mean < threshold, threshold, half)


def _halves(n: int, half: int, repeats: int, seed: int) -> list[tuple[NDArray[np.intp], int]]:
    """Rows of each half, in their order, and a seed for its factorisation."""
    rng = np.random.default_rng(seed)
    return [(np.sort(rng.permutation(n)[:half]), int(rng.integers(1 << 31))) for _ in range(repeats)]


def _unit(w: Floats) -> Array:
    lengths = np.linalg.norm(w.astype(np.float64), axis=1, keepdims=True)
    return w / np.where(lengths > 0, lengths, 1.0)

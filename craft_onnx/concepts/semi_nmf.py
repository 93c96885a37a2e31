"""Semi-NMF, for signed activations: A ~ U W with U >= 0 and W of any sign (Ding, Li & Jordan, IEEE TPAMI 2010).

The paper's multiplicative update is replaced by two exact steps in turn: W by least squares for given U, and U by
non-negative least squares for given W. Neither can raise the objective ||A - U W||^2.

With W free of signs the objective alone decides little: U M with M^-1 W is as good for any M >= 0, so that nearly the
best matrix of rank k is had by a cone of concepts that is wide enough to hold all activations, and in a wider one too.
Concepts that are of use are those of a narrow cone, where U is sparse. W begins inside the cone of the activations, as
the directions that they cluster around (k-means), and widens with every iteration, at last to no purpose. So it stops
early: when an iteration lowers the objective by less than a hundredth of what it was at first.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from craft_onnx.concepts.factorisation import (
    Factorisation,
    as_found,
    blas_threads,
    check_finite,
    check_number,
    quietly,
    unit_rows,
)
from craft_onnx.concepts.nnls import nnls
from craft_onnx.errors import InputError
from craft_onnx.extras import require

Array = NDArray[np.float64]
Floats = NDArray[np.floating]
TOL = 1e-2
STARTS = 10  # runs of k-means, of which the best one is taken
START_ROWS = 10_000  # that k-means looks at
NOTHING = 1e-7  # of the longest row: what is left of one that is explained, the activations being float32


def semi_nmf(
    a: Floats,
    number_of_concepts: int,
    random_state: int | None = 0,
    *,
    tol: float = TOL,
    max_iter: int = 2000,
) -> Factorisation:
    """Semi-NMF: min ||A - U W||^2 over U >= 0 and any W, on A divided by its root mean square.

    Parameters
    ----------
    a : array (n, p)
        Activations of any sign.
    number_of_concepts : int
        k, at most min(n, p).
    random_state : int, optional
        Seed of the start.
    tol : float
        It stops when an iteration lowers the objective by less than this share of what it was at the start.
    max_iter : int
        The most iterations.

    Returns
    -------
    Factorisation
        With unit rows of W, rows of zeros where the activations have fewer directions than k, and exact U.

    Raises
    ------
    InputError
        If a value is not finite, all are zero, or k does not fit the shape.
    """
    check_finite(a)
    check_number(number_of_concepts, a.shape)
    scale = _scale(a)
    scaled = a.astype(np.float64) / scale
    objectives: list[float] = []
    with blas_threads(a.size * number_of_concepts):
        for found, objective in alternate(scaled, start(scaled, number_of_concepts, random_state)):
            w = found.astype(np.float32)
            objectives.append(objective)
            if len(objectives) == max_iter or _settled(objectives, tol):
                break
    return as_found(a, nnls(a, w), w, len(objectives), _settled(objectives, tol), scale)


def start(a: Array, k: int, random_state: int | None = 0) -> Array:
    """Directions (k, p) that rows of activations cluster around: k-means of their directions, weighted by ||a||^2.

    That is nearly the best U with one coefficient a row. Rows of zeros where there are fewer than k rows to cluster.

    Parameters
    ----------
    a : array (n, p)
        Activations.
    k : int
        Number of directions.
    random_state : int, optional
        Seed of k-means, and of the rows it looks at where there are more than 10 000.
    """
    lengths = np.linalg.norm(a, axis=1)
    rows = np.flatnonzero(lengths)
    if len(rows) > START_ROWS:
        rows = np.sort(np.random.default_rng(random_state).choice(rows, START_ROWS, replace=False))
    count = min(k, len(rows))
    kmeans = require("sklearn.cluster", "build").KMeans(count, n_init=STARTS, random_state=random_state)
    directions = a[rows] / lengths[rows, None]
    centres = quietly(lambda: kmeans.fit(directions, sample_weight=lengths[rows] ** 2)).cluster_centers_
    w = np.zeros((k, a.shape[1]))
    w[:count] = unit_rows(centres)
    return w


def alternate(a: Array, w: Floats) -> Iterator[tuple[Floats, float]]:
    """Iterations without end: W (k, p), its rows of unit length or zero, and ||A - U W||^2 with the U before it.

    Parameters
    ----------
    a : array (n, p)
        Activations.
    w : array (k, p)
        Where to begin.
    """
    while True:
        u = nnls(a, w)
        exact = np.linalg.pinv(u) @ a
        rest = a - u @ exact
        w = _revived(unit_rows(exact), a, rest)
        yield w, float(np.square(rest).sum())


def _revived(w: Floats, a: Array, rest: Array) -> Floats:
    """W with dead concepts, whose rows are zero, turned to the rows of A that are explained least."""
    dead = np.flatnonzero(~w.any(axis=1))
    if not dead.size:
        return w
    left = np.linalg.norm(rest, axis=1)
    worst = np.argsort(left, kind="stable")[::-1][: len(dead)]
    worst = worst[left[worst] > NOTHING * np.linalg.norm(a, axis=1).max()]
    w[dead[: len(worst)]] = unit_rows(rest[worst])
    return w


def _settled(objectives: list[float], tol: float) -> bool:
    return len(objectives) > 1 and objectives[-2] - objectives[-1] <= tol * objectives[0]


def _scale(a: Floats) -> float:
    square = float(np.square(a, dtype=np.float64).mean())
    if square == 0:
        raise InputError(
            f"All {a.shape[0]} x {a.shape[1]} activations are zero.", "Look at the preprocessing, or cut elsewhere."
        )
    return square**0.5

"""Exact non-negative least squares, row by row in batches, in numpy alone.

For every row a of A: u(a) = argmin_{u >= 0} 1/2 ||a - u W||^2 + ridge/2 ||u||^2. Its conditions of optimality (KKT) are
u >= 0, y = (u W - a) W^T + ridge u >= 0 and u y = 0. Block principal pivoting (Portugal, Judice & Vicente 1994; Kim &
Park 2011) guesses which u are zero, solves for the others, and exchanges all that break a condition; every row has
its own guess, and rows whose guesses have equally many unknowns are solved in one call. Rows on which the exchange
does not come to an end fall back to the active set method of Lawson & Hanson (1974), which does.
"""

import os
from collections.abc import Iterator
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from craft_onnx.errors import InputError
from craft_onnx.runtime.lookahead import ahead

Floats = TypeVar("Floats", NDArray[np.floating], NDArray[np.float64])
Array = NDArray[np.float64]
CHUNK = 16384
# Numbers that are brought to double precision at a time: 2 MB, which stay in the cache until they are multiplied.
CELLS = 1 << 18
# Multiplications of a product of matrices, and of a matrix and a vector, which OpenBLAS takes one thread for: in
# products this small more would wait for each other for longer than they work.
SERIAL, SERIAL_VECTOR = 1 << 18, 1 << 13
SWEEPS = 8
EPS = float(np.finfo(np.float64).eps)
# Beyond this condition number of the Gram matrix (the square of W's) the solution is refined on the data themselves.
REFINE_ABOVE = 1e4
# Beyond this one it counts as singular: a ridge at the level of rounding picks the shortest of the solutions.
SINGULAR_ABOVE = 1e13


def nnls(a: ArrayLike, w: ArrayLike, ridge: float = 0.0) -> Array:
    """Coefficients u >= 0 that bring u W nearest to every row of A: argmin 1/2 ||a - u W||^2 + ridge/2 ||u||^2.

    A row's result does not depend on the other rows. Where W has dependent rows (duplicates, rows of zeros) and
    several u are optimal, the shortest one is returned, to rounding.

    Parameters
    ----------
    a : array (n, p)
        Activations.
    w : array (k, p)
        Concept bank.
    ridge : float
        Weight of the squared length of u, in the units of the squared activations.

    Returns
    -------
    array (n, k), float64

    Raises
    ------
    InputError
        If the shapes do not fit, or a value is not finite, or `ridge` is negative.
    """
    a, w = _checked(a, w, ridge)
    lengths = np.linalg.norm(w, axis=1)
    alive = lengths > 0
    u = np.zeros((len(a), len(w)))
    if alive.all():
        _solve_in_chunks(a, w, lengths, ridge, u)
    elif alive.any():
        u[:, alive] = nnls(a, w[alive], ridge)
    return u


def _solve_in_chunks(a: NDArray[np.floating], w: Array, lengths: Array, ridge: float, u: Array) -> None:
    """Write U for a W whose rows have lengths, chunks side by side."""
    problem = _Problem(w / lengths[:, None], ridge / lengths**2)

    def solve(rows: slice) -> None:
        np.divide(problem.solve(a[rows]), lengths, out=u[rows])

    chunks = [slice(start, start + CHUNK) for start in range(0, len(a), CHUNK)]
    # For one chunk, as of a picture, threads would only take time.
    for _ in ahead(solve, chunks, os.cpu_count() or 1) if len(chunks) > 1 else map(solve, chunks):
        pass


def kkt_residual(a: ArrayLike, w: ArrayLike, u: ArrayLike, ridge: float = 0.0) -> Array:
    """How far every row of U is from optimal: its largest projected gradient, as a share of ||a|| ||w_i||.

    The projected gradient is |y_i| where u_i > 0 and max(-y_i, 0) where u_i = 0, with y = (u W - a) W^T + ridge u; it
    is 0 at the optimum and of the order of rounding, 1e-15, for the results of `nnls`. Rows of zeros are measured
    without the division by ||a||.

    Parameters
    ----------
    a : array (n, p)
        Activations.
    w : array (k, p)
        Concept bank.
    u : array (n, k)
        Coefficients, not negative.
    ridge : float
        As in `nnls`.

    Returns
    -------
    array (n,), float64
    """
    a, w = _checked(a, w, ridge)
    u = np.asarray(u, np.float64)
    lengths = np.linalg.norm(w, axis=1)
    lengths[lengths == 0] = 1.0
    residual = np.zeros(len(a))
    for rows, block in _blocks(_finite(a, "activations")):
        gradient = ((u[rows] @ w - block) @ w.T + ridge * u[rows]) / lengths
        violation = np.where(u[rows] > 0, np.abs(gradient), np.maximum(-gradient, 0.0)).max(axis=1, initial=0.0)
        norms = np.linalg.norm(block, axis=1)
        residual[rows] = violation / np.where(norms > 0, norms, 1.0)
    return residual


class _Problem:
    """W with rows of unit length, its Gram matrix, and what its condition asks for."""

    def __init__(self, w: Array, ridge: Array) -> None:
        self.w, self.ridge = w, ridge
        gram = w @ w.T + np.diag(ridge)
        spectrum = np.linalg.eigvalsh(gram)
        condition = spectrum[-1] / max(spectrum[0], spectrum[-1] * EPS)
        self.refine = REFINE_ABOVE < condition <= SINGULAR_ABOVE
        if condition > SINGULAR_ABOVE:
            gram += np.eye(len(w)) * spectrum[-1] / SINGULAR_ABOVE
        self.gram = gram
        # Accurate enough to decide who is zero where the condition is small; the rest goes without it.
        self.inverse: Array | None = None if condition > REFINE_ABOVE else np.linalg.inv(gram).astype(np.float64)

    def target(self, a: NDArray[np.floating]) -> Array:
        """A W^T (n, k); what is not finite in A is not finite there either."""
        target = np.concatenate([_times(block, self.w.T) for _, block in _blocks(a)])
        if not np.isfinite(target).all():
            _finite(a, "activations")
        return target

    def solve(self, a: NDArray[np.floating]) -> Array:
        """U (n, k) for rows of A, in the units of the scaled W."""
        target = self.target(a)
        u, solved = pivot(self.gram, target, self.inverse)
        for row in np.flatnonzero(~solved):
            u[row] = active_set(self.gram, target[row])
        return self._refined(a, u) if self.refine else u

    def _refined(self, a: NDArray[np.floating], u: Array) -> Array:
        """One step of iterative refinement on each row's support, with the residual of A and not of the Gram matrix."""
        passive = u > 0
        rest = (_times(block - _times(u[rows], self.w), self.w.T) for rows, block in _blocks(a))
        target = np.concatenate(list(rest)) - u * self.ridge
        return np.maximum(u + solve_supports(self.gram, target, passive), 0.0)


def pivot(gram: Array, target: Array, inverse: Array | None = None) -> tuple[Array, NDArray[np.bool_]]:
    """Block principal pivoting on 1/2 u G u - b u for every row b of `target`; returns U and which rows were solved."""
    n, k = target.shape
    passive = target > 0 if inverse is None else _descended(gram, target, inverse) > 0
    u = solve_supports(gram, target, passive, inverse)
    patience, fewest = np.full(n, 3), np.full(n, k + 1)
    open_rows = np.arange(n)
    for _ in range(10 * k + 10):
        wrong = _wrong(gram, target[open_rows], u[open_rows], passive[open_rows])
        open_rows, wrong = open_rows[wrong.any(axis=1)], wrong[wrong.any(axis=1)]
        if not open_rows.size:
            break
        passive[open_rows] ^= _exchange(wrong, open_rows, patience, fewest)
        u[open_rows] = solve_supports(gram, target[open_rows], passive[open_rows], inverse)
    solved = np.ones(n, bool)
    solved[open_rows] = False
    return np.maximum(u, 0.0), solved


def _descended(gram: Array, target: Array, inverse: Array) -> Array:
    """U after some sweeps of coordinate descent from the solution without conditions, all rows at once: a guess."""
    size = max(1, min(len(target), SERIAL_VECTOR // len(gram)))
    stacks = np.pad(target, ((0, -len(target) % size), (0, 0))).reshape(-1, size, len(gram)).swapaxes(1, 2)
    u = np.maximum(inverse @ stacks, 0.0)
    diagonal = np.diag(gram)[:, None]
    pull, push = np.eye(len(gram)) - gram / diagonal, stacks / diagonal
    for i in SWEEPS * list(range(len(gram))):
        u[:, i] = np.maximum(pull[i] @ u + push[:, i], 0.0)
    return u.swapaxes(1, 2).reshape(-1, len(gram))[: len(target)]


def _times(rows: Array, matrix: Array) -> Array:
    """Rows (n, p) times a matrix (p, k), in pieces so small that BLAS takes one thread for each.

    Chunks are solved side by side: BLAS with threads of its own would have more of them than there are cores.
    """
    size = max(1, SERIAL // matrix.size)
    whole = len(rows) // size * size
    stacks = rows[:whole].reshape(-1, size, rows.shape[1]) @ matrix
    return np.concatenate([stacks.reshape(-1, matrix.shape[1]), rows[whole:] @ matrix])


def _wrong(gram: Array, target: Array, u: Array, passive: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Unknowns that break a condition: negative where solved for, or a negative gradient where held at zero."""
    scale = np.abs(target).max(axis=1, keepdims=True) + np.abs(u).sum(axis=1, keepdims=True)
    gradient = _times(u, gram) - target
    return np.where(passive, u, gradient) < -8 * EPS * len(gram) * scale


def _exchange(
    wrong: NDArray[np.bool_], rows: NDArray[np.intp], patience: NDArray[np.intp], fewest: NDArray[np.intp]
) -> NDArray[np.bool_]:
    """All wrong unknowns while that makes progress, else only the last one (Murty's rule, which never cycles)."""
    count = wrong.sum(axis=1)
    better = count < fewest[rows]
    fewest[rows] = np.minimum(fewest[rows], count)
    patience[rows] = np.where(better, 3, patience[rows] - 1)
    single = patience[rows] < 0
    last = wrong.shape[1] - 1 - wrong[:, ::-1].argmax(axis=1)
    only_last = np.arange(wrong.shape[1]) == last[:, None]
    return np.where(single[:, None], only_last, wrong)


def solve_supports(gram: Array, target: Array, passive: NDArray[np.bool_], inverse: Array | None = None) -> Array:
    """Solve G_SS u_S = b_S for every row, S being where `passive` holds; u is zero elsewhere.

    With the inverse of G at hand, rows of large supports are solved for the few that are zero, Z: u = v - V_:Z
    (V_ZZ)^-1 v_Z, with V = G^-1 and v = V b (the block inverse of G).
    """
    if inverse is None:
        return _solve_small(gram, target, passive)
    large = 2 * passive.sum(axis=1) > len(gram)
    u = np.empty_like(target)
    u[~large] = _solve_small(gram, target[~large], passive[~large])
    free = _times(target[large], inverse)
    zero = _solve_small(inverse, free, ~passive[large])
    u[large] = np.where(passive[large], free - _times(zero, inverse), 0.0)
    return u


def _solve_small(gram: Array, target: Array, passive: NDArray[np.bool_]) -> Array:
    """One batched solve for all rows whose supports have the same size."""
    k = len(gram)
    u = np.zeros(target.shape)
    size = passive.sum(axis=1)
    for s in np.unique(size[size > 0]):
        rows = np.flatnonzero(size == s)
        support = np.nonzero(passive[rows])[1].reshape(-1, s)
        blocks = np.take(gram, support[:, :, None] * k + support[:, None, :])
        places = rows[:, None] * k + support
        values = np.linalg.solve(blocks, np.take(target, places)[:, :, None])
        np.put(u, places, values)
    return u


def active_set(gram: Array, target: Array) -> Array:
    """Lawson & Hanson's active set method for one row: slower, but the objective falls at every step."""
    k = len(target)
    u, passive = np.zeros(k), np.zeros(k, bool)
    for _ in range(10 * k):
        gradient = np.where(passive, -np.inf, target - gram @ u)
        entering = int(gradient.argmax())
        if gradient[entering] <= 8 * EPS * k * (np.abs(target).max() + u.sum()):
            break
        passive[entering] = True
        u = _walk(gram, target, u, passive)
    return u


def _walk(gram: Array, target: Array, u: Array, passive: NDArray[np.bool_]) -> Array:
    """From u towards the solution on the passive set, dropping (in place) each unknown that reaches zero on the way."""
    while True:
        goal = solve_supports(gram, target[None], passive[None])[0]
        falling = passive & (goal <= 0)
        if not falling.any():
            return goal
        steps = np.where(falling, u / np.maximum(u - goal, np.finfo(float).tiny), np.inf)
        u = u + min(1.0, steps.min()) * (goal - u)
        passive &= ~(falling & (steps <= steps.min())) & (u > 0)
        u = np.where(passive, u, 0.0)


def _blocks(a: NDArray[np.floating]) -> Iterator[tuple[slice, Array]]:
    """Some rows at a time, in double precision."""
    step = max(1, CELLS // max(1, a.shape[1]))
    for start in range(0, len(a), step):
        rows = slice(start, start + step)
        yield rows, a[rows].astype(np.float64)


def _checked(a: ArrayLike, w: ArrayLike, ridge: float) -> tuple[NDArray[np.floating], Array]:
    a, w = np.asarray(a), np.asarray(w, np.float64)
    if a.ndim != 2 or w.ndim != 2 or a.shape[1] != w.shape[1]:
        raise InputError(
            f"Activations {a.shape} and a concept bank {w.shape} do not fit.", "Both need one column per channel."
        )
    if ridge < 0:
        raise InputError(f"The ridge {ridge} is negative.", "Give 0 or a positive number.")
    return a, _finite(w, "concept bank")


def _finite(values: Floats, name: str) -> Floats:
    if not np.isfinite(values).all():
        bad = values[~np.isfinite(values)]
        raise InputError(
            f"The {name} hold {bad.size} values that are not finite ({bad[0]}).", "Check the model's input."
        )
    return values

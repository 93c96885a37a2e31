"""From activations to concepts: A ~ U W, all non-negative; `semi_nmf` is its like for signed activations."""

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from craft_onnx.concepts.nnls import kkt_residual, nnls
from craft_onnx.errors import InputError
from craft_onnx.extras import require

Encoder = Literal["nnls", "sklearn"]
Factoriser = Literal["nmf", "semi_nmf"]
AFTER_RELU = "Cut the model after a ReLU, or where activations are not negative for another reason."
SIGNED = "Or take them as they are: factoriser='semi_nmf' (--factoriser semi_nmf)."

TOL = 1e-5

# Multiplications of one product of the solver up to which one thread takes it: a few milliseconds of work.
SERIAL = 1 << 27


@dataclass(frozen=True)
class Factorisation:
    """Concept bank and coefficients of a matrix of activations, with the evidence of their quality.

    Attributes
    ----------
    w : array (k, p), float32
        Concept bank; rows of unit length when normalized, rows of zeros where a concept died.
    u : array (n, k), float32
        Coefficients of the rows of A, in the units of A when W is normalized.
    relative_error : float
        ||A - U W|| / ||A||, Frobenius.
    kkt_residual : float
        Largest over the rows, see `craft_onnx.concepts.nnls.kkt_residual`.
    n_iter : int
        Iterations of the solver.
    converged : bool
        Whether the solver met its tolerance within its iterations.
    scale : float
        What A was divided by while it was factorised.
    """

    w: NDArray[np.float32]
    u: NDArray[np.float32]
    relative_error: float
    kkt_residual: float
    n_iter: int
    converged: bool
    scale: float


def factorise(
    a: NDArray[np.floating],
    number_of_concepts: int,
    alpha: float = 0.0,
    normalize: bool = True,
    random_state: int | None = 0,
    *,
    encoder: Encoder = "nnls",
    tol: float = TOL,
    max_iter: int = 2000,
) -> Factorisation:
    """Non-negative matrix factorisation (CRAFT, section 3.1): min 1/2 ||A - U W||^2 over U, W >= 0.

    scikit-learn's coordinate descent, started from a non-negative double SVD, finds W on A divided by its mean: its
    stopping rule is not free of scale, the division makes it so. U then is the exact solution for that W.

    Parameters
    ----------
    a : array (n, p)
        Activations, not negative.
    number_of_concepts : int
        k, at most min(n, p).
    alpha : float
        scikit-learn's `alpha_W`: weight of its penalty on the squares of U and W (0 in the paper, 1e-2 in Xplique).
        The penalty depends on the scale of A, unless `normalize` is set.
    normalize : bool
        Divide A by its mean, and give the rows of W unit length.
    random_state : int, optional
        Seed of the randomised SVD.
    encoder : "nnls" or "sklearn"
        U by exact non-negative least squares, or the solver's own last iterate.
    tol, max_iter : float, int
        When the solver stops: relative change of its projected gradient, iterations.

    Raises
    ------
    InputError
        If a value is negative or not finite, all are zero, or k does not fit the shape.
    """
    check_activations(a)
    check_number(number_of_concepts, a.shape)
    scale = _scale(a) if normalize else 1.0
    nmf = require("sklearn.decomposition", "build").NMF
    solver = nmf(
        number_of_concepts, alpha_W=alpha, init="nndsvda", tol=tol, max_iter=max_iter, random_state=random_state
    )
    with blas_threads(a.size * number_of_concepts):
        u = quietly(lambda: solver.fit_transform(np.divide(a, scale, dtype=np.float64) if normalize else a))
    w = (unit_rows(solver.components_) if normalize else solver.components_).astype(np.float32)
    if encoder == "nnls" or normalize:
        u = encode(a, w, encoder, alpha)
    return as_found(a, u, w, solver.n_iter_, solver.n_iter_ < max_iter, scale)


def as_found(
    a: NDArray[np.floating],
    u: NDArray[np.floating],
    w: NDArray[np.float32],
    n_iter: int,
    converged: bool,
    scale: float,
) -> Factorisation:
    """W (k, p) and U (n, k) of activations (n, p) with their evidence."""
    return Factorisation(
        w=w,
        u=u.astype(np.float32),
        relative_error=relative_error(a, u, w),
        kkt_residual=float(kkt_residual(a, w, u).max()),
        n_iter=n_iter,
        converged=converged,
        scale=scale,
    )


def check_factoriser(name: str, alpha: float, encoder: str, normalize: bool) -> None:
    """Raise InputError where there is no such factorisation, or it has no such settings."""
    if name not in ("nmf", "semi_nmf"):
        raise InputError(f"There is no factoriser {name!r}.", "Take 'nmf' or 'semi_nmf'.")
    if name == "semi_nmf" and (alpha or encoder != "nnls" or not normalize):
        raise InputError(
            f"Semi-NMF cannot be had with alpha_W={alpha:g}, encoder={encoder!r} and normalize={normalize}.",
            "It has no penalty, exact coefficients, and rows of unit length: leave these settings out.",
        )


def encode(
    a: NDArray[np.floating], w: NDArray[np.floating], encoder: Encoder = "nnls", alpha: float = 0.0
) -> NDArray[np.floating]:
    """Coefficients (n, k) of activations (n, p) for a given concept bank (k, p), as `encoder` says in `factorise`."""
    if encoder not in ("nnls", "sklearn"):
        raise InputError(f"There is no encoder {encoder!r}.", "Take 'nnls' or 'sklearn'.")
    return nnls(a, w) if encoder == "nnls" else encode_as_sklearn(a, w, alpha)


def encode_as_sklearn(
    a: NDArray[np.floating], w: NDArray[np.floating], alpha: float, tol: float = 1e-4, max_iter: int = 200
) -> NDArray[np.floating]:
    """Coefficients (n, k) by scikit-learn's `NMF.transform`, as in Xplique: all rows share one stopping rule.

    Parameters
    ----------
    a : array (n, p)
        Activations, not negative.
    w : array (k, p)
        Concept bank.
    alpha, tol, max_iter : float, float, int
        As in `factorise`.
    """
    check_activations(a)
    solve = require("sklearn.decomposition", "build").non_negative_factorization
    h = w.astype(a.dtype, copy=False)
    u, _, _ = quietly(
        lambda: solve(a, H=h, n_components=len(h), update_H=False, alpha_W=alpha, tol=tol, max_iter=max_iter)
    )
    return np.asarray(u)


def relative_error(a: NDArray[np.floating], u: NDArray[np.floating], w: NDArray[np.floating]) -> float:
    """||A - U W|| / ||A||, Frobenius, in double precision and blocks of rows; 0 for A = 0."""
    missed = total = 0.0
    for start in range(0, len(a), 4096):
        block = a[start : start + 4096].astype(np.float64)
        missed += float(np.square(block - u[start : start + 4096].astype(np.float64) @ w).sum())
        total += float(np.square(block).sum())
    return float(np.sqrt(missed / total)) if total else 0.0


def check_finite(a: NDArray[np.floating]) -> None:
    """Raise InputError when activations are not finite."""
    if not np.isfinite(a).all():
        bad = a[~np.isfinite(a)]
        raise InputError(
            f"The activations hold {bad.size} values that are not finite ({bad[0]}).",
            "Look for such values in the pictures and in the model's weights.",
        )


def check_activations(a: NDArray[np.floating], remedy: Callable[[], str] | None = None) -> None:
    """Raise InputError when activations are not finite or negative; `remedy` says what to do about negative ones."""
    check_finite(a)
    lowest = float(a.min(initial=0.0))
    if lowest < 0:
        raise InputError(
            f"The activations at the cut are negative (lowest {lowest:.6g}).",
            f"{remedy() if remedy else AFTER_RELU} {SIGNED}",
        )


def check_number(number_of_concepts: int, shape: tuple[int | None, ...]) -> None:
    """Raise InputError when k concepts cannot be had from activations of `shape` (n, p), None where not yet known."""
    most = min(length for length in shape if length is not None)
    if not 1 <= number_of_concepts <= most:
        n, p = shape
        raise InputError(
            f"{number_of_concepts} concepts cannot be found in {n} crops{f' with {p} channels' if p else ''}.",
            f"Ask for 1 to {most} concepts, or give more pictures or a smaller patch size.",
        )


def pool(activations: NDArray[np.floating]) -> NDArray[np.floating]:
    """Activations (n, ..., p) averaged over positions: (n, p)."""
    return activations.mean(axis=tuple(range(1, activations.ndim - 1))) if activations.ndim > 2 else activations


def _scale(a: NDArray[np.floating]) -> float:
    mean = float(a.mean(dtype=np.float64))
    if mean == 0:
        raise InputError(
            f"All {a.shape[0]} x {a.shape[1]} activations are zero.", "Look at the preprocessing, or cut elsewhere."
        )
    return mean


def blas_threads(multiplications: int) -> AbstractContextManager[Any]:
    """One thread for small products: others, which wait for each other hundreds of times, cost more than they save."""
    limits = require("threadpoolctl", "build").threadpool_limits
    return limits(1 if multiplications < SERIAL else None)


def quietly(solve: Callable[[], Any]) -> Any:
    """Without ConvergenceWarning: whether it converged is part of the result."""
    category = require("sklearn.exceptions", "build").ConvergenceWarning
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category)
        return solve()


def unit_rows(w: NDArray[np.floating]) -> NDArray[np.floating]:
    """Rows of unit length; rows of zeros stay."""
    lengths = np.linalg.norm(w, axis=1, keepdims=True)
    return w / np.where(lengths > 0, lengths, 1.0)

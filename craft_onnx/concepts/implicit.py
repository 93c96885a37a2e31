"""The derivative of the coefficients with respect to the activations, row by row in batches (CRAFT, ingredient 3).

u(a) = argmin_{u >= 0} 1/2 ||a - u W||^2 + ridge/2 ||u||^2 is given implicitly, by its conditions of optimality. On the
support S = {i : u_i > 0} they are linear, u_S (W_S W_S^T + ridge I) = a W_S^T, and S does not change near a, but on a
set of measure zero. Hence the product of a cotangent v of u with the Jacobian is v_S (W_S W_S^T + ridge I)^-1 W_S, and
what v holds outside the support is lost. A penalty on the sum of u would move u_S, not its derivative.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from craft_onnx.concepts.nnls import REFINE_ABOVE, SINGULAR_ABOVE, solve_supports
from craft_onnx.errors import InputError

Array = NDArray[np.float64]


def nnls_vjp(w: ArrayLike, u: ArrayLike, cotangent: ArrayLike, ridge: float = 0.0) -> Array:
    """Vector-Jacobian products of non-negative least squares: from cotangents of U to those of A.

    Where concepts of a support depend on each other (duplicates, one a mixture of others), its Gram matrix is singular
    and several u are optimal. `nnls` returns the shortest one, u_S = a pinv(W_S): its derivative is what is returned.
    The pseudo-inverse is taken of W_S and not of the Gram matrix, whose small eigenvalues are rounding.

    Parameters
    ----------
    w : array (k, p)
        Concept bank.
    u : array (n, k)
        Coefficients, the solutions; only where they are positive counts.
    cotangent : array (n, k)
        Weights of the coefficients.
    ridge : float
        As in `craft_onnx.concepts.nnls.nnls`.

    Returns
    -------
    array (n, p), float64
        For each row of A the derivative of sum(cotangent * u) with respect to it.

    Raises
    ------
    InputError
        If the shapes do not fit.
    """
    w, v = np.asarray(w, np.float64), np.asarray(cotangent, np.float64)
    support = _support(w, np.asarray(u), v)
    # A zero row of W gives nothing back; any length keeps it out of divisions.
    lengths = np.linalg.norm(w, axis=1)
    lengths[lengths == 0] = 1.0
    unit, ridges = w / lengths[:, None], ridge / lengths**2
    result = np.zeros((len(v), w.shape[1]))
    felt = ((v != 0) & support).any(axis=1)
    result[felt] = _pulled_back(unit, ridges, support[felt], np.where(support, v / lengths, 0.0)[felt])
    return result


def _support(w: Array, u: NDArray[np.floating], v: Array) -> NDArray[np.bool_]:
    if w.ndim != 2 or u.ndim != 2 or u.shape != v.shape or u.shape[1] != len(w):
        raise InputError(
            f"A concept bank {w.shape}, coefficients {u.shape} and a cotangent {v.shape} do not fit.",
            "Give (k, p), (n, k) and (n, k).",
        )
    return u > 0


def _pulled_back(w: Array, ridges: Array, support: NDArray[np.bool_], v: Array) -> Array:
    """v_S (W_S W_S^T + diag(ridges))^-1 W_S for every row, W having rows of unit length."""
    gram = w @ w.T + np.diag(ridges)
    spectrum = np.linalg.eigvalsh(gram)
    # The eigenvalues of every G_SS lie between those of G: where G is well conditioned, all of them are.
    if spectrum[-1] <= REFINE_ABOVE * spectrum[0]:
        inverse: Array = np.linalg.inv(gram).astype(np.float64)
        return solve_supports(gram, v, support, inverse) @ w
    return _by_pseudo_inverse(w, ridges, support, v)


def _by_pseudo_inverse(w: Array, ridges: Array, support: NDArray[np.bool_], v: Array) -> Array:
    """The same by the pseudo-inverses of [W_S, diag(sqrt(ridges))_S], one for every support that occurs.

    The first p rows of pinv(B), B = [W, D], are W^T (W W^T + D^2)^-1. W is first brought to k columns, W = L Q.
    """
    q, r = np.linalg.qr(w.T)
    wide = np.concatenate([r.T, np.diag(np.sqrt(ridges))], axis=1)
    columns = r.shape[0]
    supports, which = np.unique(support, axis=0, return_inverse=True)
    back = np.empty((len(v), columns))
    for number, chosen in enumerate(supports):
        rows = which.ravel() == number
        inverse = np.linalg.pinv(wide[chosen], rcond=SINGULAR_ABOVE**-0.5)
        back[rows] = v[np.ix_(rows, chosen)] @ inverse[:columns].T
    return back @ q.T

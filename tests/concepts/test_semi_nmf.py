"""Semi-NMF against the multiplicative update of the paper, planted concepts, NMF, and SciPy's least squares."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.optimize import nnls as scipy_nnls
from sklearn.cluster import KMeans

from craft_onnx.concepts.factorisation import factorise, relative_error
from craft_onnx.concepts.nnls import kkt_residual, nnls
from craft_onnx.concepts.semi_nmf import alternate, semi_nmf, start
from craft_onnx.concepts.stability import match
from craft_onnx.errors import InputError


def planted(n=300, p=80, k=6, noise=0.05, seed=0):
    """Signed A = U W + noise, and W: U is sparse enough that each concept is nearly alone in some row."""
    rng = np.random.default_rng(seed)
    w = rng.standard_normal((k, p))
    w /= np.linalg.norm(w, axis=1, keepdims=True)
    a = rng.gamma(0.4, 1.0, (n, k)) @ w + noise * rng.standard_normal((n, p)) / np.sqrt(p)
    return a.astype(np.float32), w


def multiplicative(a, k, iterations, seed=0):
    """Ding, Li & Jordan 2010, equations 7 and 8 in their notation X = A^T, F = W^T, G = U; the objective."""
    positive, negative = (lambda x: (np.abs(x) + x) / 2), (lambda x: (np.abs(x) - x) / 2)
    x = a.T.astype(np.float64)
    g = np.eye(k)[KMeans(k, n_init=10, random_state=seed).fit(a).labels_] + 0.2
    for _ in range(iterations):
        f = x @ g @ np.linalg.pinv(g.T @ g)
        xf, ff = x.T @ f, f.T @ f
        g = g * np.sqrt((positive(xf) + g @ negative(ff)) / (negative(xf) + g @ positive(ff) + 1e-300))
    f = x @ g @ np.linalg.pinv(g.T @ g)
    return np.linalg.norm(x - f @ g.T) / np.linalg.norm(x)


@pytest.mark.parametrize(("noise", "least"), [(0.0, 0.998), (0.05, 0.998), (0.3, 0.997), (1.0, 0.99)])
@pytest.mark.parametrize("seed", range(3))
def test_planted_concepts_are_found_again(noise, least, seed):
    a, w = planted(noise=noise, seed=seed)
    found = semi_nmf(a, 6)
    _, similar = match(w, found.w)
    assert similar.min() > least
    assert found.converged and (found.w.min(axis=1) < 0).all() and found.u.min() >= 0


@pytest.mark.parametrize(("noise", "seed"), [(0.05, 0), (0.05, 1), (0.5, 2)])
def test_the_multiplicative_update_run_long_is_not_better(noise, seed):
    a, _ = planted(noise=noise, seed=seed)
    theirs = multiplicative(a, 6, 2000)
    # Both go towards the error of the truncated SVD, ours until an iteration gains less than `tol` of the start.
    assert semi_nmf(a, 6).relative_error <= theirs + 0.01
    assert semi_nmf(a, 6, tol=1e-5).relative_error <= 1.003 * theirs
    assert semi_nmf(a, 6, tol=1e-7).relative_error <= 1.0005 * theirs


@pytest.mark.parametrize("seed", range(4))
def test_the_objective_never_rises(seed):
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((60, 12))
    steps = alternate(a, start(a, 7, seed))
    objectives = [next(steps)[1] for _ in range(60)]
    # Rounding of a sum of 720 squares.
    assert all(after <= before + 1e-12 * objectives[0] for before, after in pairwise(objectives))
    assert objectives[-1] < objectives[0]


def test_each_step_is_exact():
    a = np.random.default_rng(0).standard_normal((40, 9))
    w = start(a, 4)
    u = np.stack([scipy_nnls(w.T, row)[0] for row in a])
    assert np.abs(nnls(a, w) - u).max() < 1e-12
    expected = np.linalg.lstsq(u, a, rcond=None)[0]
    after, objective = next(alternate(a, w))
    assert np.allclose(after, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-12)
    assert objective == pytest.approx(np.square(a - u @ expected).sum())


@pytest.mark.parametrize("scale", [1e-4, 1e-2, 1e2, 1e4])
def test_it_is_free_of_the_scale_of_the_activations(scale):
    a, _ = planted()
    one, other = semi_nmf(a, 6), semi_nmf(a * np.float32(scale), 6)
    # A in float32 differs by its rounding, 6e-8, which the iterations amplify a little.
    assert np.abs(one.w - other.w).max() < 1e-6
    assert other.relative_error == pytest.approx(one.relative_error, rel=1e-5)
    assert np.allclose(other.u / scale, one.u, rtol=1e-3, atol=1e-4) and other.n_iter == one.n_iter


@pytest.mark.parametrize("seed", range(4))
def test_of_activations_that_are_not_negative_it_reconstructs_no_less_than_nmf(seed):
    rng = np.random.default_rng(seed)
    a = rng.gamma(0.4, 1.0, (200, 6)) @ rng.gamma(0.4, 1.0, (6, 50)) + 0.2 * rng.gamma(1.0, 1.0, (200, 50))
    theirs = factorise(a, 5).relative_error
    assert semi_nmf(a, 5, tol=1e-6).relative_error <= theirs
    assert semi_nmf(a, 5).relative_error <= 1.02 * theirs  # it stops early


def test_more_iterations_lower_the_error_but_lose_the_concepts():
    a, w = planted(noise=1.0)
    early, late = semi_nmf(a, 6), semi_nmf(a, 6, tol=1e-6)
    assert late.relative_error < early.relative_error < late.relative_error + 0.01
    assert match(w, late.w)[1].min() < match(w, early.w)[1].min() - 0.02
    assert (late.u == 0).mean() < (early.u == 0).mean()


def test_concepts_have_unit_length_and_u_is_the_exact_solution():
    a, _ = planted(noise=0.5)
    found = semi_nmf(a, 6)
    assert np.allclose(np.linalg.norm(found.w, axis=1), 1, atol=1e-6)
    assert np.abs(found.u - nnls(a, found.w)).max() < 1e-5  # stored as float32
    assert found.relative_error == pytest.approx(relative_error(a, found.u, found.w), rel=1e-6)
    assert found.kkt_residual == pytest.approx(kkt_residual(a, found.w, nnls(a, found.w)).max())
    assert found.kkt_residual < 1e-12


def test_the_same_seed_gives_the_same_concepts():
    a, _ = planted(noise=0.5)
    assert np.array_equal(semi_nmf(a, 6, 5).w, semi_nmf(a, 6, 5).w)


def test_convergence_is_recorded():
    a, _ = planted(noise=0.5)
    stopped = semi_nmf(a, 6, max_iter=3)
    assert not stopped.converged and stopped.n_iter == 3
    found = semi_nmf(a, 6)
    assert found.converged and 3 < found.n_iter < semi_nmf(a, 6, tol=1e-4).n_iter < 2000


def test_a_concept_that_dies_begins_anew_where_least_is_explained():
    a, w = planted(noise=0.0)
    steps = alternate(a.astype(np.float64), np.vstack([w[:5], -w.sum(axis=0)]))  # no row has this one
    _, dead = next(steps)
    alive = [next(steps) for _ in range(60)]
    assert np.allclose(np.linalg.norm(alive[-1][0], axis=1), 1) and alive[-1][1] < 1e-4 * dead


def test_fewer_directions_than_concepts_leave_rows_of_zeros():
    a = np.outer(np.arange(8.0), [1.0, -2.0, 0.5, 3.0, 1.0])
    found = semi_nmf(a, 4)
    assert found.relative_error < 1e-6 and found.converged  # stored as float32
    lengths = np.linalg.norm(found.w, axis=1)
    assert np.all((lengths == 0) | (np.abs(lengths - 1) < 1e-6)) and lengths.max() > 0
    assert not found.u[:, lengths == 0].any()


def test_one_concept_as_many_as_fit_and_rows_of_zeros():
    a, _ = planted(n=7, p=5, k=3)
    assert semi_nmf(a, 1).w.shape == (1, 5)
    assert semi_nmf(a, 5).u.shape == (7, 5)
    a[2:] = 0
    found = semi_nmf(a, 4)
    assert found.relative_error < 1e-6 and not found.u[2:].any()


def test_k_means_looks_at_some_of_many_rows(monkeypatch):
    monkeypatch.setattr("craft_onnx.concepts.semi_nmf.START_ROWS", 100)
    a, w = planted(n=3000, noise=0.0)
    assert match(w, semi_nmf(a, 6).w)[1].min() > 0.999


@pytest.mark.parametrize("k", [0, 6, 8])
def test_a_number_of_concepts_that_does_not_fit(k):
    with pytest.raises(InputError, match=rf"^{k} concepts .* 7 crops with 5 channels"):
        semi_nmf(planted(n=7, p=5, k=3)[0], k)


def test_activations_that_are_not_finite_or_zero():
    a, _ = planted()
    a[0, :2], a[1, 1] = np.nan, np.inf
    with pytest.raises(InputError, match="3 values that are not finite"):
        semi_nmf(a, 3)
    with pytest.raises(InputError, match="All 4 x 5 activations are zero"):
        semi_nmf(np.zeros((4, 5)), 2)

"""The derivative of non-negative least squares against differences, unrolled iterations and closed forms."""

import numpy as np
import pytest

from craft_onnx.concepts.implicit import nnls_vjp
from craft_onnx.concepts.nnls import nnls
from craft_onnx.errors import InputError

STEP = 1e-6


def problem(n=40, k=6, p=15, seed=0):
    """Mixtures and noise: rows with supports of many sizes."""
    rng = np.random.default_rng(seed)
    w = rng.exponential(size=(k, p)) * rng.uniform(0.1, 10, (k, 1))
    u = rng.exponential(size=(n, k)) * (rng.random((n, k)) < 0.6)
    return np.maximum(u @ w + rng.normal(size=(n, p)), 0), w, rng.normal(size=(n, k))


def jacobian(a, w, ridge=0.0, step=STEP):
    """Central differences (p, n, k) of U, and the rows whose support is the same on both sides of all of them."""
    shifts = step * np.eye(a.shape[1])
    ahead = np.stack([nnls(a + shift, w, ridge) for shift in shifts])
    behind = np.stack([nnls(a - shift, w, ridge) for shift in shifts])
    steady = ((ahead > 0) == (behind > 0)).all(axis=(0, 2))
    return (ahead - behind) / (2 * step), steady


def unrolled(a, w, ridge, iterations=2000):
    """Projected gradient, as PyTorch differentiates it: from A to U, for one row."""
    import torch

    gram = w @ w.T + ridge * torch.eye(len(w), dtype=w.dtype)
    rate = 1 / torch.linalg.eigvalsh(gram)[-1]
    u = torch.zeros(len(w), dtype=w.dtype)
    for _ in range(iterations):
        u = torch.clamp(u - rate * (u @ gram - a @ w.T), min=0)
    return u


@pytest.mark.parametrize("ridge", [0.0, 0.7])
def test_finite_differences(ridge):
    a, w, v = problem()
    differences, steady = jacobian(a, w, ridge)
    u = nnls(a, w, ridge)
    assert steady.sum() > 30 and len(np.unique((u > 0).sum(axis=1))) >= 4
    expected = np.einsum("pnk,nk->np", differences, v)
    # Away from kinks U is linear in A: what differs is rounding, 1e-16 / STEP.
    np.testing.assert_allclose(nnls_vjp(w, u, v, ridge)[steady], expected[steady], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("ridge", [0.0, 0.5])
def test_unrolled_iterations(ridge):
    torch = pytest.importorskip("torch")
    a, w, v = problem(n=6, k=4)
    w /= np.linalg.norm(w, axis=1, keepdims=True)
    u = nnls(a, w, ridge)
    found = nnls_vjp(w, u, v, ridge)
    for row in range(len(a)):
        x = torch.from_numpy(a[row]).requires_grad_()
        solution = unrolled(x, torch.from_numpy(w), ridge)
        np.testing.assert_allclose(solution.detach().numpy(), u[row], atol=1e-9)
        (expected,) = torch.autograd.grad(solution @ torch.from_numpy(v[row]), x)
        np.testing.assert_allclose(found[row], expected.numpy(), rtol=1e-7, atol=1e-9)


def test_multiplicative_updates():
    """Lee and Seung's iterations, differentiated numerically: another algorithm finds the same derivative."""
    a, w, v = problem(n=12, k=3)
    w /= np.linalg.norm(w, axis=1, keepdims=True)
    u = nnls(a, w)

    def updated(x):
        found = np.ones((len(x), len(w)))
        for _ in range(5000):
            found *= (x @ w.T) / (found @ (w @ w.T) + 1e-300)
        return found

    # They creep towards a zero that the data hardly ask for.
    rows = np.abs(updated(a) - u).max(axis=1) < 1e-9
    rng = np.random.default_rng(3)
    direction = rng.normal(size=a.shape)
    change = (updated(a + 1e-5 * direction) - updated(a - 1e-5 * direction)) / 2e-5
    found = (nnls_vjp(w, u, v) * direction).sum(axis=1)
    assert rows.sum() >= 6
    np.testing.assert_allclose(found[rows], (change * v).sum(axis=1)[rows], rtol=1e-6, atol=1e-7)


def test_w_identity_gives_the_cotangent_itself():
    rng = np.random.default_rng(1)
    a, v = rng.normal(size=(9, 5)), rng.normal(size=(9, 5))
    u = nnls(a, np.eye(5))
    np.testing.assert_allclose(nnls_vjp(np.eye(5), u, v), np.where(a > 0, v, 0), atol=1e-15)


def test_what_lies_outside_the_support_is_lost():
    a, w, v = problem()
    u = nnls(a, w)
    np.testing.assert_array_equal(nnls_vjp(w, u, np.where(u > 0, 0.0, v)), 0)
    np.testing.assert_array_equal(nnls_vjp(w, np.zeros_like(u), v), 0)


def test_rows_do_not_depend_on_each_other():
    a, w, v = problem()
    u = nnls(a, w)
    alone = np.concatenate([nnls_vjp(w, u[i : i + 1], v[i : i + 1]) for i in range(len(a))])
    np.testing.assert_allclose(nnls_vjp(w, u, v), alone, rtol=1e-12, atol=1e-14)


def literal(w, support, v, ridge=0.0):
    """One row by the formula."""
    s = np.flatnonzero(support)
    return v[s] @ np.linalg.pinv(w[s] @ w[s].T + ridge * np.eye(len(s)), hermitian=True) @ w[s]


@pytest.mark.parametrize("ridge", [0.0, 0.3])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_both_ways_are_the_formula(ridge, scale):
    """A well conditioned bank, and one with two concepts so much alike that supports go one by one."""
    a, w, v = problem()
    for alike in (False, True):
        if alike:
            w[1] = w[0] + 1e-4 * w[1]
        u = nnls(a, scale * w, ridge)
        expected = np.stack([literal(scale * w, *row, ridge) for row in zip(u > 0, v, strict=True)])
        found = nnls_vjp(scale * w, u, v, ridge)
        # Twins multiply the rounding of W by the condition of their Gram matrix, 1e8.
        tolerance = 1e-6 if alike else 1e-10
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())


def test_a_singular_support_has_the_derivative_of_the_shortest_solution():
    """Twins share what the concept is worth; differences of `nnls`, which returns the shortest solution, agree."""
    a, w, v = problem(k=4)
    w[3], v[:, 3] = w[0], v[:, 0]
    u = nnls(a, w)
    shared = (u[:, 0] > 0) & (u[:, 3] > 0)
    assert shared.sum() > 5
    found = nnls_vjp(w, u, v)
    differences, steady = jacobian(a, w, step=1e-4)
    expected = np.einsum("pnk,nk->np", differences, v)
    # What twins share is exact, how they share it is known to three digits: they are weighted alike here.
    np.testing.assert_allclose(found[steady], expected[steady], rtol=1e-6, atol=1e-8)
    against = np.where(np.arange(4) == 3, -v, v) * [1, 0, 0, 1]
    np.testing.assert_allclose(nnls_vjp(w, u, against)[shared], 0, atol=1e-12)
    single = nnls_vjp(w[:3], np.maximum(u[:, :3], 0), np.stack([(v[:, 0] + v[:, 3]) / 2, v[:, 1], v[:, 2]], axis=1))
    np.testing.assert_allclose(found[shared], single[shared], rtol=1e-9, atol=1e-12)


def test_a_concept_that_mixes_two_others_is_no_obstacle():
    rng = np.random.default_rng(2)
    mixes = np.array([[1.0, 0], [0, 1], [1, 1]])
    parts = rng.exponential(size=(2, 8))
    mixes /= np.linalg.norm(mixes @ parts, axis=1, keepdims=True)  # rows of unit length, as a fit leaves them
    w = mixes @ parts
    u, v = np.ones((1, 3)), rng.normal(size=(1, 3))
    expected = v @ np.linalg.pinv(mixes).T @ np.linalg.pinv(parts).T
    np.testing.assert_allclose(nnls_vjp(w, u, v), expected, rtol=1e-10)


def test_a_dead_concept_gives_nothing_back():
    a, w, v = problem()
    w[2] = 0
    u = nnls(a, w)
    found = nnls_vjp(w, u, v)
    kept = np.arange(len(w)) != 2
    np.testing.assert_allclose(found, nnls_vjp(w[kept], u[:, kept], v[:, kept]), rtol=1e-9, atol=1e-12)


def test_shapes_that_do_not_fit():
    with pytest.raises(InputError, match=r"\(3, 8\).*\(2, 3\).*\(2, 4\)"):
        nnls_vjp(np.ones((3, 8)), np.ones((2, 3)), np.ones((2, 4)))

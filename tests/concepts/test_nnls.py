import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import nnls as scipy_nnls

from craft_onnx.concepts import nnls as module
from craft_onnx.concepts.factorisation import encode_as_sklearn
from craft_onnx.concepts.nnls import active_set, kkt_residual, nnls, pivot, solve_supports
from craft_onnx.errors import InputError


def problem(n, k, p, seed=0, active=0.4, noise=0.3):
    rng = np.random.default_rng(seed)
    w = rng.random((k, p))
    u = rng.random((n, k)) * (rng.random((n, k)) < active)
    return u @ w + noise * rng.normal(size=(n, p)), w


def row_by_row(a, w):
    return np.array([scipy_nnls(w.T, row)[0] for row in a])


def objective(a, w, u):
    return np.square(a - u @ w).sum()


@pytest.mark.parametrize(("k", "p"), [(1, 5), (2, 2), (10, 64), (25, 128), (25, 30)])
def test_it_is_scipys_solution_row_by_row(k, p):
    a, w = problem(300, k, p)
    # Both are exact up to rounding times the condition number (< 1e3 here).
    assert np.abs(nnls(a, w) - row_by_row(a, w)).max() < 1e-8
    assert kkt_residual(a, w, nnls(a, w)).max() < 1e-12


@pytest.mark.parametrize(("k", "p"), [(3, 40), (10, 64), (25, 128), (25, 512)])
def test_no_row_is_worse_than_scikit_learns(k, p):
    """`NMF.transform` with the peers' stopping rule, and with one that is never met."""
    a, w = problem(200, k, p)
    a = np.maximum(a, 0)
    found = np.square(a - nnls(a, w) @ w).sum(axis=1)
    for tol, max_iter in ((1e-4, 200), (0.0, 2000)):
        theirs = encode_as_sklearn(a, w, 0.0, tol, max_iter)
        assert (found <= np.square(a - theirs @ w).sum(axis=1) * (1 + 1e-12)).all()


def test_rows_do_not_depend_on_each_other():
    a, w = problem(5000, 12, 40)
    whole = nnls(a, w)
    assert np.allclose(whole[17:18], nnls(a[17:18], w), rtol=1e-12, atol=1e-14)
    assert np.allclose(whole[4090:4100], nnls(a[4090:4100], w), rtol=1e-12, atol=1e-14)


def test_lengths_of_the_rows_of_w_only_rescale_u():
    a, w = problem(100, 6, 30)
    scales = 10.0 ** np.arange(-3, 3)
    assert np.allclose(nnls(a, w * scales[:, None]) * scales, nnls(a, w), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e6, 1e30])
def test_it_is_free_of_the_scale_of_the_activations(scale):
    a, w = problem(100, 6, 30)
    assert np.allclose(nnls(a * scale, w) / scale, nnls(a, w), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("closeness", [1e-2, 1e-4, 1e-5])
def test_ill_conditioned_banks_keep_their_digits(closeness):
    rng = np.random.default_rng(1)
    base = rng.random((5, 40))
    w = np.concatenate([base, base + closeness * rng.random((5, 40))])
    a, _ = problem(200, 10, 40, seed=2)
    expected = row_by_row(a, w)
    # scipy works on W itself: its error is about 1e-16 cond(W), and cond(W) is about 10 / closeness.
    assert np.abs(nnls(a, w) - expected).max() / expected.max() < 1e-14 / closeness
    assert kkt_residual(a, w, nnls(a, w)).max() < 1e-12


@pytest.mark.parametrize("closeness", [1e-7, 1e-8, 1e-10, 1e-13, 0.0])
def test_banks_that_are_singular_in_rounding_are_still_solved(closeness):
    rng = np.random.default_rng(1)
    base = rng.random((5, 40))
    w = np.concatenate([base, base + closeness * rng.random((5, 40))])
    a, _ = problem(200, 10, 40, seed=2)
    u = nnls(a, w)
    # The coefficients are not unique to rounding, the objective is; the ridge of 1e-13 is all that is lost.
    assert objective(a, w, u) <= objective(a, w, row_by_row(a, w)) * (1 + 1e-11)
    assert kkt_residual(a, w, u).max() < 1e-11


def test_duplicates_share_and_dead_rows_stay_zero():
    a, w = problem(50, 4, 20, noise=0.0)
    u = nnls(a, np.concatenate([w, w[:1], np.zeros((2, 20)), w[1:2] + w[2:3]]))
    assert np.all(u[:, 5:7] == 0)
    assert np.allclose(u[:, 0], u[:, 4], rtol=1e-2, atol=1e-9)  # rounding, 1e-16, over the ridge, 1e-13
    assert np.allclose(u[:, 0] + u[:, 4], nnls(a, w)[:, 0], atol=1e-9)


def test_more_concepts_than_channels():
    a, w = problem(100, 12, 4)
    u = nnls(a, w)
    assert np.isclose(objective(a, w, u), objective(a, w, row_by_row(a, w)), rtol=1e-10)
    assert kkt_residual(a, w, u).max() < 1e-11


def test_a_bank_of_zeros_and_rows_of_zeros():
    a, w = problem(3, 2, 5)
    assert np.all(nnls(a, np.zeros((2, 5))) == 0)
    assert np.all(nnls(np.zeros((3, 5)), w) == 0)
    assert np.all(kkt_residual(np.zeros((3, 5)), w, np.zeros((3, 2))) == 0)
    assert nnls(np.zeros((0, 5)), w).shape == (0, 2)


@pytest.mark.parametrize("ridge", [1e-6, 0.1, 50.0])
def test_a_ridge_is_rows_of_its_root_below_the_bank(ridge):
    a, w = problem(60, 7, 20)
    w *= np.linspace(0.2, 3, 7)[:, None]
    longer = np.concatenate([w, np.sqrt(ridge) * np.eye(7)], axis=1)
    expected = row_by_row(np.pad(a, ((0, 0), (0, 7))), longer)
    assert np.abs(nnls(a, w, ridge) - expected).max() < 1e-8
    assert kkt_residual(a, w, nnls(a, w, ridge), ridge).max() < 1e-12


def test_the_active_set_method_agrees_with_pivoting():
    a, w = problem(60, 9, 30)
    gram, target = w @ w.T, a @ w.T
    u, solved = pivot(gram, target)
    assert solved.all()
    assert np.abs(u - [active_set(gram, row) for row in target]).max() < 1e-9


def test_supports_are_solved_the_same_with_the_inverse_at_hand():
    rng = np.random.default_rng(0)
    w = rng.random((9, 30))
    gram, target, passive = w @ w.T, rng.normal(size=(200, 9)), rng.random((200, 9)) < rng.random((200, 1))
    passive[:2] = [[True] * 9, [False] * 9]
    u = solve_supports(gram, target, passive, np.linalg.inv(gram))
    for row, b, support in zip(u, target, passive, strict=True):
        expected = np.zeros(9)
        if support.any():
            expected[support] = np.linalg.solve(gram[np.ix_(support, support)], b[support])
        assert np.allclose(row, expected, rtol=1e-9, atol=1e-9)
        assert np.all(row[~support] == 0)


@pytest.mark.parametrize("sweeps", [0, 1, 50])
def test_the_guess_that_pivoting_starts_from_does_not_matter(sweeps, monkeypatch):
    a, w = problem(700, 9, 30)
    expected = nnls(a, w)
    monkeypatch.setattr(module, "SWEEPS", sweeps)
    assert np.abs(nnls(a, w) - expected).max() < 1e-12
    monkeypatch.setattr(module, "_descended", lambda gram, target, inverse: -target)
    assert np.abs(nnls(a, w) - expected).max() < 1e-12


def test_products_in_pieces_are_products():
    rng = np.random.default_rng(0)
    rows, square = rng.normal(size=(1030, 25)), rng.normal(size=(25, 25))
    for count in (0, 1, 419, 838, 1030):  # pieces have 419 rows
        assert np.allclose(module._times(rows[:count], square), rows[:count] @ square, rtol=1e-12, atol=1e-12)


def test_blocks_that_are_multiplied_at_a_time_do_not_show(monkeypatch):
    a, w = problem(300, 6, 40)
    near = np.concatenate([w, w + 1e-4 * np.random.default_rng(1).random(w.shape)])  # refined on the data
    expected = nnls(a, w), nnls(a, near), kkt_residual(a, w, nnls(a, w) * 1.01)
    monkeypatch.setattr(module, "CELLS", 40 * 7)
    found = nnls(a, w), nnls(a, near), kkt_residual(a, w, nnls(a, w) * 1.01)
    for one, other in zip(found, expected, strict=True):
        assert np.allclose(one, other, rtol=1e-9, atol=1e-9)


def test_rows_that_pivoting_does_not_solve_fall_back(monkeypatch):
    a, w = problem(40, 8, 30)

    def gives_up(gram, target, inverse):
        return np.zeros_like(target), np.arange(len(target)) % 2 == 1

    expected = nnls(a, w)
    monkeypatch.setattr(module, "pivot", gives_up)
    u = nnls(a, w)
    assert np.allclose(u[::2], expected[::2], atol=1e-9)
    assert np.all(u[1::2] == 0)


def test_the_active_set_method_ends_on_singular_gram_matrices():
    rng = np.random.default_rng(0)
    w = rng.random((3, 10))
    w = np.concatenate([w, w, w[:1] + w[1:2]])
    for row in rng.normal(size=(50, 10)):
        u = active_set(w @ w.T, w @ row)
        assert np.all(u >= 0)
        assert np.square(row - u @ w).sum() <= scipy_nnls(w.T, row)[1] ** 2 * (1 + 1e-9) + 1e-12


def test_the_residual_sees_what_is_not_optimal():
    a, w = problem(20, 5, 30)
    u = nnls(a, w)
    wrong = u * 1.001
    residual = kkt_residual(a, w, wrong)
    gradient = (wrong @ w - a) @ w.T / np.linalg.norm(w, axis=1) / np.linalg.norm(a, axis=1, keepdims=True)
    literal = np.where(wrong > 0, np.abs(gradient), np.maximum(-gradient, 0)).max(axis=1)
    assert np.allclose(residual, literal, rtol=1e-9, atol=1e-15)
    assert residual.max() > 1e-4


@settings(max_examples=150, deadline=None)
@given(
    arrays(np.float64, (6, 4), elements=st.floats(-2, 2).map(lambda x: round(x, 2))),
    arrays(np.float64, (3, 4), elements=st.floats(-2, 2).map(lambda x: round(x, 2))),
)
def test_any_small_problem_is_solved_to_scipys_objective(w, a):
    u = nnls(a, w)
    assert np.all(u >= 0)
    lengths = np.linalg.norm(w, axis=1)
    for row, coefficients in zip(a, u, strict=True):
        # Not the norm that scipy returns with it, which can be too small by 1e-5 where W is ill-conditioned.
        expected = scipy_nnls(w.T, row)[0]
        best = np.square(row - expected @ w).sum()
        # The ridge of a singular bank, at most k / 1e13, costs that much of the solution's square; W has mixed signs
        # here, where solutions may be as long as they like.
        ridge = 6e-13 * np.square(expected * lengths).sum()
        assert np.square(row - coefficients @ w).sum() <= best + ridge + 1e-9 * (1 + np.square(row).sum())


def test_what_does_not_fit_is_an_error():
    a, w = problem(3, 2, 5)
    with pytest.raises(InputError, match=r"\(3, 5\).*\(2, 4\)"):
        nnls(a, w[:, :4])
    with pytest.raises(InputError, match="nan"):
        nnls(np.where(a == a[0, 0], np.nan, a), w)
    late = np.ones((10_000, 5))
    late[9_000, 3] = np.inf
    with pytest.raises(InputError, match=r"1 values that are not finite \(inf\)"):
        nnls(late, w)
    with pytest.raises(InputError, match="inf"):
        kkt_residual(late, w, np.zeros((10_000, 2)))
    with pytest.raises(InputError, match="concept bank"):
        nnls(a, w * np.inf)
    with pytest.raises(InputError, match="-1"):
        nnls(a, w, ridge=-1)

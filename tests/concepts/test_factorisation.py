import warnings

import numpy as np
import pytest
from sklearn.decomposition import NMF
from sklearn.exceptions import ConvergenceWarning

from craft_onnx.concepts.factorisation import check_activations, encode, encode_as_sklearn, factorise, relative_error
from craft_onnx.concepts.nnls import kkt_residual, nnls
from craft_onnx.errors import InputError


def activations(n=300, p=80, k=6, noise=0.05, seed=0):
    rng = np.random.default_rng(seed)
    u, w = rng.gamma(0.4, 1.0, (n, k)), rng.gamma(0.4, 1.0, (k, p))
    return (u @ w + noise * rng.gamma(1.0, 1.0, (n, p))).astype(np.float32)


@pytest.mark.parametrize("scale", [1e-4, 1e-2, 1e2, 1e4])
def test_it_is_free_of_the_scale_of_the_activations(scale):
    a = activations()
    one, other = factorise(a, 6), factorise(a * np.float32(scale), 6)
    # A in float32 differs by its rounding, 6e-8, which the iterations amplify a little.
    assert np.abs(one.w - other.w).max() < 1e-6
    assert other.relative_error == pytest.approx(one.relative_error, rel=1e-5)
    assert np.allclose(other.u / scale, one.u, rtol=1e-3, atol=1e-4)


def test_concepts_have_unit_length_and_u_is_the_exact_solution():
    a = activations()
    found = factorise(a, 6)
    assert np.allclose(np.linalg.norm(found.w, axis=1), 1, atol=1e-6)
    assert np.abs(found.u - nnls(a, found.w)).max() < 1e-5  # stored as float32
    assert found.kkt_residual == pytest.approx(kkt_residual(a, found.w, nnls(a, found.w)).max())
    assert found.kkt_residual < 1e-12


def test_the_error_is_the_frobenius_norm_of_the_rest():
    a = activations()
    found = factorise(a, 6)
    literal = np.linalg.norm(a - found.u.astype(float) @ found.w) / np.linalg.norm(a.astype(float))
    assert found.relative_error == pytest.approx(literal, rel=1e-5)
    assert relative_error(np.zeros((2, 3)), np.zeros((2, 1)), np.zeros((1, 3))) == 0


def test_it_recovers_a_matrix_of_low_rank():
    found = factorise(activations(noise=0.0), 6)
    assert found.relative_error < 2e-3  # the penalty of alpha_W = 1e-2 alone costs 0.02..0.7


def test_exact_coefficients_are_not_worse_than_the_solvers():
    a = activations()
    found = factorise(a, 6)
    theirs = encode_as_sklearn(a, found.w, 0.0)
    assert relative_error(a, nnls(a, found.w), found.w) <= relative_error(a, theirs, found.w) + 1e-9


def test_convergence_is_recorded_without_a_warning():
    a = activations()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stopped = factorise(a, 6, max_iter=3)
        assert not stopped.converged and stopped.n_iter == 3
        assert factorise(a, 6).converged


def test_the_same_seed_gives_the_same_concepts():
    a = activations(n=2000)
    assert np.array_equal(factorise(a, 6, random_state=5).w, factorise(a, 6, random_state=5).w)


def test_with_the_peers_settings_it_is_scikit_learn_itself():
    a = activations(noise=0.5)
    nmf = NMF(n_components=5, alpha_W=1e-2, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        u = nmf.fit_transform(a)
        transformed = nmf.transform(a)
    found = factorise(a, 5, 1e-2, False, encoder="sklearn", tol=1e-4, max_iter=200)
    assert np.array_equal(found.w, nmf.components_)
    assert np.array_equal(found.u, u)
    assert np.array_equal(encode(a, found.w, "sklearn", 1e-2), transformed)


def test_one_concept_and_as_many_as_fit():
    a = activations(n=7, p=5, k=3)
    assert factorise(a, 1).w.shape == (1, 5)
    assert factorise(a, 5).u.shape == (7, 5)


@pytest.mark.parametrize("k", [0, 6, 8])
def test_a_number_of_concepts_that_does_not_fit(k):
    with pytest.raises(InputError, match=rf"^{k} concepts .* 7 crops with 5 channels"):
        factorise(activations(n=7, p=5, k=3), k)


def test_activations_that_are_negative_not_finite_or_zero():
    a = activations()
    with pytest.raises(InputError, match=r"negative \(lowest -0\.25\)"):
        factorise(np.where(a == a[2, 3], -0.25, a), 3)
    with pytest.raises(InputError, match="3 values that are not finite"):
        broken = a.copy()
        broken[0, :2], broken[1, 1] = np.nan, np.inf
        factorise(broken, 3)
    with pytest.raises(InputError, match=r"All 4 x 5 activations are zero"):
        factorise(np.zeros((4, 5)), 2)
    check_activations(np.zeros((4, 5)))  # a picture without any concept is no mistake


def test_an_unknown_encoder():
    with pytest.raises(InputError, match="'pca'"):
        encode(activations(), np.ones((2, 80)), "pca")

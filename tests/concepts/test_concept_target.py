"""A concept as a target: its value, its derivative in every shape of activations, and whole maps by PyTorch."""

from copy import deepcopy

import numpy as np
import pytest

import craft_onnx as co
from craft_onnx.concepts.concept_target import ConceptTarget
from craft_onnx.concepts.factorisation import encode_as_sklearn
from craft_onnx.concepts.nnls import nnls
from craft_onnx.errors import InputError

SHAPES = {"rows": ((7,), 1), "tokens": ((5, 7), 2), "channels first": ((7, 3, 4), 1), "channels last": ((3, 4, 7), -1)}


def bank(k=4, p=7, seed=0):
    w = np.random.default_rng(seed).exponential(size=(k, p))
    return w / np.linalg.norm(w, axis=1, keepdims=True)


def activations(shape, n=3, seed=1):
    """Not zero anywhere: a position without activations is a kink."""
    return np.random.default_rng(seed).exponential(size=(n, *shape))


@pytest.mark.parametrize("ridge", [0.0, 0.4])
@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("concepts", [2, [3, 0, 2]])
def test_value_and_derivative(kind, concepts, ridge):
    shape, axis = SHAPES[kind]
    y, w, rows = activations(shape), bank(), np.arange(3)
    target = ConceptTarget(w, concepts, axis, ridge)
    u = nnls(np.moveaxis(y, axis, -1).reshape(-1, 7), w, ridge).reshape(3, -1, 4)
    expected = [u[i, :, np.broadcast_to(concepts, 3)[i]].mean() for i in range(3)]
    np.testing.assert_allclose(target.value(y, rows), expected, rtol=1e-12)
    found = target.cotangent(y, rows)
    assert found.shape == y.shape and found.any()
    rng = np.random.default_rng(2)
    for _ in range(5):
        direction = rng.normal(size=y.shape)
        step = 1e-7 * direction  # so short that hardly a support changes on the way
        change = (target.value(y + step, rows) - target.value(y - step, rows)) / 2e-7
        np.testing.assert_allclose((found * direction).reshape(3, -1).sum(axis=1), change, rtol=1e-5, atol=1e-7)


def test_rows_say_which_input_a_row_stems_from():
    y, w = activations((7, 3, 4), n=4), bank()
    several = ConceptTarget(w, [3, 0]).value(y, np.array([1, 0, 1, 1]))
    single = [ConceptTarget(w, k).value(y[i : i + 1], np.zeros(1, int))[0] for i, k in enumerate([0, 3, 0, 0])]
    np.testing.assert_allclose(several, single, rtol=1e-12)


def test_nothing_comes_back_from_where_the_concept_is_absent():
    y, w = activations((7, 3, 4)), bank()
    u = nnls(np.moveaxis(y, 1, -1).reshape(-1, 7), w).reshape(3, 3, 4, 4)
    absent = u[..., 1] == 0
    found = np.moveaxis(ConceptTarget(w, 1).cotangent(y, np.arange(3)), 1, -1)
    assert 0 < absent.sum() < absent.size
    assert not found[absent].any() and found[~absent].any(axis=-1).all()


def test_a_concept_that_is_not_there():
    with pytest.raises(InputError, match="no concept 4 among 4"):
        ConceptTarget(bank(), 4).value(activations((7,)), np.arange(3))


def test_the_ridge_of_xplique_is_alpha_times_the_channels():
    """What scikit-learn's encoder converges to is non-negative least squares with this ridge."""
    pytest.importorskip("sklearn")
    a, w = 3 * activations((7,), n=20), bank()
    np.testing.assert_allclose(
        encode_as_sklearn(a, w, 1e-2, tol=1e-14, max_iter=5000), nnls(a, w, 1e-2 * 7), rtol=1e-6, atol=1e-7
    )


@pytest.fixture(scope="module")
def network():
    pytest.importorskip("torch")
    from support.torch_model import TorchModel, small_halves

    return TorchModel(*small_halves())


@pytest.fixture(scope="module")
def inputs():
    return np.random.default_rng(1).standard_normal((5, 3, 12, 12)).astype(np.float32)


def through_the_support(network, x, w, ridge, concepts):
    """Gradients by PyTorch alone: on the support that the solution has, least squares is a linear system."""
    import torch

    x = torch.from_numpy(x).double().requires_grad_()
    rows = deepcopy(network._g).double()(x).permute(0, 2, 3, 1).reshape(-1, w.shape[1])
    bank = torch.from_numpy(w)
    values = []
    for row, u in zip(rows, nnls(rows.detach().numpy(), w, ridge), strict=True):
        s = np.flatnonzero(u)
        solved = torch.linalg.solve(bank[s] @ bank[s].T + ridge * torch.eye(len(s)).double(), bank[s] @ row)
        values.append(torch.zeros(len(w)).double().index_put((torch.from_numpy(s),), solved))
    means = torch.stack(values).reshape(len(x), -1, len(w)).mean(dim=1)
    return torch.autograd.grad(means[range(len(x)), concepts].sum(), x)[0].numpy()


@pytest.mark.parametrize("ridge", [0.0, 0.2])
def test_the_whole_map_is_that_of_autograd(network, inputs, ridge):
    w, concepts = bank(k=5, p=8, seed=4), [0, 1, 2, 3, 4]
    expected = through_the_support(network, inputs, w, ridge, concepts)
    found = co.attribute(network, inputs, ConceptTarget(w, concepts, ridge=ridge), "gradient_input", channels=None)
    # The network in float32; a ReLU at zero may fall on either side of it.
    np.testing.assert_allclose(found.maps, inputs * expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("method", ["saliency", "gradient_input", "guided_backprop", "reciprocam"])
def test_with_a_concept_for_every_channel_it_is_the_gradient_of_the_channel(network, inputs, method):
    channels = [0, 3, 5, 7, 2]
    found = co.attribute(network, inputs, ConceptTarget(np.eye(8), channels), method)
    expected = co.attribute(network, inputs, co.Channel(channels), method)
    np.testing.assert_allclose(found.maps, expected.maps, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(found.values, expected.values, rtol=1e-6)


def test_the_map_of_an_absent_concept_is_empty(network, inputs):
    shades = np.concatenate([shade + 0.1 * inputs[:1] for shade in np.linspace(-9, 9, 13, dtype=np.float32)])
    dead = np.argwhere(network.g(shades).max(axis=(2, 3)) == 0)
    assert len(dead)
    one, channel = shades[dead[0, 0]][None], dead[0, 1]
    for method in ("saliency", "integrated_gradients", "smoothgrad", "gradcam"):
        options = {"samples": 2, "stdev": 0.0} if method == "smoothgrad" else {}
        found = co.attribute(network, one, ConceptTarget(np.eye(8), int(channel)), method, **options)
        assert found.values[0] == 0 and (method == "integrated_gradients" or not found.maps.any())


def test_integrated_gradients_add_up(network, inputs):
    target = ConceptTarget(bank(k=5, p=8, seed=4), 2)
    found = co.attribute(network, inputs, target, steps=300)
    start = target.value(network.g(np.zeros_like(inputs)), np.arange(5))
    np.testing.assert_allclose(
        found.maps.sum(axis=(1, 2)), found.values - start, atol=2e-3 * np.abs(found.values).max()
    )

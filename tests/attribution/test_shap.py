import itertools
from math import comb

import numpy as np
import pytest
import torch

from craft_onnx.attribution import shap
from craft_onnx.attribution.registry import methods
from craft_onnx.attribution.segments import grid
from craft_onnx.attribution.shap import kernel_shap
from craft_onnx.errors import InputError

RNG = np.random.default_rng(0)


def shapley(value, k):
    """Exact Shapley values of a function of sets, by definition."""
    phi = np.zeros(k)
    for i in range(k):
        others = [j for j in range(k) if j != i]
        for size in range(k):
            weight = 1 / (k * comb(k - 1, size))
            for members in itertools.combinations(others, size):
                phi[i] += weight * (value({*members, i}) - value(set(members)))
    return phi


def network(x):
    """A smooth function with interactions between all pixels."""
    flat = x.reshape(len(x), -1).astype(float)
    rng = np.random.default_rng(3)
    hidden = np.tanh(flat @ rng.normal(size=(flat.shape[1], 7)) / 3)
    return np.stack([hidden.sum(1) ** 2, hidden.prod(1) + hidden[:, 0]], axis=1)


@pytest.mark.parametrize("segments", [(1, 2), 2, (2, 4), (1, 7)])
def test_all_coalitions_give_exact_shapley_values(segments):
    x = RNG.normal(size=(2, 3, 6, 8))
    labels = grid((6, 8), *np.broadcast_to(segments, 2).tolist())
    k = labels.max() + 1
    coalitions, weights = shap.draw(k, 1000)
    assert len(coalitions) == 2**k and len(np.unique(coalitions, axis=0)) == 2**k
    for row in range(2):

        def value(shown, row=row):
            return network(np.where(np.isin(labels, list(shown)), x[row], 0.5)[None])[0, row]

        values = np.array([value(set(np.flatnonzero(one))) for one in coalitions])
        np.testing.assert_allclose(shap.fit(coalitions, weights, values), shapley(value, k), atol=1e-8)
        maps = kernel_shap(network, x, [0, 1], segments=segments, n_samples=1000, baseline=0.5)
        found = np.bincount(labels.ravel(), weights=maps[row].ravel())
        np.testing.assert_allclose(found, shapley(value, k), atol=1e-6)  # maps are float32


def test_linear_models_are_explained_exactly_by_few_samples():
    weights, x = RNG.normal(size=(3, 8, 8)), RNG.normal(size=(1, 3, 8, 8))
    maps = kernel_shap(lambda rows: (rows * weights).sum(axis=(1, 2, 3))[:, None], x, 0, segments=8, n_samples=128)
    np.testing.assert_allclose(maps[0], (x[0] * weights).sum(axis=0), atol=1e-6)


@pytest.mark.parametrize("n_samples", [40, 200, 1000])
def test_completeness_holds_whatever_is_sampled(inputs, model, n_samples):
    maps, residual = methods()["kernel_shap"].run(model, inputs, 1, segments=4, n_samples=n_samples)
    logits, empty = model.predict(inputs)[:, 1], model.predict(0 * inputs)[:, 1]
    np.testing.assert_allclose(maps.sum(axis=(1, 2)), logits - empty, atol=1e-6)
    assert residual.max() < 1e-4  # relative to a change that may be small


def test_a_map_that_misses_its_sum_has_a_residual():
    residual = shap._residual(np.full((2, 2, 2), 0.25), np.array([1.0, 2.0]))
    np.testing.assert_allclose(residual, [0, 0.5])


@pytest.mark.parametrize("k, n_samples", [(1, 10), (2, 2), (3, 6), (7, 126), (7, 40), (12, 100), (13, 500), (64, 2048)])
def test_weights_follow_the_shapley_kernel(k, n_samples):
    """The weights of all coalitions of a size add up to their share; sampled sizes do so on average."""
    coalitions, weights = shap.draw(k, n_samples)
    assert not coalitions[0].any() and coalitions[1].all() and len(coalitions) <= n_samples + 2
    assert weights.sum() == pytest.approx(1 if k > 1 else 0)
    total = sum(1 / (size * (k - size)) for size in range(1, k))
    sizes = coalitions.sum(axis=1)
    for size in range(1, k):
        of_size = sizes == size
        if of_size.sum() == comb(k, size) and len(np.unique(coalitions[of_size], axis=0)) == of_size.sum():
            assert weights[of_size].sum() == pytest.approx(1 / (size * (k - size)) / total, rel=1e-9)
    assert (sizes[2:] > 0).all() and (sizes[2:] < k).all()


def test_random_coalitions_come_in_pairs_with_sizes_by_weight():
    mass = {size: 1 / (size * (10 - size)) for size in range(3, 8)}
    drawn = shap._random(10, mass, 50000, np.random.default_rng(0))
    assert np.array_equal(drawn[::2], ~drawn[1::2])
    counts = np.bincount(drawn.sum(axis=1), minlength=11)[3:8] / len(drawn)
    np.testing.assert_allclose(counts, np.array(list(mass.values())) / sum(mass.values()), atol=0.008)
    np.testing.assert_allclose(drawn.mean(axis=0), 0.5, atol=1e-12)


def test_it_is_captums_where_that_takes_all_coalitions(model, inputs):
    """Captum draws coalitions at random: with 3 segments and many samples it has seen them all."""
    attr = pytest.importorskip("captum.attr")
    x, labels = inputs[:1], (np.arange(144) // 48).reshape(12, 12)
    torch.manual_seed(0)
    method = attr.KernelShap(lambda rows: torch.from_numpy(model.predict(rows.detach().numpy())))
    segments = torch.from_numpy(labels)
    expected = method.attribute(torch.from_numpy(x), target=2, feature_mask=segments, n_samples=3000)
    maps = kernel_shap(model, x, 2, segments=labels)
    np.testing.assert_allclose(maps[0] * 48, expected[0, 0].numpy(), atol=2e-3)  # its coalitions' weights are random


def test_segments_may_differ_from_input_to_input(model, inputs):
    labels = np.stack([np.arange(144).reshape(12, 12) // 48, np.arange(144).reshape(12, 12) // 29])
    maps = kernel_shap(model, inputs[:2], 0, segments=labels)
    for i in range(2):
        alone = kernel_shap(model, inputs[i : i + 1], 0, segments=labels[i])
        np.testing.assert_allclose(maps[i], alone[0], atol=1e-6)


def test_too_few_samples_are_refused(model, inputs):
    with pytest.raises(InputError, match="20 samples do not determine 16 values"):
        kernel_shap(model, inputs, 0, segments=4, n_samples=20)

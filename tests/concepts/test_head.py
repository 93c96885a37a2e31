import dataclasses
import tracemalloc

import numpy as np
import pytest

import craft_onnx.graph.head as graph_head_module
from craft_onnx.concepts.halves import find_halves
from craft_onnx.concepts.head import ConceptHead, folded_head
from craft_onnx.concepts.importance import Sampling, local_importance
from craft_onnx.errors import CheckFailed, InputError
from craft_onnx.runtime.model import SplitModel

POSITIONS = (10, 8)
EXPECTED = {"linear": (True, True), "mlp": (True, False), "positions": (False, True), "conv": (False, False)}


@pytest.fixture(scope="module")
def bank():
    return np.random.default_rng(0).random((4, 24)).astype(np.float32)


def fold(bundle, bank, class_id=2):
    halves = find_halves(SplitModel(bundle))
    return halves, folded_head(halves, bank, class_id, "NCHW", POSITIONS, 16)


def literal(halves, u, bank, class_id=2):
    """h(u W)[class], position by position."""
    activations = np.empty((*u.shape[:-1], bank.shape[1]), np.float32)
    for index in np.ndindex(u.shape[:-1]):
        activations[index] = sum(u[index][i] * bank[i] for i in range(len(bank)))
    return halves.h(activations.transpose(0, 3, 1, 2))[:, class_id]


@pytest.mark.parametrize("kind", list(EXPECTED))
def test_the_folded_head_is_h_of_the_reconstruction(kind, bundles, bank):
    halves, proven = fold(bundles[kind], bank)
    assert (proven.head.pooled, proven.head.linear) == EXPECTED[kind]
    u = np.random.default_rng(1).random((3, *POSITIONS, 4)).astype(np.float32)
    expected = literal(halves, u, bank)
    # float32 through three layers
    assert np.abs(proven.head(proven.head.reduced(u)) - expected).max() < 1e-5 * np.abs(expected).max()
    assert proven.error < 1e-5


@pytest.mark.parametrize("kind", ["linear", "positions"])
def test_effects_are_exact(kind, bundles, bank):
    _, proven = fold(bundles[kind], bank)
    u = np.random.default_rng(1).random((5, *POSITIONS, 4)).astype(np.float32)
    reduced = proven.head.reduced(u)
    effects, bias = proven.head.effects(reduced.shape[1:-1])
    found = (reduced * effects).reshape(5, -1).sum(axis=1) + bias
    assert np.allclose(found, proven.head(reduced), rtol=1e-5, atol=1e-5)


def test_effects_of_a_head_that_is_not_linear(bundles, bank):
    _, proven = fold(bundles["mlp"], bank)
    with pytest.raises(CheckFailed, match="not linear"):
        proven.head.effects()


@pytest.mark.parametrize("kind", list(EXPECTED))
def test_masks_multiply_whole_concepts(kind, bundles, bank):
    halves, proven = fold(bundles[kind], bank)
    u = np.random.default_rng(1).random((1, *POSITIONS, 4)).astype(np.float32)
    masks = np.random.default_rng(2).random((7, 4)).astype(np.float32)
    found = proven.head.masked(proven.head.reduced(u)[0], masks)
    expected = [literal(halves, u * mask, bank)[0] for mask in masks]
    assert np.allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_a_wrong_fold_is_found(bundles, bank, monkeypatch):
    fold_concepts = graph_head_module.fold_concepts

    def off_by_a_thousandth(h, w, class_id, axis):
        return dataclasses.replace(fold_concepts(h, w * 1.001, class_id, axis))

    monkeypatch.setattr(graph_head_module, "fold_concepts", off_by_a_thousandth)
    with pytest.raises(CheckFailed, match="is off by"):
        fold(bundles["conv"], bank)


def test_batches_are_bounded(bank):
    seen = []

    def evaluate(u):
        seen.append(len(u))
        return u.reshape(len(u), -1).sum(axis=1)

    head = ConceptHead(evaluate, 4, pooled=False, linear=False, batch_size=16)
    assert np.array_equal(head.masked(np.ones((3, 4), np.float32), np.ones((50, 4), np.float32)), np.full(50, 12.0))
    assert seen == [16, 16, 16, 2]
    assert ConceptHead(evaluate, 4, pooled=False, linear=False).rows((1000, 1000)) == 4


def test_memory_of_evaluating_a_head_does_not_grow_with_the_design():
    """h of a callable sees the reconstruction itself, 0.5 MB an evaluation here; 1024 points ask for 5120 of them."""
    calls = []

    def h(a):
        calls.append(len(a))
        return np.tanh(a).mean(axis=(2, 3))

    bank = np.random.default_rng(0).random((4, 512), np.float32)
    halves = find_halves(lambda x: x, h)
    head = folded_head(halves, bank, 0, "NCHW", (16, 16), 8).head
    u = np.random.default_rng(1).random((1, 16, 16, 4)).astype(np.float32)

    def peak(points):
        tracemalloc.start()
        sampled = local_importance(head, u, Sampling(nb_design=points).draw(4, 1), Sampling(nb_design=points))
        result = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return result, sampled

    peak(4)  # what is imported on the way
    (few, _), (many, found) = peak(32), peak(256)
    # 16 MB of activations and as much for tanh; coefficients of a batch of masks are 16 MB at most.
    assert found.evaluations > 1280 and max(calls) == 8
    assert many < 60e6 and many - few < 20e6


def test_onnx_files_beside_each_other_fold_too(bundles, bank):
    folder = bundles["linear"].folder
    manifest = bundles["linear"].manifest
    cut = next(iter(manifest.cuts))
    g, h = (folder / manifest.graph(role, cut).file for role in ("g", "h"))
    halves = find_halves(str(g), str(h))
    proven = folded_head(halves, bank, 2, "NCHW", POSITIONS, 16)
    assert proven.head.pooled and proven.head.linear
    assert halves.provider == "cpu"


def test_classes_that_are_not_there(bundles, bank, weights, small_net):
    with pytest.raises(InputError, match="5"):
        fold(bundles["linear"], bank, class_id=5)
    halves = find_halves(small_net.first_half(weights), small_net.second_half(weights, "linear"))
    with pytest.raises(InputError, match="no class 5"):
        folded_head(halves, bank, 5, "NCHW", POSITIONS, 16).head(np.ones((1, *POSITIONS, 4), np.float32))
    with pytest.raises(InputError, match="no second half"):
        folded_head(find_halves(lambda x: x), bank, 0, "NCHW", POSITIONS, 16).head(np.ones((1, 4), np.float32))

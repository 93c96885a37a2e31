import numpy as np
import pytest

from craft_onnx.attribution.perturbation import Perturbed, batched_pieces, blend
from craft_onnx.attribution.targets import Logit


def test_pieces_fill_batches_across_inputs():
    pieces = list(batched_pieces([3, 5, 1], 4))
    assert pieces == [
        [(0, slice(0, 3)), (1, slice(0, 1))],
        [(1, slice(1, 5))],
        [(2, slice(0, 1))],
    ]


@pytest.mark.parametrize("counts, size", [([7], 3), ([1, 1, 1, 1], 3), ([0, 4, 0, 2], 3), ([2, 3], 100), ([], 4)])
def test_pieces_cover_everything_once_in_order(counts, size):
    batches = list(batched_pieces(counts, size))
    assert all(sum(which.stop - which.start for _, which in batch) == size for batch in batches[:-1])
    listed = [(row, i) for batch in batches for row, which in batch for i in range(which.start, which.stop)]
    assert listed == [(row, i) for row, count in enumerate(counts) for i in range(count)]


@pytest.mark.parametrize("kind", [bool, np.float32])
def test_a_mask_of_ones_shows_the_input_and_of_zeros_the_baseline(kind):
    rng = np.random.default_rng(0)
    x, baseline = rng.normal(size=(2, 3, 4, 5)).astype(np.float32)
    out = np.empty((2, 3, 4, 5), np.float32)
    mask = np.stack([np.ones((1, 4, 5)), np.zeros((1, 4, 5))]).astype(kind)
    blend(x, baseline, mask, out)
    np.testing.assert_allclose(out[0], x, rtol=0, atol=5e-7)  # the baseline is subtracted and added, in float32
    assert np.array_equal(out[1], baseline)


def test_masks_blend_linearly():
    rng = np.random.default_rng(0)
    x, baseline = rng.normal(size=(2, 4, 5, 3))
    mask, out = rng.random((6, 4, 5, 1)), np.empty((6, 4, 5, 3))
    blend(x, baseline, mask, out)
    np.testing.assert_allclose(out, mask * x + (1 - mask) * baseline, rtol=1e-12)


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_every_value_comes_with_its_input_and_mask(batch_size):
    rng = np.random.default_rng(2)
    x = rng.normal(size=(3, 3, 4, 4))
    masks = [rng.random((count, 4, 4)) for count in (2, 5, 3)]
    weights = rng.normal(size=(48, 2))
    look = Perturbed(Model(weights), x, Logit([0, 1, 0]), 0.5)
    values = look.values([2, 5, 3], lambda row, which: masks[row][which], batch_size)
    for row in range(3):
        copies = masks[row][:, None] * x[row] + (1 - masks[row][:, None]) * 0.5
        np.testing.assert_allclose(values[row], (copies.reshape(len(copies), -1) @ weights)[:, [0, 1, 0][row]])


class Model:
    layout = "NCHW"

    def __init__(self, weights):
        self.weights = weights

    def predict(self, x, batch_size=16):
        return x.reshape(len(x), -1) @ self.weights

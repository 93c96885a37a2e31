import cv2
import numpy as np
import pytest

from craft_onnx.attribution.coalitions import painted, spread
from craft_onnx.attribution.segments import connected, grid, relabelled, segment_means, segments_of, slic
from craft_onnx.errors import InputError

RNG = np.random.default_rng(0)


def pieces(labels):
    return [
        cv2.connectedComponents((labels == one).astype(np.uint8), connectivity=4)[0] - 1 for one in np.unique(labels)
    ]


@pytest.mark.parametrize("size, rows, columns", [((12, 12), 3, 4), ((7, 11), 3, 5), ((5, 4), 5, 4), ((9, 9), 1, 1)])
def test_grids_are_even(size, rows, columns):
    labels = grid(size, rows, columns)
    assert labels.shape == size and np.array_equal(np.unique(labels), np.arange(rows * columns))
    assert set(pieces(labels)) == {1}
    for side, count, axis in zip(size, (rows, columns), (labels[:, 0] // columns, labels[0] % columns), strict=True):
        assert set(np.bincount(axis)) <= {side // count, -(-side // count)}


def test_slic_finds_regions_of_one_colour():
    truth = np.zeros((40, 48), int)
    truth[10:30, 14:37] = 1
    truth[:6] = 2
    colours = np.array([[0.1, 0.2, 0.3], [0.9, 0.3, 0.1], [0.2, 0.8, 0.4]])
    labels = slic(colours[truth] + RNG.normal(0, 0.01, (40, 48, 3)), count=30)
    assert 15 < labels.max() + 1 <= 36 and set(pieces(labels)) == {1}
    assert np.array_equal(np.unique(labels), np.arange(labels.max() + 1))
    majority = np.array([np.bincount(truth[labels == one]).argmax() for one in range(labels.max() + 1)])
    assert (majority[labels] == truth).mean() > 0.99


def test_slic_without_colours_is_nearly_a_grid_and_takes_any_channels():
    labels = slic(np.zeros((30, 30, 1)), count=9)
    assert np.array_equal(labels, grid((30, 30), 3, 3))
    assert slic(RNG.random((20, 20, 4))).shape == (20, 20)


def test_fragments_go_to_neighbours():
    labels = np.zeros((6, 8), int)
    labels[:, 4:] = 1
    labels[2, 1] = 1  # apart from the rest of 1
    fixed = connected(labels)
    assert fixed[2, 1] == 0 and set(pieces(fixed)) == {1}
    labels[2, 1] = 0
    assert np.array_equal(fixed, labels)


def test_means_of_segments():
    features, labels = RNG.normal(size=(50, 3)), RNG.integers(0, 4, 50)
    means = segment_means(features, labels, 5)
    for label in range(4):
        np.testing.assert_allclose(means[label], features[labels == label].mean(axis=0), rtol=1e-12)
    assert not means[4].any()


def test_segments_as_a_user_gives_them():
    x = RNG.random((2, 3, 8, 8)).astype(np.float32)
    assert np.array_equal(segments_of(x, 4, (1, 2, 3))[1], grid((8, 8), 4, 4))
    assert np.array_equal(segments_of(x, (2, 4), (1, 2, 3))[0], grid((8, 8), 2, 4))
    own = np.where(np.arange(64).reshape(8, 8) < 20, 7, -3)
    assert [one.max() for one in segments_of(x, own, (1, 2, 3))] == [1, 1]
    several = segments_of(x, np.stack([own, np.arange(64).reshape(8, 8)]), (1, 2, 3))
    assert [one.max() for one in several] == [1, 63]
    channels_last = segments_of(x.transpose(0, 2, 3, 1), "slic", (3, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(channels_last, segments_of(x, "slic", (1, 2, 3)), strict=True))


def test_labels_close_their_gaps_in_order():
    assert relabelled(np.array([[9, 2], [2, 5]])).tolist() == [[2, 0], [0, 1]]


def test_scores_are_painted_or_spread():
    labels, scores = [np.array([[0, 0], [0, 1]])], [np.array([6.0, 5.0])]
    assert painted(scores, labels).tolist() == [[[6, 6], [6, 5]]]
    assert spread(scores, labels).tolist() == [[[2, 2], [2, 5]]]


@pytest.mark.parametrize("segments", ["quickshift", 9, 0, (1, 2, 3), np.zeros((7, 8)), np.zeros((3, 8, 8))])
def test_segments_that_do_not_fit(segments):
    with pytest.raises(InputError, match=r"segments .quickshift.|do not fit"):
        segments_of(np.zeros((2, 3, 8, 8)), segments, (1, 2, 3))

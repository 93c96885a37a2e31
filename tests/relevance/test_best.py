"""The best samples, against sorting all of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from craft_onnx.relevance.best import NOTHING, Best


def sorted_all(indices, values, positions, count):
    """By Python's sort, of all samples at once."""
    columns = []
    for concept in range(values.shape[1]):
        rows = sorted(range(len(indices)), key=lambda row: (-values[row, concept], indices[row]))[:count]
        columns.append([(indices[row], values[row, concept], positions[row, concept]) for row in rows])
    return columns


@settings(deadline=None)
@given(st.integers(1, 30), st.integers(1, 9), st.integers(1, 7), st.integers(0, 9))
def test_batches_in_any_order_are_all_at_once(samples, batch, count, seed):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 5, (samples, 3)).astype(np.float32)  # with many ties
    positions, indices = rng.integers(0, 99, (samples, 3)), np.arange(samples) * 2
    pieces = [slice(start, start + batch) for start in range(0, samples, batch)]
    found = None
    for piece in rng.permutation(len(pieces)):
        rows = pieces[piece]
        one = Best.of(indices[rows], values[rows], positions[rows], count)
        found = one if found is None else found.merged(one)
    for concept, column in enumerate(sorted_all(indices, values, positions, count)):
        data, rel, rf = found.of_concept(concept, 0, count)
        assert list(zip(data, rel, rf, strict=True)) == column


def test_fewer_samples_than_are_kept():
    best = Best.of(np.array([4]), np.array([[-2.0]]), np.array([[7]]), 3)
    assert best.data[:, 0].tolist() == [4, NOTHING, NOTHING]
    assert best.of_concept(0, 0, 3)[1].tolist() == [-2]
    assert best.data.dtype == best.rf.dtype == np.int64 and best.rel.dtype == np.float32


def test_arrays_and_back():
    best = Best.of(np.arange(5), np.random.default_rng(0).normal(size=(5, 2)), np.zeros((5, 2)), 4)
    again = Best.from_arrays("layer", best.arrays("layer"))
    for name in ("data", "rel", "rf"):
        np.testing.assert_array_equal(getattr(again, name), getattr(best, name))
    with pytest.raises(KeyError):
        Best.from_arrays("other", best.arrays("layer"))

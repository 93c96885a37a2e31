import tracemalloc
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from craft_onnx.errors import CraftError, CraftWarning, InputError
from craft_onnx.runtime.batches import as_array, check_rows, even_size, rebatch, run_array, run_batches
from craft_onnx.runtime.sessions import Session, TensorSpec


class FakeSession:
    """Adds one to its input, records the batches, and has memory for `limit` rows."""

    def __init__(self, limit=10**9, batch=None, error=None, dtype="float32"):
        self.inputs = [TensorSpec("x", dtype, (batch, 2))]
        self.outputs = [TensorSpec("y", dtype, (batch, 2))]
        self.largest_batch = None
        self.limit, self.error, self.seen = limit, error or MemoryError("no"), []

    def run(self, feeds):
        (x,) = feeds.values()
        self.seen.append(len(x))
        assert x.flags.c_contiguous
        assert x.dtype == self.inputs[0].dtype
        if len(x) > self.limit:
            raise self.error
        return [x + 1]


def _rows(n):
    return np.arange(2 * n, dtype=np.float32).reshape(n, 2)


@pytest.mark.parametrize(
    ("rows", "batch_size", "batches"),
    [(3, 16, [3]), (16, 16, [16]), (17, 16, [9, 9]), (48, 16, [16] * 3), (33, 16, [11] * 3), (5, 1, [1] * 5)],
)
def test_an_array_goes_in_few_even_batches(rows, batch_size, batches):
    session = FakeSession()
    np.testing.assert_array_equal(run_array(session, _rows(rows), batch_size), _rows(rows) + 1)
    assert session.seen == batches


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 9), max_size=8), st.integers(1, 7), st.integers(1, 9))
def test_a_stream_in_chunks_of_any_length(chunks, batch_size, limit):
    session = FakeSession(limit)
    x = _rows(sum(chunks))
    parts = np.split(x, np.cumsum(chunks)[:-1]) if chunks else []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        results = list(run_batches(session, iter(parts), batch_size))
    np.testing.assert_array_equal(np.concatenate([np.empty((0, 2)), *results]), x + 1)
    succeeded = {rows for rows in session.seen if rows <= limit}
    assert len(succeeded) <= 1 + len(caught)
    assert all(issubclass(warning.category, CraftWarning) for warning in caught)


def test_the_shape_of_a_batch_is_constant():
    session = FakeSession()
    assert [len(part) for part in run_batches(session, iter([_rows(7), _rows(6)]), 5)] == [5, 5, 3]
    assert session.seen == [5, 5, 5]


def test_a_stream_is_consumed_as_it_is_asked_for():
    drawn = []

    def chunks():
        for i in range(100):
            drawn.append(i)
            yield _rows(4)

    results = run_batches(FakeSession(), chunks(), 4)
    next(results)
    assert len(drawn) == 1


def test_a_fixed_batch_is_filled_up():
    session = FakeSession(batch=4)
    np.testing.assert_array_equal(run_array(session, _rows(6), 16), _rows(6) + 1)
    np.testing.assert_array_equal(run_array(session, iter([_rows(1)]), 2), _rows(1) + 1)
    assert session.seen == [4, 4, 4]


ALLOCATION_ERRORS = [
    MemoryError("no"),
    RuntimeError("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while running Conv node. "
                 "Status Message: bfc_arena.cc:376 Failed to allocate memory for requested buffer of size 2147483648"),
    RuntimeError("BFCArena: Available memory of 1024 is smaller than requested bytes of 4096"),
    RuntimeError("CUDA failure 2: out of memory ; GPU=0"),
    RuntimeError("CUDNN failure 4: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("std::bad_alloc"),
]  # fmt: skip  # one message a line


@pytest.mark.parametrize("error", ALLOCATION_ERRORS)
def test_batches_shrink_once_and_for_all(error):
    session = FakeSession(limit=5, error=error)
    with pytest.warns(CraftWarning, match="A batch of 16 does not fit in memory; 4 rows are run at a time") as caught:
        np.testing.assert_array_equal(run_array(session, _rows(32), 16), _rows(32) + 1)
    assert len(caught) == 1
    assert session.seen == [16, 8] + [4] * 8
    session.seen.clear()
    np.testing.assert_array_equal(run_array(session, _rows(8), 16), _rows(8) + 1)  # a warning would be an error here
    assert session.seen == [4, 4]
    session.limit = 2
    run_array(session, _rows(4), 16)
    assert session.largest_batch == 2


def test_not_even_one_row_fits():
    with pytest.raises(CraftError, match=r"Not even a single row fits in memory \(no\)"):
        run_array(FakeSession(limit=0), _rows(4), 4)
    with pytest.raises(CraftError, match="fixed batch of 4 does not fit"):
        run_array(FakeSession(limit=3, batch=4), _rows(4), 4)


def test_other_errors_are_not_taken_for_memory():
    with pytest.raises(RuntimeError, match="something else"):
        run_array(FakeSession(limit=0, error=RuntimeError("something else")), _rows(4), 4)


def test_an_output_without_a_batch_axis():
    class Sums(FakeSession):
        def run(self, feeds):
            return [feeds["x"].sum(0)]

    with pytest.raises(InputError, match=r"4 rows gave an output of shape \(2,\)"):
        run_array(Sums(), _rows(4), 4)


def test_agrees_with_a_session_run_whole(classifier, pictures):
    session = Session(classifier().SerializeToString(), threads=1)
    expected = session.run({"x": pictures})[0]
    for batch_size in (1, 4, 21, 64):
        np.testing.assert_allclose(run_array(session, pictures, batch_size), expected, rtol=1e-6, atol=1e-6)
    fixed = Session(classifier(4).SerializeToString(), threads=1)
    np.testing.assert_allclose(run_array(fixed, pictures, 16), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 3), np.float32), r"shape \(2, 3\), the model takes \(N, 2, any\)"),
        (np.zeros((2, 3, 4), np.float32), r"shape \(2, 3, 4\)"),
        (np.zeros((2, 9), np.float32), "Add a batch axis"),
        (np.zeros((1, 2, 3, 4), np.float32), "layout and size"),
        (np.zeros((1, 2, 3), np.uint8), r"dtype uint8, the model takes float32.*model\.preprocess"),
        (np.zeros((1, 2, 3), np.int64), "dtype int64"),
    ],
)
def test_refuses_rows_that_do_not_fit(array, message):
    with pytest.raises(InputError, match=message):
        check_rows(array, TensorSpec("x", "float32", (None, 2, None)))


def test_baked_models_take_bytes_only():
    spec = TensorSpec("x", "uint8", (None, 2))
    check_rows(np.zeros((3, 2), np.uint8), spec)
    with pytest.raises(InputError, match="dtype float32, the model takes uint8"):
        check_rows(np.zeros((3, 2), np.float32), spec)


def test_precision_and_order_are_converted_batch_by_batch():
    x = np.asfortranarray(_rows(2000).astype(np.float64))
    for rows in (x, x.astype(np.float16), x.astype(">f4"), x[::-1]):
        np.testing.assert_array_equal(run_array(FakeSession(), rows, 16), rows.astype(np.float32) + 1)


def test_bad_arguments():
    with pytest.raises(InputError, match="batch_size 0"):
        run_array(FakeSession(), _rows(2), 0)
    for empty in (_rows(0), iter([]), iter([_rows(0)])):
        with pytest.raises(InputError, match="no rows"):
            run_array(FakeSession(), empty, 4)
    with pytest.raises(InputError, match="no array of numbers"):
        run_array(FakeSession(), [["a"]], 4)


def test_tensors_of_other_libraries():
    class OnlyDLPack:
        def __init__(self, array):
            self._array = array

        def __dlpack__(self, **arguments):
            return self._array.__dlpack__(**arguments)

        def __dlpack_device__(self):
            return self._array.__dlpack_device__()

        def __len__(self):
            return len(self._array)

    x = _rows(5)
    np.testing.assert_array_equal(run_array(FakeSession(), OnlyDLPack(x), 4), x + 1)
    with pytest.raises(InputError, match=r"cannot be read as an array|no array of numbers"):
        as_array(object())


def test_torch_tensors():
    torch = pytest.importorskip("torch")
    x = _rows(5)
    np.testing.assert_array_equal(run_array(FakeSession(), torch.tensor(x, requires_grad=True), 4), x + 1)
    with pytest.raises(InputError, match="Tensor cannot be read"):
        run_array(FakeSession(), torch.tensor(x).to(torch.bfloat16), 4)


@settings(deadline=None)
@given(st.integers(1, 500), st.integers(1, 64))
def test_even_size(rows, batch_size):
    size = even_size(rows, batch_size)
    assert 1 <= size <= batch_size
    assert -(-rows // size) == -(-rows // batch_size)
    assert size * -(-rows // size) - rows < -(-rows // size)  # less than one row of filling a batch


def test_rebatch_copies_nothing_it_need_not():
    x = _rows(8)
    assert all(np.shares_memory(part, x) for part in rebatch([x], 4))
    assert [len(part) for part in rebatch([x, x[:3]], 4)] == [4, 4, 3]


def test_a_long_stream_needs_no_memory():
    session = FakeSession()
    tracemalloc.start()
    for _ in run_batches(session, (np.zeros((64, 2), np.float32) for _ in range(2000)), 16):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    session.seen.clear()
    assert peak < 500_000  # the whole stream is a megabyte

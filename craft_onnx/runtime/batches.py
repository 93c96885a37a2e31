"""Many rows through a session: batches of one shape, smaller where memory does not suffice."""

import warnings
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from craft_onnx.errors import CraftError, CraftWarning, InputError
from craft_onnx.runtime.sessions import TensorSpec, out_of_memory

BATCH_SIZE = 16  # on a CPU as fast as 64, in half the memory
Array = NDArray[Any]


class Runs(Protocol):
    """What batches need of a session."""

    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    largest_batch: int | None

    def run(self, feeds: dict[str, Array]) -> list[Array]:
        """Outputs for the inputs."""


def as_array(x: Any) -> Array:
    """A numpy array of an array or a tensor, through `__array__` or DLPack, without a copy where it can be avoided.

    Raises
    ------
    InputError
        If `x` is neither.
    """
    if callable(getattr(x, "detach", None)):  # PyTorch: leave the autograd graph and the GPU
        x = x.detach().cpu()
    try:
        array = np.from_dlpack(x) if not hasattr(x, "__array__") and hasattr(x, "__dlpack__") else np.asarray(x)
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        raise InputError(
            f"A {type(x).__name__} cannot be read as an array ({error}).", "Give a numpy array or a tensor on the CPU."
        ) from error
    if array.dtype.kind not in "biuf":
        raise InputError(f"A {type(x).__name__} of dtype {array.dtype} is no array of numbers.", "Give numbers.")
    return array


def check_rows(array: Array, spec: TensorSpec) -> None:
    """Raise InputError unless an array of any number of rows fits an input; lengths open in the input fit anything.

    Floating-point arrays of another precision fit a floating-point input; nothing else is converted.
    """
    wanted = np.dtype(spec.dtype)
    if array.dtype != wanted and not (array.dtype.kind == wanted.kind == "f"):
        raise InputError(
            f"The array for {spec.name!r} has dtype {array.dtype}, the model takes {wanted}.",
            "Pictures become input with model.preprocess(pictures)." if array.dtype == np.uint8 else "Convert it.",
        )
    lengths = zip(array.shape[1:], spec.shape[1:], strict=False)
    if array.ndim != len(spec.shape) or any(wants not in (None, has) for has, wants in lengths):
        single = array.ndim == len(spec.shape) - 1
        raise InputError(
            f"The array for {spec.name!r} has shape {array.shape}, the model takes {_any_rows(spec)}.",
            "Add a batch axis: x[None]." if single else "Give it in the model's layout and size.",
        )


def _any_rows(spec: TensorSpec) -> str:
    return f"({', '.join(['N', *('any' if length is None else str(length) for length in spec.shape[1:])])})"


def run_batches(session: Runs, x: Array | Iterable[Array], batch_size: int = BATCH_SIZE) -> Iterator[Array]:
    """First output of a graph of one input, batch by batch.

    Every batch has the same shape (the last is filled up by repeating its last row, the result cut), so that memory is
    planned and convolutions are chosen once. A batch that does not fit in memory is halved, for this session from then
    on. A graph whose batch is fixed gets its batch.

    Parameters
    ----------
    session : Session
        The graph; the rows of its output belong to the rows of its input.
    x : (n, ...) array or tensor, or iterable of such
        Rows in the model's layout; chunks of any length.
    batch_size : int
        Rows in one run, at most.

    Yields
    ------
    (m, ...) array
        Results in order.

    Raises
    ------
    InputError
        If shape or dtype do not fit.
    CraftError
        If not even one row fits in memory.
    """
    if batch_size < 1:
        raise InputError(f"batch_size {batch_size} is not positive.", "Give at least 1.")
    fixed = session.inputs[0].shape[0]
    size = fixed or min(batch_size, session.largest_batch or batch_size)
    if is_array(x):
        x = as_array(x)
        check_rows(x, session.inputs[0])
        size = fixed or even_size(len(x), size)
        x = [x]
    filled = fixed or 0
    for rows in rebatch(_checked(x, session.inputs[0]), size):
        filled = filled or len(rows)  # a stream shorter than one batch is run as it is
        yield from _run_rows(session, rows, filled)


def run_array(session: Runs, x: Array | Iterable[Array], batch_size: int = BATCH_SIZE) -> Array:
    """`run_batches`, as one array.

    Raises
    ------
    InputError
        If shape or dtype do not fit, or `x` holds no rows.
    CraftError
        If not even one row fits in memory.
    """
    results = run_batches(session, x, batch_size)
    first = next(results, None)
    if first is None:
        raise InputError("The input holds no rows.", "Give at least one picture.")
    if not is_array(x):
        return np.concatenate([first, *results])
    return _gather(first, results, len(x))  # type: ignore[arg-type]  # an array or tensor has a length


def _gather(first: Array, rest: Iterable[Array], rows: int) -> Array:
    """Join results into one array made at once: joining a list of them would need the memory twice."""
    if len(first) == rows:
        return first
    joined = np.empty((rows, *first.shape[1:]), first.dtype)
    joined[: len(first)] = first
    start = len(first)
    for part in rest:
        joined[start : start + len(part)] = part
        start += len(part)
    return joined


def is_array(x: Any) -> bool:
    """Whether `x` is one array or tensor, rather than an iterable of them."""
    return hasattr(x, "__array__") or hasattr(x, "__dlpack__")


def even_size(rows: int, batch_size: int) -> int:
    """The smallest batch that needs no more runs than `batch_size` does: 17 rows go as 9 and 8, not as 16 and 1."""
    runs = -(-rows // batch_size)
    return -(-rows // max(runs, 1)) or batch_size


def _checked(chunks: Iterable[Any], spec: TensorSpec) -> Iterator[Array]:
    for chunk in chunks:
        array = as_array(chunk)
        check_rows(array, spec)
        yield array


def rebatch(chunks: Iterable[Array], size: int) -> Iterator[Array]:
    """Chunks of any length as batches of `size` rows, the last one shorter; nothing is copied that need not be."""
    held: list[Array] = []
    rows = 0
    for chunk in chunks:
        start = 0
        while rows + len(chunk) - start >= size:
            stop = start + size - rows
            yield _join([*held, chunk[start:stop]])
            held, rows, start = [], 0, stop
        if start < len(chunk):
            held.append(chunk[start:])
            rows += len(chunk) - start
    if rows:
        yield _join(held)


def _join(parts: list[Array]) -> Array:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _run_rows(session: Runs, rows: Array, size: int) -> Iterator[Array]:
    """Run rows in batches filled up to `size`, or to what fits."""
    start = 0
    while start < len(rows):
        result, count = _run_fitting(session, rows[start:], min(size, session.largest_batch or size))
        yield result[:count]
        start += count


def _run_fitting(session: Runs, rows: Array, size: int) -> tuple[Array, int]:
    """Run the first rows in one batch of `size`, halved until it fits; the result and how many rows were run."""
    asked = size
    while True:
        try:
            result = session.run({session.inputs[0].name: _filled(rows[:size], size, session.inputs[0].dtype)})[0]
            break
        except Exception as error:  # onnxruntime's exceptions have no common base
            if not out_of_memory(error):
                raise
            size = _half(session, size, error)
    if size < asked:
        _remember(session, asked, size)
    if result.shape[:1] != (size,):
        raise InputError(
            f"{size} rows gave an output of shape {result.shape}.", "Give a graph whose first output axis is the batch."
        )
    return result, min(size, len(rows))


def _filled(rows: Array, size: int, dtype: str) -> Array:
    """Contiguous rows of the graph's dtype, the last one repeated up to `size` rows."""
    if len(rows) < size:
        rows = np.concatenate([rows, np.repeat(rows[-1:], size - len(rows), axis=0)])
    return np.ascontiguousarray(rows, dtype=dtype)


def _half(session: Runs, size: int, error: Exception) -> int:
    if session.inputs[0].shape[0] is not None:
        problem = f"The graph's fixed batch of {size} does not fit in memory ({error})."
        raise CraftError(problem, "Use a graph with an open batch, or a machine with more memory.") from error
    if size == 1:
        problem = f"Not even a single row fits in memory ({error})."
        raise CraftError(problem, "Free memory, or use a machine with more.") from error
    return size // 2


def _remember(session: Runs, asked: int, size: int) -> None:
    first = session.largest_batch is None
    session.largest_batch = size
    if first:
        warnings.warn(
            f"A batch of {asked} does not fit in memory; {size} rows are run at a time.", CraftWarning, stacklevel=2
        )

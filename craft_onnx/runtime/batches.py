"""Many rows through a session: batches of one shape, smaller where memory does not suffice."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from craft_onnx.errors import CraftError, CraftWarning, InputError
from craft_onnx.runtime.failures import out_of_memory
from craft_onnx.runtime.sessions import TensorSpec

BATCH_SIZE = 16  # on a CPU as fast as 64, in half the memory
Array = NDArray[Any]
Rows = tuple[Array, ...]  # an array for every input of a graph, all of the same length


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


def run_batches(
    session: Runs, x: Array | Rows | Iterable[Array | Rows], batch_size: int = BATCH_SIZE
) -> Iterator[Array]:
    """First output of a graph, batch by batch.

    Every batch has the same shape (the last is filled up by repeating its last row, the result cut), so that memory is
    planned and convolutions are chosen once. A batch that does not fit in memory is halved, for this session from then
    on. A graph whose batch is fixed gets its batch.

    Parameters
    ----------
    session : Session
        The graph; the rows of its output belong to the rows of its inputs.
    x : (n, ...) array or tensor, tuple of such, or iterable of either
        Rows in the model's layout; chunks of any length. A graph of several inputs takes tuples, an array for each.
    batch_size : int
        Rows in one run, at most.

    Yields
    ------
    (m, ...) array
        Results in order.

    Raises
    ------
    InputError
        If shape, dtype or numbers of rows do not fit.
    CraftError
        If not even one row fits in memory.
    """
    check_batch_size(batch_size)
    fixed = session.inputs[0].shape[0]
    size = fixed or min(batch_size, session.largest_batch or batch_size)
    if _is_one_chunk(session, x):
        x = [_checked(x, session.inputs)]
        size = fixed or even_size(len(x[0][0]), size)
    filled = fixed or 0
    for rows in rebatch_rows((_checked(chunk, session.inputs) for chunk in x), size):
        filled = filled or len(rows[0])  # a stream shorter than one batch is run as it is
        yield from _run_rows(session, rows, filled)


def run_array(session: Runs, x: Array | Rows | Iterable[Array | Rows], batch_size: int = BATCH_SIZE) -> Array:
    """`run_batches`, as one array.

    Raises
    ------
    InputError
        If shape, dtype or numbers of rows do not fit, or `x` holds no rows.
    CraftError
        If not even one row fits in memory.
    """
    results = run_batches(session, x, batch_size)
    first = next(results, None)
    if first is None:
        raise InputError("The input holds no rows.", "Give at least one picture.")
    if not _is_one_chunk(session, x):
        return np.concatenate([first, *results])
    return _gather(first, results, len(x if is_array(x) else x[0]))  # type: ignore[arg-type,index]  # one chunk


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


def _is_one_chunk(session: Runs, x: Any) -> bool:
    """Whether `x` is all the rows at once; for a graph of one input a tuple is a stream of chunks."""
    return is_array(x) or (isinstance(x, tuple) and len(session.inputs) > 1)


def even_size(rows: int, batch_size: int) -> int:
    """The smallest batch that needs no more runs than `batch_size` does: 17 rows go as 9 and 8, not as 16 and 1."""
    runs = -(-rows // batch_size)
    return -(-rows // max(runs, 1)) or batch_size


def _checked(chunk: Any, specs: Sequence[TensorSpec]) -> Rows:
    """The arrays of a chunk, one for every input; InputError unless they fit these, and one another."""
    parts = chunk if isinstance(chunk, tuple) else (chunk,)
    if len(parts) != len(specs):
        names = ", ".join(spec.name for spec in specs)
        raise InputError(f"{len(parts)} arrays were given for the inputs {names}.", "Give one for each.")
    arrays = tuple(as_array(part) for part in parts)
    for array, spec in zip(arrays, specs, strict=True):
        check_rows(array, spec)
    if len({len(array) for array in arrays}) > 1:
        counts = " and ".join(f"{len(array)} rows of {spec.name}" for array, spec in zip(arrays, specs, strict=True))
        raise InputError(f"{counts} were given.", "Give as many of each.")
    return arrays


def rebatch(chunks: Iterable[Array], size: int) -> Iterator[Array]:
    """Chunks of any length as batches of `size` rows, the last one shorter; nothing is copied that need not be.

    Raises
    ------
    InputError
        If the size is not positive.
    """
    check_batch_size(size)
    return (batch for (batch,) in rebatch_rows(((chunk,) for chunk in chunks), size))


def rebatch_rows(chunks: Iterable[Rows], size: int) -> Iterator[Rows]:
    """`rebatch`, of several arrays side by side."""
    held: list[Rows] = []
    rows = 0
    for chunk in chunks:
        start, length = 0, len(chunk[0])
        while rows + length - start >= size:
            stop = start + size - rows
            yield _join([*held, _cut(chunk, start, stop)])
            held, rows, start = [], 0, stop
        if start < length:
            held.append(_cut(chunk, start, length))
            rows += length - start
    if rows:
        yield _join(held)


def _cut(rows: Rows, start: int, stop: int) -> Rows:
    return tuple(array[start:stop] for array in rows)


def check_batch_size(size: int) -> None:
    """Raise InputError unless a batch has at least one row."""
    if size < 1:
        raise InputError(f"batch_size {size} is not positive.", "Give at least 1.")


def _join(parts: list[Rows]) -> Rows:
    return parts[0] if len(parts) == 1 else tuple(np.concatenate(side) for side in zip(*parts, strict=True))


def _run_rows(session: Runs, rows: Rows, size: int) -> Iterator[Array]:
    """Run rows in batches filled up to `size`, or to what fits."""
    start, length = 0, len(rows[0])
    while start < length:
        result, count = _run_fitting(session, _cut(rows, start, length), min(size, session.largest_batch or size))
        yield result[:count]
        start += count


def _run_fitting(session: Runs, rows: Rows, size: int) -> tuple[Array, int]:
    """Run the first rows in one batch of `size`, halved until it fits; the result and how many rows were run."""
    asked = size
    while True:
        try:
            result = session.run(_feeds(session, rows, size))[0]
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
    return result, min(size, len(rows[0]))


def _feeds(session: Runs, rows: Rows, size: int) -> dict[str, Array]:
    """The first `size` rows by the names of the inputs."""
    return {spec.name: filled(array[:size], size, spec.dtype) for array, spec in zip(rows, session.inputs, strict=True)}


def filled(rows: Array, size: int, dtype: str) -> Array:
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

"""Work done in threads a little ahead of its consumer, in order."""

import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

WORKERS = "craft-onnx-ahead"
S = TypeVar("S")
T = TypeVar("T")


def ahead(function: Callable[[S], T], items: Iterable[S], threads: int = 2, lookahead: int = 0) -> Iterator[T]:
    """Yield `function(item)` for every item, in order, computed in threads while the consumer is busy.

    Parameters
    ----------
    function : callable
        Called in other threads; what it raises is raised here, at the item's place.
    items : iterable
        Consumed in the caller's thread, at most `lookahead` items ahead: that bounds the memory.
    threads : int
        Number of threads.
    lookahead : int
        Results that may wait to be consumed; 0 takes twice the number of threads.
    """
    items = iter(items)
    pending: deque[Future[T]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix=WORKERS)
    try:
        for item in itertools.islice(items, lookahead or 2 * threads):
            pending.append(pool.submit(function, item))
        while pending:
            result = pending.popleft().result()
            pending.extend(pool.submit(function, item) for item in itertools.islice(items, 1))
            yield result
    finally:
        # An abandoned generator may be collected in one of its own threads, which cannot wait for itself.
        pool.shutdown(wait=not threading.current_thread().name.startswith(WORKERS), cancel_futures=True)

import queue
import threading
import time

import pytest

from craft_onnx.runtime.lookahead import ahead


def test_results_come_in_order_whatever_takes_how_long():
    def slow(i):
        time.sleep(0.01 * (i % 3 == 0))
        return i * i

    assert list(ahead(slow, range(30), threads=4)) == [i * i for i in range(30)]


def test_items_are_taken_only_as_far_ahead_as_allowed():
    taken = []

    def items():
        for i in range(100):
            taken.append(i)
            yield i

    results = ahead(lambda i: i, items(), threads=2, lookahead=3)
    for i in range(20):
        assert next(results) == i
        assert len(taken) <= i + 4
    results.close()


def test_work_is_done_while_the_consumer_is_busy():
    done = threading.Event()

    def work(i):
        if i == 1:
            done.set()

    results = ahead(work, range(3))
    next(results)
    assert done.wait(5)
    results.close()


def test_an_exception_comes_at_its_items_place():
    def fail_at_two(i):
        if i == 2:
            raise ValueError("two")
        return i

    results = ahead(fail_at_two, range(9))
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="two"):
        next(results)


def test_nothing_gives_nothing():
    assert list(ahead(str, [])) == []


def test_an_abandoned_stream_can_be_closed_in_a_thread_of_its_own():
    """As the garbage collector does, which runs in whatever thread it is due."""
    closed = queue.Queue()

    def work(item):
        if item == 1:
            abandoned.wait(10)
            try:
                closed.put(stream.close())
            except RuntimeError as error:
                closed.put(error)
        return item

    abandoned = threading.Event()
    stream = ahead(work, range(8), threads=2)
    assert next(stream) == 0
    abandoned.set()
    assert closed.get(timeout=10) is None

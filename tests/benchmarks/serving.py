"""Sides of a benchmark as processes of their own: their runs can be interleaved, and each has a peak of memory."""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from memory_peak import peak_mb


def serve(run: Callable[[], object]) -> None:
    """In the process of a side: run once for every line that comes in, and answer with the seconds and the peak."""
    print(json.dumps({"ready": True}), flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        run()
        print(json.dumps({"seconds": time.perf_counter() - start, "peak_mb": peak_mb()}), flush=True)


class Side:
    """A process that serves, seen from the outside.

    Attributes
    ----------
    peak_mb : float
        The most resident memory that it has had.
    problem : str
        The last line of its errors, where it does not serve.
    """

    def __init__(self, python: str, script: Path, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [python, str(script), *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.peak_mb, self.problem = 0.0, ""
        if self._answer() is None:
            self.problem = (self._process.stderr.read().strip() or "no message").splitlines()[-1]

    def __call__(self) -> float:
        """Seconds of one run."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        answer = self._answer()
        assert answer is not None, self._process.stderr.read()
        self.peak_mb = answer["peak_mb"]
        return answer["seconds"]

    def _answer(self) -> dict[str, float] | None:
        """Libraries print too: the next line that is an answer, None where the process has ended."""
        for line in self._process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        return None

    def __enter__(self) -> "Side":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.communicate()


def medians(sides: dict[str, "Side"], repeats: int) -> dict[str, float]:
    """Median seconds of each side; every repeat runs all of them in turn, after one warm-up."""
    runs = [{name: side() for name, side in sides.items()} for _ in range(repeats + 1)][1:]
    return {name: statistics.median(run[name] for run in runs) for name in sides}

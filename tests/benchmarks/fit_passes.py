"""The forward passes to the cut that fit + importance need, and nothing else; prints JSON. BUNDLE COUNT THREADS."""

import json
import sys
import time

import numpy as np

from craft_onnx import load

BATCH = 16


def main(bundle: str, count: int, threads: int) -> None:
    """So many pictures, all of them random."""
    model = load(bundle, threads=threads)
    x = np.random.default_rng(0).standard_normal((BATCH, 3, 224, 224), np.float32)
    model.g(x[:1])
    start = time.perf_counter()
    for done in range(0, count, BATCH):
        model.g(x[: count - done])
    print(json.dumps({"total_s": time.perf_counter() - start}))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))

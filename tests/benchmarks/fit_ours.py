"""One run of fit + importance with craft_onnx; prints JSON. Run by fit_importance.py and memory.py.

BUNDLE PICTURES THREADS [SIDE OF THE PICTURES, OF THE PATCHES]; PICTURES is how many, or an .npy file of them
"""

import json
import sys
import time

import numpy as np
import scipy.stats.qmc  # noqa: F401
import sklearn.decomposition  # noqa: F401  # loaded on first use, but Xplique's are loaded before the clock starts
from memory_peak import peak_mb

import craft_onnx.graph.head  # noqa: F401  # as above
from craft_onnx import Craft, load


class RandomPictures:
    """Preprocessed pictures made when they are asked for, so that they take no memory themselves."""

    def __init__(self, count: int, side: int = 224):
        self.shape = (count, 3, side, side)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int) -> np.ndarray:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return np.random.default_rng(index).normal(size=self.shape[1:]).astype(np.float32)


def main(bundle: str, pictures: str, threads: int, side: int = 224, patch: int = 80) -> None:
    """Fit and estimate."""
    x = RandomPictures(int(pictures), side) if pictures.isdigit() else np.load(pictures)
    model = load(bundle, threads=threads)
    start = time.perf_counter()
    craft = Craft(model, number_of_concepts=10, patch_size=patch, batch_size=16)
    craft.fit(x, class_id=0)
    fitted = time.perf_counter()
    craft.estimate_importance()
    end = time.perf_counter()

    print(
        json.dumps(
            {"fit_s": fitted - start, "importance_s": end - fitted, "total_s": end - start, "peak_mb": peak_mb()}
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:3], *map(int, sys.argv[3:]))

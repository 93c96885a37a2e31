"""Coefficients of 10^6 rows for 25 concepts: exact least squares against scikit-learn's `NMF.transform`.

The rows are sparse mixtures of a bank and noise, after a ReLU. The more alike the concepts of the bank are, the longer
the iterations of scikit-learn take: with --alike 0.3 the condition of the Gram matrix is 29, as of ResNet50's concepts
on few pictures, with 1.5 it is 163. With --model and --pictures rows are what a network makes of pictures, repeated,
and the bank is that of a fit. The residual says how far the worst of 20 000 rows is from its optimum; with alpha_W that
of the problem with the penalty, whose coefficients are others.
"""

import argparse
import os
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

THREADS = int(os.environ.setdefault("OMP_NUM_THREADS", "2"))

import numpy as np
from common import interleaved
from numpy.typing import NDArray

from craft_onnx.concepts.factorisation import encode_as_sklearn
from craft_onnx.concepts.nnls import kkt_residual, nnls

Array = NDArray[np.float32]
K = 25
SOME = 20_000
PEERS = {"NMF.transform, alpha_W 0": 0.0, "NMF.transform, alpha_W 0.01 (Xplique)": 0.01}


def synthetic(rows: int, channels: int, alike: float) -> tuple[Array, Array]:
    """Activations and a concept bank."""
    rng = np.random.default_rng(0)
    own, common = rng.gamma(0.4, 1.0, (K, channels)), rng.gamma(0.4, 1.0, channels)
    w = own + alike * common
    w = (w / np.linalg.norm(w, axis=1, keepdims=True)).astype(np.float32)
    a = np.empty((rows, channels), np.float32)
    for start in range(0, rows, 10_000):
        block = a[start : start + 10_000]
        u = rng.gamma(0.4, 1.0, (len(block), K)) * (rng.random((len(block), K)) < 0.4)
        noise = rng.normal(scale=0.05, size=block.shape).astype(np.float32)
        block[:] = np.maximum(u.astype(np.float32) @ w + noise, 0)
    return a, w


def of_a_network(rows: int, model_path: str, pictures: str) -> tuple[Array, Array]:
    """Activations of up to 60 pictures at all positions, repeated, and the bank that is fitted to them."""
    import craft_onnx as co

    model = co.load(model_path, threads=THREADS)
    images = model.preprocess(co.open_pictures(pictures)[:60])
    craft = co.Craft(model, number_of_concepts=K, patch_size=80, batch_size=16)
    craft.fit(images)
    parts = [np.moveaxis(model.g(images[i : i + 16]), 1, -1) for i in range(0, len(images), 16)]
    a = np.concatenate(parts).reshape(-1, craft.concept_bank_.shape[1])
    return np.resize(a, (rows, a.shape[1])), craft.concept_bank_


def solvers(a: Array, w: Array, found: dict[str, Array]) -> dict[str, Callable[[], None]]:
    """The sides; each leaves what it found. `NMF.transform` has the tolerance 1e-4 and at most 200 iterations."""

    def side(name: str, solve: Callable[[], Array]) -> Callable[[], None]:
        def run() -> None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found[name] = solve()

        return run

    solve = {"craft_onnx": lambda: nnls(a, w)}
    solve |= {name: partial(encode_as_sklearn, a, w, alpha) for name, alpha in PEERS.items()}
    return {name: side(name, function) for name, function in solve.items()}


def main() -> None:
    """Time all sides in turn; print medians, ratios and what each leaves undone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--channels", type=int, default=512)
    parser.add_argument("--alike", type=float, default=0.3, help="share of what all concepts have in common")
    parser.add_argument("--model", help="a bundle or an ONNX file")
    parser.add_argument("--pictures", help="a folder, with --model")
    parser.add_argument("--repeats", type=int, default=3)
    chosen = parser.parse_args()
    if chosen.model:
        a, w = of_a_network(chosen.rows, chosen.model, chosen.pictures)
    else:
        a, w = synthetic(chosen.rows, chosen.channels, chosen.alike)
    found: dict[str, Array] = {}
    seconds = interleaved(solvers(a, w, found), chosen.repeats)
    condition = np.linalg.cond(w.astype(np.float64) @ w.T)
    source = Path(chosen.model).name if chosen.model else "synthetic"
    print(f"{a.shape[0]} rows of {a.shape[1]} channels ({source}), condition {condition:.0f}, {THREADS} threads")
    for name, value in seconds.items():
        ridge = PEERS.get(name, 0.0) * a.shape[1]
        worst = kkt_residual(a[:SOME], w, found[name][:SOME], ridge).max()
        print(f"{name:40s} {value:8.2f} s  {value / seconds['craft_onnx']:6.1f}x   residual {worst:.0e}")


if __name__ == "__main__":
    main()

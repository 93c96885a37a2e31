"""Sobol indices of 20 pictures by sampling, k = 10, for a head of pooling and a linear layer (ResNet50's).

Xplique evaluates h on 7680 reconstructed feature maps. The same design, estimator and masks go through the head that
the concepts are folded into; beside it the default design and the closed form. Coefficients are given to both sides.
"""

import argparse
import os
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

THREADS = int(os.environ.setdefault("OMP_NUM_THREADS", "2"))

import numpy as np
from serving import Side, medians

SIDE = Path(__file__).with_name("sobol_side.py")
OURS = {
    "sampled": "craft_onnx, the same 32 points of a Halton sequence",
    "default": "craft_onnx, 256 points of scrambled Sobol sequences, with intervals",
    "exact": "craft_onnx, closed form",
}


def write_case(folder: Path, pictures: int = 20, k: int = 10, channels: int = 2048, classes: int = 1000) -> None:
    """Coefficients at 7 x 7 positions, a concept bank and a linear layer, from a seed."""
    rng = np.random.default_rng(0)
    arrays = {
        "u": rng.exponential(size=(pictures, 7, 7, k)) * (rng.random((pictures, 7, 7, k)) < 0.4),
        "w": rng.exponential(size=(k, channels)) / np.sqrt(channels),
        "weight": rng.normal(size=(classes, channels)) / np.sqrt(channels),
        "bias": rng.normal(size=classes),
    }
    np.savez(folder / "case.npz", **{name: array.astype(np.float32) for name, array in arrays.items()})


def main() -> None:
    """Time all sides in turn, print medians and how far the same design's values are apart."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", help="a Python that has torch and xplique")
    parser.add_argument("--repeats", type=int, default=7)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        write_case(folder)
        sides = {label: stack.enter_context(Side(sys.executable, SIDE, name, side)) for side, label in OURS.items()}
        if chosen.peer:
            sides["Xplique"] = stack.enter_context(Side(chosen.peer, SIDE, name, "xplique"))
        seconds = medians(sides, chosen.repeats)
        print(f"20 pictures, k = 10, 2048 channels at 7 x 7 positions, {THREADS} threads")
        for label, value in seconds.items():
            ratio = f"{seconds['Xplique'] / value:9.0f}x" if chosen.peer else ""
            print(f"{label:70s} {1000 * value:9.2f} ms{ratio}")
        if chosen.peer:
            ours, theirs = (np.load(folder / f"{side}.npy") for side in ("sampled", "xplique"))
            print(f"largest difference of the two with the same design: {np.abs(ours - theirs).max():.1e}")


if __name__ == "__main__":
    main()

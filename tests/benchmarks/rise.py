"""RISE on a classifier: seconds against the bare forwards of as many pictures, and peak memory."""

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
from common import THREADS, interleaved
from memory_peak import peak_mb

from craft_onnx.attribution.rise import rise
from craft_onnx.runtime.batches import run_array
from craft_onnx.runtime.sessions import Session


class Classifier:
    """A session as RISE wants it."""

    def __init__(self, path: str):
        self.session = Session(path, threads=THREADS)
        shape = self.session.inputs[0].shape
        self.layout = "NCHW" if shape[1] in (1, 3) else "NHWC"
        self.x = np.random.default_rng(0).normal(size=(1, *shape[1:])).astype(np.float32)

    def predict(self, x: np.ndarray, batch_size: int) -> np.ndarray:
        return run_array(self.session, x, batch_size)


def ratios(path: str, masks: int, batch: int, repeats: int) -> None:
    """Print medians and their ratio; both sides run in the same session."""
    model = Classifier(path)
    rows = np.repeat(model.x, batch, axis=0)
    sides = {
        "bare forwards": lambda: [model.predict(rows, batch) for _ in range(masks // batch)],
        "rise": lambda: rise(model, model.x, 0, n_masks=masks // batch * batch, batch_size=batch),
    }
    seconds = interleaved(sides, repeats)
    for side, value in seconds.items():
        print(f"{side:14s} {value:7.3f} s   {value / seconds['bare forwards']:5.2f}x the forwards")


def peak(path: str, masks: int, batch: int) -> float:
    """MB of a process that explains one picture; with no masks, of one that only predicts it."""
    command = [sys.executable, __file__, path, "--masks", str(masks), "--batch-size", str(batch), "--peak"]
    runs = [float(subprocess.run(command, check=True, capture_output=True, text=True).stdout) for _ in range(3)]
    return statistics.median(runs)


def main() -> None:
    """Compare, and print what memory 2000 and 20 000 masks take."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="an ONNX classifier with an open batch, such as a MobileNet")
    parser.add_argument("--masks", type=int, default=2000)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--peak", action="store_true", help="only print the peak memory of one run")
    chosen = parser.parse_args()
    if chosen.peak:
        model = Classifier(chosen.model)
        model.predict(np.repeat(model.x, chosen.batch_size, axis=0), chosen.batch_size)
        if chosen.masks:
            rise(model, model.x, 0, n_masks=chosen.masks, batch_size=chosen.batch_size)
        print(peak_mb())
        return
    print(f"{Path(chosen.model).name}, {chosen.masks} masks, batch {chosen.batch_size}, {THREADS} threads")
    ratios(chosen.model, chosen.masks, chosen.batch_size, chosen.repeats)
    for masks in (0, chosen.masks, 10 * chosen.masks):
        print(f"peak with {masks:6d} masks: {peak(chosen.model, masks, chosen.batch_size):6.0f} MB")


if __name__ == "__main__":
    main()

"""Relevance by EpsilonPlusFlat: seconds and memory against zennit on PyTorch; ten conditions on one forward pass."""

import argparse
import contextlib
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch
from common import THREADS
from networks import PLAIN_NETWORKS
from relevance_side import CONDITIONS, LAYERS
from serving import Side

from craft_onnx.graph.normalize import normalize
from craft_onnx.runtime.bundle import create_bundle

OWN = ["forward", "ours", "ten", "calls"]
PAUSE = 0.2  # seconds in which the threads of the side before stop waiting busily for more
SCRIPT = Path(__file__).with_name("relevance_side.py")


def write(folder: Path, network: str, batch: int, side: int) -> None:
    """A bundle of the model, pictures, and a class of each."""
    torch.onnx.export(
        PLAIN_NETWORKS[network](), (torch.zeros(2, 3, side, side),), folder / "exported.onnx",
        dynamo=False, opset_version=18, input_names=["x"], output_names=["y"],
        dynamic_axes={"x": {0: "batch"}, "y": {0: "batch"}},
    )  # fmt: skip
    create_bundle(normalize(ir.load(folder / "exported.onnx")), [LAYERS[network]], folder / "bundle")
    rng = np.random.default_rng(0)
    np.save(folder / "x.npy", rng.standard_normal((batch, 3, side, side), np.float32))
    np.save(folder / "classes.npy", rng.integers(0, 1000, batch))


def measured(
    folder: Path, network: str, repeats: int, peer: str | None, chosen: list[str]
) -> tuple[dict[str, float], dict[str, float]]:
    """Median seconds and peak memory of every side; they take turns."""
    pythons = dict.fromkeys(chosen, sys.executable) | ({"zennit": peer} if peer else {})
    with contextlib.ExitStack() as stack:
        sides = {
            name: stack.enter_context(Side(python, SCRIPT, str(folder), name, network))
            for name, python in pythons.items()
        }
        for name in [name for name, side in sides.items() if side.problem]:
            print(f"  {name} left out: {sides.pop(name).problem}")
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(repeats):
            for name, side in sides.items():
                time.sleep(PAUSE)
                side()  # a process that has waited must get its memory back first
                seconds[name].append(side())
    return {name: statistics.median(one) for name, one in seconds.items()}, {n: s.peak_mb for n, s in sides.items()}


def report(folder: Path, seconds: dict[str, float], peaks: dict[str, float]) -> None:
    """Seconds, peaks, ratios, and how far the heatmaps of both are from each other."""
    ours = seconds["ours"]
    for name, value in seconds.items():
        print(f"  {name:8s} {1000 * value:8.0f} ms   {value / ours:5.2f}x ours   peak {peaks[name]:6.0f} MB")
    if "forward" in seconds:
        print(f"  ours / forward {ours / seconds['forward']:.2f}")
    if {"ten", "calls"} <= seconds.keys():
        ratio = seconds["ten"] / seconds["calls"]
        print(f"  {CONDITIONS} conditions on one forward pass / as many calls {ratio:.2f}")
    if "zennit" in seconds:
        found, expected = (np.load(folder / f"{name}.npy").astype(np.float64) for name in ("ours", "zennit"))
        cosine = (found * expected).sum() / np.linalg.norm(found) / np.linalg.norm(expected)
        print(f"  zennit / ours {seconds['zennit'] / ours:.2f}; 1 - cosine of the heatmaps {1 - cosine:.1e}")


def main() -> None:
    """Print the figures of every network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=f"of {', '.join(PLAIN_NETWORKS)}")
    parser.add_argument("--peer", help="a Python that has torch, torchvision and zennit")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--side", type=int, default=224, help="of the pictures")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--sides", nargs="*", default=OWN, help=f"of {', '.join(OWN)} and, with --peer, zennit")
    chosen = parser.parse_args()
    for network in chosen.networks or PLAIN_NETWORKS:
        print(f"{network}, {chosen.batch} x 3 x {chosen.side} x {chosen.side}, {THREADS} threads", flush=True)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write(folder, network, chosen.batch, chosen.side)
            report(folder, *measured(folder, network, chosen.repeats, chosen.peer, chosen.sides))


if __name__ == "__main__":
    main()

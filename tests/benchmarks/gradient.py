"""Gradient graphs of whole networks: seconds and peak memory against PyTorch, onnx2torch and the forward pass alone."""

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
from gradient_side import COTANGENTS
from networks import NETWORKS
from numpy.typing import NDArray
from serving import Side

from craft_onnx.graph.normalize import normalize
from craft_onnx.graph.reverse.pair import gradient_pair
from craft_onnx.graph.reverse.vjp import gradient_graph

PAUSE = 0.2  # seconds in which the threads of the side before stop waiting busily for more
SCRIPT = Path(__file__).with_name("gradient_side.py")


def write(folder: Path, network: str, batch: int) -> None:
    """The model, its gradient graphs, x and a cotangent."""
    # In the opset that onnx2torch reads.
    torch.onnx.export(
        NETWORKS[network](), (torch.zeros(2, 3, 224, 224),), folder / "exported.onnx",
        dynamo=False, opset_version=17, input_names=["x"], output_names=["y"],
        dynamic_axes={"x": {0: "batch"}, "y": {0: "batch"}},
    )  # fmt: skip
    model = normalize(ir.load(folder / "exported.onnx"))
    forward, backward = gradient_pair(model)
    graphs = {"model": model, "gradient": gradient_graph(model), "forward": forward, "backward": backward}
    for name, graph in graphs.items():
        ir.save(graph, folder / f"{name}.onnx")
    rng = np.random.default_rng(0)
    for name, shape in {"x": (batch, 3, 224, 224), "cotangent": (batch, 1000)}.items():
        np.save(folder / f"{name}.npy", rng.standard_normal(shape, np.float32))


def measured(
    folder: Path, network: str, rows: int, repeats: int, peer: str | None, device: str
) -> tuple[dict[str, float], dict[str, float]]:
    """Median seconds and peak memory of every side; they take turns."""
    pythons = {"forward": sys.executable, "combined": sys.executable, "pair": sys.executable, "torch": sys.executable}
    if peer:
        pythons["onnx2torch"] = peer
    with contextlib.ExitStack() as stack:
        sides = {
            name: stack.enter_context(Side(python, SCRIPT, str(folder), name, network, str(rows), device))
            for name, python in pythons.items()
        }
        for name in [name for name, side in sides.items() if side.problem]:
            print(f"  {name} left out: {sides.pop(name).problem}")
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(repeats):
            for name, side in sides.items():
                time.sleep(PAUSE)
                seconds[name].append(side())
    return {name: statistics.median(one) for name, one in seconds.items()}, {n: s.peak_mb for n, s in sides.items()}


def exact(network: str, folder: Path) -> NDArray[np.float64]:
    """The gradient in float64, by PyTorch."""
    x = torch.from_numpy(np.load(folder / "x.npy")).double().requires_grad_()
    cotangent = torch.from_numpy(np.load(folder / "cotangent.npy")).double()
    return torch.autograd.grad(NETWORKS[network]().double()(x), x, cotangent)[0].numpy()


def report_errors(network: str, folder: Path) -> None:
    """How far each side is from the gradient in float64."""
    expected = exact(network, folder)
    for side in ("combined", "pair", "torch", "onnx2torch"):
        path = folder / f"{side}.npy"
        if path.exists():
            found = np.load(path).astype(np.float64)
            error = np.abs(found - expected).max() / np.abs(expected).max()
            cosine = (found * expected).sum() / np.linalg.norm(found) / np.linalg.norm(expected)
            print(
                f"  {side:10s} against float64: largest error {error:.1e} of the maximum, 1 - cosine {1 - cosine:.1e}"
            )


def report(seconds: dict[str, float], peaks: dict[str, float]) -> None:
    """Seconds, peaks and ratios."""
    ours = seconds["combined"]
    for name, value in seconds.items():
        print(f"  {name:10s} {1000 * value:8.0f} ms   {value / ours:5.2f}x combined   peak {peaks[name]:6.0f} MB")
    print(f"  combined / forward {ours / seconds['forward']:.2f}; torch / combined {seconds['torch'] / ours:.2f}")
    if "onnx2torch" in seconds:
        print(f"  onnx2torch / combined {seconds['onnx2torch'] / ours:.2f}")
    print(f"  {COTANGENTS} cotangents: pair / combined {seconds['pair'] / (COTANGENTS * ours):.2f}")


def main() -> None:
    """Print the figures of every network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=f"of {', '.join(NETWORKS)}; all by default")
    parser.add_argument("--peer", help="a Python that has torch and onnx2torch")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rows", type=int, nargs="+", help="that go through at a time; all at once by default")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    chosen = parser.parse_args()
    if chosen.device == "cuda" and not torch.cuda.is_available():
        parser.error("PyTorch finds no CUDA device here: leave --device out")
    place = f"{THREADS} threads" if chosen.device == "cpu" else torch.cuda.get_device_name()
    for network in chosen.networks or NETWORKS:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write(folder, network, chosen.batch)
            for rows in chosen.rows or [chosen.batch]:
                print(f"{network}, {chosen.batch} x 3 x 224 x 224, {rows} at a time, float32, {place}")
                report(*measured(folder, network, rows, chosen.repeats, chosen.peer, chosen.device))
            report_errors(network, folder)


if __name__ == "__main__":
    main()

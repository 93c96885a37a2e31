"""fit + importance of 20 pictures on ResNet50: seconds and peak memory, ours against Xplique's CraftTorch."""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from common import THREADS, resnet50_bundle

HERE = Path(__file__).parent
PICTURES = 20
PASSES = PICTURES * (9 + 1)  # crops of each for the concepts, and itself for their importances


def run(python: str, script: str, *arguments: str) -> dict[str, float]:
    """The JSON that one script prints last."""
    command = [python, str(HERE / script), *arguments]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def median(runs: list[dict[str, float]]) -> dict[str, float]:
    """Median of each figure."""
    return {name: statistics.median(one[name] for one in runs) for name in runs[0]}


def prepared(folder: Path, weights: Path | None, pictures: Path | None) -> tuple[str, str, str]:
    """The bundle, and what each side is told of network and pictures: random ones, or those of the files given."""
    if weights is None or pictures is None:
        return str(resnet50_bundle(folder)), str(PICTURES), str(PICTURES)
    import torch
    from trained import keras_resnet50, photographs

    net = keras_resnet50(weights)
    torch.save(net.state_dict(), folder / "weights.pt")
    np.save(folder / "pictures.npy", photographs(pictures, PICTURES))
    return str(resnet50_bundle(folder, net=net)), str(folder / "pictures.npy"), str(folder)


def main() -> None:
    """Run the sides in turn and print the figures and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", help="a Python that has torch and xplique")
    parser.add_argument("--weights", type=Path, help="a ResNet50 of Keras, instead of random weights")
    parser.add_argument("--pictures", type=Path, help="a folder of photographs of one class, to go with --weights")
    parser.add_argument("--repeats", type=int, default=3)
    chosen = parser.parse_args()
    if (chosen.weights is None) != (chosen.pictures is None):
        parser.error("--weights and --pictures go together")
    runs: dict[str, list[dict[str, float]]] = {"craft_onnx": [], "passes alone": [], "Xplique": []}
    with tempfile.TemporaryDirectory() as folder:
        bundle, ours, theirs = prepared(Path(folder), chosen.weights, chosen.pictures)
        for _ in range(chosen.repeats):
            runs["craft_onnx"].append(run(sys.executable, "fit_ours.py", bundle, ours, str(THREADS)))
            runs["passes alone"].append(run(sys.executable, "fit_passes.py", bundle, str(PASSES), str(THREADS)))
            if chosen.peer:
                runs["Xplique"].append(run(chosen.peer, "fit_xplique.py", theirs))
    report({name: median(some) for name, some in runs.items() if some})


def report(figures: dict[str, dict[str, float]]) -> None:
    """A line for each side, and the ratios."""
    print(f"ResNet50, {PICTURES} pictures of 224, patch 80, k = 10, {THREADS} threads")
    for name, values in figures.items():
        print(f"{name:12s}" + "".join(f"  {key} {value:8.1f}" for key, value in values.items()))
    mine, passes = figures["craft_onnx"], figures["passes alone"]["total_s"]
    print(f"craft_onnx / its {PASSES} forward passes alone: {mine['total_s'] / passes:.2f}")
    if peer := figures.get("Xplique"):
        print("Xplique / craft_onnx: " + ", ".join(f"{key} {peer[key] / mine[key]:.1f}x" for key in mine))
        print(f"Xplique / the forward passes alone: {peer['total_s'] / passes:.1f}x")


if __name__ == "__main__":
    main()

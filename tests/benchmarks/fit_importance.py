"""fit + importance of 20 pictures on ResNet50: seconds and peak memory, ours against Xplique's CraftTorch."""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from common import THREADS, resnet50_bundle

HERE = Path(__file__).parent
PICTURES = 20


def run(python: str, script: str, *arguments: str) -> dict[str, float]:
    """The JSON that one script prints last."""
    command = [python, str(HERE / script), *arguments]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def median(runs: list[dict[str, float]]) -> dict[str, float]:
    """Median of each figure."""
    return {name: statistics.median(one[name] for one in runs) for name in runs[0]}


def main() -> None:
    """Run both sides in turn and print the figures and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", help="a Python that has torch and xplique")
    parser.add_argument("--repeats", type=int, default=3)
    chosen = parser.parse_args()
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as folder:
        bundle = str(resnet50_bundle(Path(folder)))
        for _ in range(chosen.repeats):
            ours.append(run(sys.executable, "fit_ours.py", bundle, str(PICTURES), str(THREADS)))
            if chosen.peer:
                theirs.append(run(chosen.peer, "fit_xplique.py", str(PICTURES)))
    figures = {"craft_onnx": median(ours)} | ({"Xplique": median(theirs)} if theirs else {})
    print(f"ResNet50, {PICTURES} pictures of 224, patch 80, k = 10, {THREADS} threads")
    for name, values in figures.items():
        print(f"{name:12s}" + "".join(f"  {key} {value:8.1f}" for key, value in values.items()))
    if theirs:
        mine, peer = figures["craft_onnx"], figures["Xplique"]
        print("Xplique / craft_onnx: " + ", ".join(f"{key} {peer[key] / mine[key]:.1f}x" for key in mine))


if __name__ == "__main__":
    main()

"""RelMax and ActMax of all layers of VGG16 over a data set: pictures per second and memory, beside zennit-crp."""

import argparse
import contextlib
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
from common import THREADS
from relevance import write
from serving import Side

SCRIPT = Path(__file__).with_name("relmax_side.py")


def main() -> None:
    """Let the sides take turns; print medians, ratios and agreement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", help="a Python that has torch, torchvision, zennit and zennit-crp")
    parser.add_argument("--pictures", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    print(f"VGG16, {options.pictures} pictures of 224, random weights, {THREADS} threads")
    pythons = {"ours": sys.executable} | ({"zennit-crp": options.peer} if options.peer else {})
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        write(folder, "VGG16", options.pictures, 224)
        sides = {side: stack.enter_context(Side(python, SCRIPT, str(folder), side)) for side, python in pythons.items()}
        for side in [side for side, one in sides.items() if one.problem]:
            print(f"{side} left out: {sides.pop(side).problem}")
        seconds: dict[str, list[float]] = {side: [] for side in sides}
        for _ in range(options.repeats):
            for side, one in sides.items():
                seconds[side].append(one())
        for side, one in sides.items():
            took = statistics.median(seconds[side])
            print(f"{side:12s} {options.pictures / took:6.2f} pictures/s   peak {one.peak_mb:6.0f} MB")
        if len(sides) > 1:
            found, expected = (np.load(folder / f"{side}.npy") for side in sides)
            same = np.isclose(found, expected, rtol=1e-3, atol=1e-6).mean()
            print(f"concepts whose best value is the same on both sides: {same:.0%}")


if __name__ == "__main__":
    main()

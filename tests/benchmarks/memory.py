"""Peak memory of `fit` + importance on ResNet50: beyond A and U it must not grow with the number of pictures."""

import argparse
import sys
import tempfile
from pathlib import Path

from common import THREADS, resnet50_bundle
from fit_importance import run

CHANNELS = 2048
SIZES = {"224": (224, 80, (100, 1000)), "cifar": (32, 24, (1000, 10_000))}  # side, patch, numbers of pictures


def report(side: int, patch: int, counts: tuple[int, ...]) -> None:
    """Print seconds and megabytes, and what A takes: in float32, and in double precision while it is factorised."""
    crops = ((side - patch) // int(0.8 * patch) + 1) ** 2
    with tempfile.TemporaryDirectory() as folder:
        bundle = str(resnet50_bundle(Path(folder), side))
        for count in counts:
            figures = run(sys.executable, "fit_ours.py", bundle, *map(str, (count, THREADS, side, patch)))
            a_mb = count * crops * CHANNELS * 12 / 2**20
            print(
                f"{count:6d} pictures of {side}: {figures['peak_mb']:6.0f} MB peak, of which A {a_mb:5.0f} MB;"
                f" {figures['total_s']:6.1f} s",
                flush=True,
            )


def main() -> None:
    """Print figures for pictures of 224 and of 32."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", nargs="*", help="224, cifar; both by default")
    for name in parser.parse_args().sizes or SIZES:
        report(*SIZES[name])


if __name__ == "__main__":
    main()

"""Peak memory of `fit` + importance on ResNet50: it must not grow with the number of pictures."""

import sys
import tempfile
from pathlib import Path

from common import THREADS, resnet50_bundle
from fit_importance import run


def main() -> None:
    """Print seconds and megabytes for 100 and 1000 pictures of 224."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = str(resnet50_bundle(Path(folder)))
        for count in (100, 1000):
            figures = run(sys.executable, "fit_ours.py", bundle, str(count), str(THREADS))
            print(f"{count:5d} pictures: {figures['peak_mb']:7.0f} MB peak, {figures['total_s']:6.1f} s", flush=True)


if __name__ == "__main__":
    main()

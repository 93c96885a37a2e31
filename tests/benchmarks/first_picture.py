"""Seconds to the first picture of one's own: import, a cold explain, and run from a model file to a page."""

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def seconds(command: list[str], repeats: int = 3, prepare: Path | None = None) -> float:
    """Median wall time of a command; `prepare` is removed before every run."""
    times = []
    for _ in range(repeats):
        if prepare is not None:
            shutil.rmtree(prepare, ignore_errors=True)
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main(model: str, pictures: str, options: list[str]) -> None:
    """Time the steps a new user takes; `options` go to `craft-onnx run`."""
    tool = str(Path(sys.executable).with_name("craft-onnx"))
    example = next(path for path in sorted(Path(pictures).rglob("*.*")) if path.suffix in (".jpg", ".png"))
    with tempfile.TemporaryDirectory() as folder:
        out, explained = Path(folder) / "out", Path(folder) / "explained"
        whole = seconds([tool, "run", model, pictures, "-o", str(out), *options], prepare=out)
        explain = seconds([tool, "explain", str(out / "bundle"), str(example), "-o", str(explained)], prepare=explained)
    start = seconds([sys.executable, "-c", "pass"], 7)
    print(f"import craft_onnx       {seconds([sys.executable, '-c', 'import craft_onnx'], 7) - start:6.2f} s")
    print(f"craft-onnx explain      {explain:6.2f} s, cold, one picture")
    print(f"craft-onnx run          {whole:6.2f} s, model file to page")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])

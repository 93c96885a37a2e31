"""Try the networks of Keras, torchvision and timm: ``python -m zoo --help``, in the folder ``tests``."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from zoo.catalogue import LIBRARIES, Network, networks
from zoo.table import passed, render

HERE = Path(__file__).parent
RECORDS, PAGE = HERE / "records.json", HERE.parents[1] / "docs" / "coverage.md"
SECONDS, GIGABYTES = 2400, 17


def main() -> None:
    """Try what has no record yet, and write the page from all records."""
    options = _options()
    records = json.loads(RECORDS.read_text()) if RECORDS.exists() else {}
    for network in _chosen(options):
        if network.key in records and not (options.again or (options.failed and not passed(records[network.key]))):
            continue
        print(f"{network.key} ...", end=" ", flush=True)
        records[network.key] = network.fields() | tried(network, options.rival)
        print("passed" if passed(records[network.key]) else records[network.key], flush=True)
        RECORDS.write_text(json.dumps(dict(sorted(records.items())), indent=1) + "\n")
    PAGE.write_text(render(records))


def tried(network: Network, rival: str | None) -> dict[str, Any]:
    """The record of a network, by a process of limited time and memory; and what onnx2torch makes of the file."""
    with tempfile.TemporaryDirectory() as folder:
        files = {"record": f"{folder}/record.json", "model": f"{folder}/model.onnx"}
        job = Path(folder) / "job.json"
        job.write_text(json.dumps(files | {"network": network.fields()}))
        start = time.perf_counter()
        ended = limited([sys.executable, "-m", "zoo.measure", str(job)])
        record = json.loads(Path(files["record"]).read_text())
        record["seconds"] = round(time.perf_counter() - start, 1)
        if ended:
            last = next(reversed([name for name, stage in record.items() if isinstance(stage, dict)]))
            record[last]["reason"] = ended
        if rival and record.get("conversion", {}).get("ok"):
            record["rival"] = _rival(rival, files["model"])
        return record


def limited(command: list[str]) -> str | None:
    """Run a command; why it was ended, None if it was not."""
    variables = {"OMP_NUM_THREADS": "2", "TF_NUM_INTRAOP_THREADS": "2", "TF_CPP_MIN_LOG_LEVEL": "3"}
    process = psutil.Popen(
        command,
        cwd=HERE.parent,
        env=os.environ | variables,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    start = time.monotonic()
    while process.poll() is None:
        time.sleep(0.2)
        reason = None
        if time.monotonic() - start > SECONDS:
            reason = f"took more than {SECONDS} s"
        elif process.memory_info().rss > GIGABYTES << 30:
            reason = f"took more than {GIGABYTES} GB"
        if reason:
            process.kill()
            process.wait()
            return reason
    return None if process.returncode == 0 else f"the process ended with {process.returncode}"


def _rival(python: str, model: str) -> dict[str, Any]:
    done = subprocess.run([python, str(HERE / "rival.py"), model], capture_output=True, text=True, timeout=SECONDS)
    lines = done.stdout.strip().splitlines()
    return json.loads(lines[-1]) if lines else {"ok": False, "reason": f"the process ended with {done.returncode}"}


def _chosen(options: argparse.Namespace) -> list[Network]:
    listed = [network for library in options.libraries for network in networks(library)]
    listed += [Network("trained", "file", Path(file).stem, (224, 224, 3), {"file": file}) for file in options.file]
    return [one for one in listed if not options.only or one.name in options.only]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("libraries", nargs="*", metavar="LIBRARY", help=f"some of {', '.join(LIBRARIES)}")
    parser.add_argument("--only", nargs="+", default=[], help="names of networks")
    parser.add_argument("--file", nargs="+", default=[], help="trained .keras files with an input of 224x224x3")
    parser.add_argument("--failed", action="store_true", help="try those again that failed")
    parser.add_argument("--again", action="store_true", help="try all again")
    parser.add_argument("--rival", metavar="PYTHON", help="an interpreter with onnx2torch: try it on the same files")
    return parser.parse_args()


if __name__ == "__main__":
    main()

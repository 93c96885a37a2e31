"""What was found in a data set, in files: a part for each range of samples, and all of them together.

A file is an npz archive without pickles: the arrays, and under "about" what they belong to, as JSON. It is replaced as
a whole; so what is there is never half of something, and what is left of an interrupted run is its last checkpoint.
"""

from __future__ import annotations

import itertools
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from craft_onnx.errors import InputError
from craft_onnx.files import new_file
from craft_onnx.relevance.maximization import MODES, Maximization, Mode, Statistics

Array = NDArray[Any]
SCHEMA = 1
ABOUT, COLLECTED = "about", "references.npz"
DIFFER = "Give the data set, the model and the settings that they were made with, or another folder."


@dataclass(frozen=True)
class Belongs:
    """What findings belong to: where any of it differs, they do not belong together.

    Attributes
    ----------
    model : str
        SHA-256 of the model's files.
    data : str
        The data set's fingerprint.
    size : int
        Its number of samples.
    composite : dict, optional
        The rules of relevance; None for any.
    layers : dict of str to str
        What the concepts of each layer are.
    settings : dict
        max_target, abs_norm and the number of samples that are kept.
    """

    model: str
    data: str
    size: int
    composite: dict[str, Any] | None
    layers: dict[str, str]
    settings: dict[str, Any]

    def require(self, other: Mapping[str, Any], path: Path) -> None:
        """Raise InputError unless what a file says it belongs to is the same; it names the first difference."""
        for name, value in json.loads(json.dumps(asdict(self))).items():
            if other.get(name) != value and not (name == "composite" and value is None):
                raise InputError(f"{path} is of another {_NOUNS[name]}: {_short(other.get(name))}.", DIFFER)


_NOUNS = {
    "model": "model",
    "data": "data set",
    "size": "number of samples",
    "composite": "composite",
    "layers": "choice of layers and concepts",
    "settings": "setting",
}


class Findings:
    """RelMax and ActMax, and their statistics, of the samples seen so far.

    Parameters
    ----------
    settings : dict
        max_target, abs_norm, samples.

    Attributes
    ----------
    maximization : dict of str to Maximization
        By mode.
    statistics : dict of str to Statistics
        By mode.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.maximization: dict[Mode, Maximization] = {mode: Maximization(mode, **settings) for mode in MODES}
        self.statistics: dict[Mode, Statistics] = {mode: Statistics(mode, settings["samples"]) for mode in MODES}

    def merge(self, other: Findings) -> None:
        """Take in those of other samples."""
        for mode in MODES:
            self.maximization[mode].merge(other.maximization[mode])
            self.statistics[mode].merge(other.statistics[mode])

    def save(self, path: Path, belongs: Belongs, ranges: list[list[int]], done: int) -> None:
        """Write them as one file: of which ranges of samples, and up to where the last of these is done."""
        layers = list(belongs.layers)
        targets = {layer: self.statistics["relevance"].targets(layer) for layer in layers}
        about = {"schema": SCHEMA, "belongs": asdict(belongs), "ranges": ranges, "done": done, "targets": targets}
        arrays = {f"{mode}/{name}": array for mode in MODES for name, array in self._arrays(mode).items()}
        with new_file(path, force=True) as staged, staged.open("wb") as file:
            np.savez(file, **{ABOUT: np.array(json.dumps(about))}, **arrays)  # type: ignore[arg-type]

    def _arrays(self, mode: Mode) -> dict[str, Array]:
        return self.maximization[mode].arrays() | self.statistics[mode].arrays()


@dataclass(frozen=True)
class Stored:
    """A file of findings.

    Attributes
    ----------
    path : Path
        The file.
    belongs : Belongs
        To what.
    findings : Findings
        What was found.
    ranges : list of [int, int]
        First sample and the one behind the last, ascending.
    done : int
        Up to where the last range is done.
    """

    path: Path
    belongs: Belongs
    findings: Findings
    ranges: list[list[int]]
    done: int

    @property
    def complete(self) -> bool:
        """Whether all samples of its ranges were seen."""
        return self.done == self.ranges[-1][1]


def read(path: Path, belongs: Belongs) -> Stored:
    """Read a file of findings.

    Raises
    ------
    InputError
        If it is none, or belongs to something else.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            about = json.loads(str(archive[ABOUT]))
            if about["schema"] != SCHEMA:
                raise InputError(f"{path} has schema {about['schema']}, this version reads {SCHEMA}.", "Run it again.")
            belongs.require(about["belongs"], path)
            findings = _restored(archive, belongs, about["targets"])
            return Stored(path, Belongs(**about["belongs"]), findings, about["ranges"], about["done"])
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} cannot be read as references: {error}.", "Remove it and run again.") from error


def _restored(archive: Mapping[str, Array], belongs: Belongs, targets: Mapping[str, list[int]]) -> Findings:
    findings = Findings(belongs.settings)
    for mode in MODES:
        arrays = _Prefixed(archive, f"{mode}/")
        findings.maximization[mode].restore([layer for layer in belongs.layers if targets[layer]], arrays)
        findings.statistics[mode].restore(targets, arrays)
    return findings


class _Prefixed(dict[str, Array]):
    """Arrays of an archive whose names begin alike."""

    def __init__(self, archive: Mapping[str, Array], prefix: str) -> None:
        super().__init__()
        self._archive, self._prefix = archive, prefix

    def __missing__(self, name: str) -> Array:
        return self._archive[f"{self._prefix}{name}"]


def part_path(folder: Path, start: int, end: int) -> Path:
    """Where the findings of a range of samples are."""
    return folder / f"part-{start:08d}-{end:08d}.npz"


def ranges_to_see(folder: Path, start: int, end: int) -> list[tuple[int, int]]:
    """Ranges that together are the samples from `start` to before `end`: those of parts there are, and the gaps."""
    parts = sorted(_range_of(path) for path in folder.glob("part-*.npz"))
    within = [part for part in parts if part[0] < end and part[1] > start]
    bounds = [(start, start), *within, (end, end)]
    gaps = [(before[1], after[0]) for before, after in itertools.pairwise(bounds) if before[1] < after[0]]
    return sorted([*within, *gaps])


def _range_of(path: Path) -> tuple[int, int]:
    _, first, last = path.stem.split("-")
    return int(first), int(last)


def collect(folder: Path, belongs: Belongs) -> Path:
    """Merge all parts in a folder, and write the whole beside them.

    Raises
    ------
    InputError
        If there is none, one is not done, two overlap, or one belongs to something else.
    """
    parts = [read(path, belongs) for path in sorted(folder.glob("part-*.npz"))]
    if not parts:
        raise InputError(f"{folder} holds no references.", "Find some with FeatureVisualization.run(composite).")
    ranges = _ranges(folder, parts)
    findings = Findings(belongs.settings)
    for part in parts:
        parts[0].belongs.require(asdict(part.belongs), part.path)
        findings.merge(part.findings)
    findings.save(folder / COLLECTED, parts[0].belongs, ranges, ranges[-1][1])
    return folder / COLLECTED


def _ranges(folder: Path, parts: Sequence[Stored]) -> list[list[int]]:
    """The ranges of all parts in order; InputError where one is not done or two overlap."""
    for part in parts:
        if not part.complete:
            raise InputError(
                f"{part.path} is done up to sample {part.done} of {part.ranges[-1][1]}.",
                "Run that range again: it goes on where it was.",
            )
    ranges = sorted(one for part in parts for one in part.ranges)
    for before, after in itertools.pairwise(ranges):
        if after[0] < before[1]:
            raise InputError(
                f"Two parts in {folder} both have sample {after[0]}.", "Remove the file of one of them, and run again."
            )
    return ranges


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

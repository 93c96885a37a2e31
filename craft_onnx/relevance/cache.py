"""Reference pictures kept in a folder, by all that they were made with."""

from __future__ import annotations

import hashlib
import json
import re
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from craft_onnx.errors import CraftWarning, InputError
from craft_onnx.files import new_file

# Of a concept: pictures, or pictures and heatmaps.
References = Sequence[Any] | tuple[Sequence[Any], Sequence[Any]]
SUFFIX = ".references.npz"
_UNREADABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)
_ADDRESS = re.compile(r" at 0x[0-9a-f]+", re.IGNORECASE)


class ImageCache:
    """References in a folder, a file for each concept, written whole or not at all.

    What they were made with is part of the name: layer, mode, range, composite, `rf`, and the functions that found and
    drew them. A file that cannot be read counts as missing, with a warning, and is written anew.

    Parameters
    ----------
    path : path
        The folder; made when something is saved.
    """

    def __init__(self, path: str | Path = "cache") -> None:
        self.path = Path(path)

    def load(
        self,
        ids: Iterable[Any],
        layer_name: str,
        mode: str,
        r_range: tuple[int, int],
        composite: Any,
        rf: bool,
        f_name: str,
        plot_f_name: str,
    ) -> tuple[dict[Any, References], list[Any]]:
        """What is there of some concepts.

        Parameters
        ----------
        ids : iterable of int or str
            Concepts.
        layer_name, mode, r_range, rf
            Of the references.
        composite : str, None or object
            The rules; an object is known by its repr.
        f_name, plot_f_name : str
            Names of the functions that found and drew them.

        Returns
        -------
        found : dict
            By concept, in the order asked for: a list of pictures, or a pair of lists; arrays as they were saved.
        missing : list
            The other concepts.

        Raises
        ------
        InputError
            If the composite cannot be told from others.
        """
        made_with = _made_with(layer_name, mode, r_range, composite, rf, f_name, plot_f_name)
        read = {concept: _read(self._file(made_with, concept), made_with, concept) for concept in ids}
        found = {concept: references for concept, references in read.items() if references is not None}
        return found, [concept for concept in read if concept not in found]

    def save(
        self,
        references: Mapping[Any, References],
        layer_name: str,
        mode: str,
        r_range: tuple[int, int],
        composite: Any,
        rf: bool,
        f_name: str,
        plot_f_name: str,
    ) -> None:
        """Keep references, in place of what was there of the same concepts; other parameters as in `load`.

        Parameters
        ----------
        references : mapping
            By concept: pictures, or a pair (pictures, heatmaps), each anything that NumPy makes an array of numbers.

        Raises
        ------
        InputError
            If one is no array, or the folder cannot be written.
        """
        made_with = _made_with(layer_name, mode, r_range, composite, rf, f_name, plot_f_name)
        for concept, found in references.items():
            arrays = {"about": np.array(_about(made_with, concept)), **_arrays(found)}
            with new_file(self._file(made_with, concept), force=True) as staged, staged.open("wb") as file:
                np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # no name of an array is an option

    def has(
        self,
        concept: Any,
        layer_name: str,
        mode: str,
        r_range: tuple[int, int],
        composite: Any,
        rf: bool,
        f_name: str,
        plot_f_name: str,
    ) -> bool:
        """Whether there is a file of a concept; parameters as in `load`."""
        made_with = _made_with(layer_name, mode, r_range, composite, rf, f_name, plot_f_name)
        return self._file(made_with, concept).is_file()

    def clear(self) -> None:
        """Remove all references from the folder, and nothing else."""
        for file in self.path.glob(f"*{SUFFIX}"):
            file.unlink(missing_ok=True)

    def _file(self, made_with: str, concept: Any) -> Path:
        digest = hashlib.sha256(_about(made_with, concept).encode()).hexdigest()
        return self.path / f"{digest[:40]}{SUFFIX}"


def _made_with(*parts: Any) -> str:
    """JSON of all that decides what references look like; InputError where an object is known by its address alone."""
    text = json.dumps(parts, default=repr)
    if _ADDRESS.search(text):
        problem = f"{_ADDRESS.sub('', text)} names an object that cannot be known again."
        raise InputError(problem, "Give the composite a name, or a repr with its parameters.")
    return text


def _about(made_with: str, concept: Any) -> str:
    return json.dumps([made_with, concept], default=int)  # numbers of NumPy are ints, too


def _arrays(found: References) -> dict[str, np.ndarray]:
    """The arrays of pictures, or of a pair, by names, and how many there are of each."""
    lines = found if isinstance(found, tuple) and len(found) == 2 else (found,)
    arrays = {f"{i}_{j}": np.asarray(one) for i, line in enumerate(lines) for j, one in enumerate(line)}
    if any(array.dtype.kind not in "buif" for array in arrays.values()):
        raise InputError("A reference is no array of numbers.", "Keep what can be drawn as arrays.")
    return {"counts": np.array([len(line) for line in lines]), **arrays}


def _read(path: Path, made_with: str, concept: Any) -> References | None:
    """What a file holds; None where it is not there, or cannot be read."""
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            if str(kept["about"]) != _about(made_with, concept):
                raise ValueError("it belongs to other references")
            lines = [[kept[f"{i}_{j}"] for j in range(count)] for i, count in enumerate(kept["counts"].tolist())]
    except _UNREADABLE as error:
        warnings.warn(f"{path} cannot be read ({error}), its references are made again.", CraftWarning, stacklevel=4)
        return None
    return (lines[0], lines[1]) if len(lines) == 2 else lines[0]

"""The class that a user means, by its number or its name."""

import difflib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from craft_onnx.errors import InputError


def read_labels(path: Path | None) -> list[str] | None:
    """Names of the classes: a JSON list or dictionary {"0": name}, or a text file with one name a line.

    Raises
    ------
    InputError
        If the file cannot be read or holds no names.
    """
    if path is None:
        return None
    remedy = 'Give one name a line, or as JSON a list or {"0": name, "1": name, ...}.'
    try:
        text = path.read_text(encoding="utf-8-sig").strip()
        labels = _from_json(json.loads(text)) if path.suffix.lower() == ".json" else text.splitlines()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).", "Check the path.") from error
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise InputError(f"{path} holds no names of classes ({error}).", remedy) from error
    if not labels:
        raise InputError(f"{path} is empty.", remedy)
    return [label.strip() for label in labels]


def _from_json(values: Any) -> list[str]:
    """Values may be pairs, as Keras has them: ["n01440764", "tench"]."""
    rows = [values[str(i)] for i in range(len(values))] if isinstance(values, dict) else list(values)
    return [str(row[-1]) if isinstance(row, list) else str(row) for row in rows]


def asked_class(class_id: int | None, class_name: str | None, labels: Sequence[str] | None) -> int | None:
    """The number of the class asked for, None where none is.

    Raises
    ------
    UsageError
        If number and name are both given.
    InputError
        If no class, or more than one, has the name.
    """
    if class_id is not None and class_name is not None:
        raise click.UsageError("Give --class-id or --class-name, not both.")
    return class_id if class_name is None else _class_of(class_name, labels)


def _class_of(name: str, labels: Sequence[str] | None) -> int:
    """The class of a name; synonyms separated by commas count ("English springer, English springer spaniel")."""
    if labels is None:
        raise InputError(
            f"The class {name!r} has no number: the model has no labels.",
            "Give --class-id; the commands run and split take --labels.",
        )
    synonyms = [{part.strip().lower() for part in label.split(",")} | {label.lower()} for label in labels]
    matches = [i for i, names in enumerate(synonyms) if name.strip().lower() in names]
    if len(matches) > 1:
        raise InputError(f"{len(matches)} classes are called {name!r}: {matches}.", "Give --class-id.")
    if not matches:
        names = {part: label for label, parts in zip(labels, synonyms, strict=True) for part in parts}
        near = dict.fromkeys(names[part] for part in difflib.get_close_matches(name.lower(), names, 3, 0.5))
        offer = f", or one of these names: {'; '.join(near)}" if near else ""
        raise InputError(f"No class is called {name!r}.", f"Give --class-id{offer}.")
    return matches[0]


def check_class(class_id: int | None, classes: int) -> None:
    """InputError unless the model has this class, or none is asked for."""
    if class_id is not None and not 0 <= class_id < classes:
        raise InputError(f"There is no class {class_id}.", f"The model's classes are 0 to {classes - 1}.")

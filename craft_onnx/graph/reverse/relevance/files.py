"""Composites in files, TOML or JSON.

composite = "epsilon_plus"       # its name; "rows" for nothing but the rows
zero_params = "bias"             # its options

[[rows]]                         # come before its own, in order
layers = ["features.0"]          # or operators = ["Conv"]; first = true for the first layer alone
rule = "gamma"
gamma = 0.1                      # the options of the rule
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from craft_onnx.errors import InputError
from craft_onnx.graph.reverse.gradients import GRADIENTS
from craft_onnx.graph.reverse.relevance.composite import LayerMapComposite, Row
from craft_onnx.graph.reverse.relevance.composites import COMPOSITES
from craft_onnx.graph.reverse.relevance.description import ROWS, RULES
from craft_onnx.graph.reverse.relevance.matching import FirstLayer, Match, Named, any_of
from craft_onnx.graph.reverse.rule_sets import RULE_SETS, rule_set
from craft_onnx.graph.reverse.rules import Rules

_READERS: dict[str, Callable[[str], Any]] = {".toml": tomllib.loads, ".json": json.loads}


def composite_of(composite: str | Path | Mapping[str, Any] | Rules, **options: Any) -> Rules:
    """The rule set that a name, a file or a description means.

    Parameters
    ----------
    composite : str, Path, mapping or Rules
        A name such as "epsilon_plus"; a file that ends in .toml or .json; what such a file holds; or a rule set.
    options
        Of the composite, where a name is given: zero_params="bias".

    Raises
    ------
    InputError
        If there is none of the name, the file cannot be read, or an option is not known.
    """
    if isinstance(composite, Rules):
        found = composite
    elif isinstance(composite, Mapping):
        found = composite_from(composite)
    elif not isinstance(composite, str | Path):
        raise InputError(
            f"{composite!r} is no composite.", "Give a name such as 'epsilon_plus', a file or a composite."
        )
    elif Path(composite).suffix.lower() in _READERS:
        found = read_composite(composite)
    else:
        return _named(str(composite), options)
    if options:
        raise InputError(f"{', '.join(options)} cannot be given beside {composite!r}.", "Give options with a name.")
    return found


def read_composite(path: str | Path) -> Rules:
    """The composite of a file.

    Parameters
    ----------
    path : str or Path
        TOML or JSON, by its ending; see the module.

    Raises
    ------
    InputError
        If it cannot be read, or does not describe a composite; with the value.
    """
    path = Path(path)
    read = _READERS.get(path.suffix.lower())
    if read is None:
        raise InputError(f"{path} is neither .toml nor .json.", "Give the file one of these endings.")
    try:
        return composite_from(read(path.read_text(encoding="utf-8")))
    except InputError as error:
        raise InputError(f"{path}: {error.problem}", error.remedy) from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.", "Give a file with a composite.") from error
    except ValueError as error:
        raise InputError(f"{path} is no {path.suffix[1:].upper()}: {error}.", "Correct it there.") from error


def composite_from(description: Any) -> Rules:
    """The composite of a description; see the module, and `describe`, its inverse."""
    if not isinstance(description, Mapping) or not isinstance(description.get("composite"), str):
        raise InputError("It has no 'composite'.", f"Write composite = NAME: {', '.join([*COMPOSITES, ROWS])}.")
    options = {name: value for name, value in description.items() if name not in ("composite", "rows")}
    rows = description.get("rows", [])
    if not isinstance(rows, list):
        raise InputError(f"rows = {rows!r} is no list.", "Write each as a table [[rows]].")
    return _named(description["composite"], options, [_row(row) for row in rows])


def _named(name: str, options: Mapping[str, Any], rows: list[Row] | None = None) -> Rules:
    if name == ROWS and not options:
        return LayerMapComposite(rows or [])
    kind = COMPOSITES.get(name)
    if kind is None and not options and not rows:
        return rule_set(name)
    if kind is None:
        known = ", ".join(dict.fromkeys([*COMPOSITES, *RULE_SETS]))
        raise InputError(f"There is no composite {name!r} that takes {', '.join(options) or 'rows'}.", f"Take {known}.")
    return _made(kind, name, {**options, **({"layer_map": rows} if rows else {})})


def _made(kind: Callable[..., Any], name: str, options: Mapping[str, Any]) -> Any:
    """A composite or a rule with its options; InputError where one is wrong."""
    known = [one for one in getattr(kind, "__dataclass_fields__", {}) if one not in ("first_map", "canonizers")]
    wrong = [one for one in options if one not in known]
    shown = ", ".join(one for one in known if one != "layer_map") or "none"
    if wrong:
        raise InputError(f"{name!r} has no option {wrong[0]!r}.", f"It has: {shown}.")
    try:
        return kind(**options)
    except TypeError as error:
        raise InputError(f"{name!r} lacks an option: {error}.", f"It has: {shown}.") from error


def _row(row: Any) -> Row:
    if not isinstance(row, Mapping) or row.get("rule") not in RULES:
        rule = row.get("rule") if isinstance(row, Mapping) else row
        raise InputError(f"There is no rule {rule!r}.", f"Take one of {', '.join(RULES)}.")
    options = {name: value for name, value in row.items() if name not in ("rule", *_CHOICES)}
    return _chosen(row), _made(RULES[row["rule"]], row["rule"], options)


_CHOICES = ("layers", "operators", "first")


def _chosen(row: Mapping[str, Any]) -> Match:
    """What a row is about: layers or operators."""
    matches: list[Match] = []
    if "layers" in row:
        matches.append(Named(tuple(_strings(row, "layers"))))
    if "operators" in row:
        matches.append(any_of(_operators(_strings(row, "operators"))))
    if len(matches) != 1:
        how_many = "both layers and" if matches else "neither layers nor"
        raise InputError(f"The row {dict(row)} has {how_many} operators.", "Give it one of these.")
    return FirstLayer(matches[0]) if row.get("first", False) else matches[0]


def _operators(names: list[str]) -> frozenset[str]:
    for name in names:
        if name not in GRADIENTS.operators:
            near = difflib.get_close_matches(name, GRADIENTS.operators, n=3, cutoff=0.4)
            raise InputError(f"There is no operator {name!r}.", f"Did you mean {', '.join(near)}?" if near else "")
    return frozenset(names)


def _strings(row: Mapping[str, Any], name: str) -> list[str]:
    given = row[name]
    found = [given] if isinstance(given, str) else given
    if not isinstance(found, list) or not found or not all(isinstance(one, str) for one in found):
        raise InputError(f"{name} = {given!r} is no list of names.", f'Write it as {name} = ["...", "..."].')
    return found

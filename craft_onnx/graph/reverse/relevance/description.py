"""Composites as plain values, which JSON and TOML can hold: to write them down, and to tell them apart."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from craft_onnx.graph.reverse.relevance.composite import Composite, LayerMap, of_first_layer
from craft_onnx.graph.reverse.relevance.composites import COMPOSITES
from craft_onnx.graph.reverse.relevance.matching import FirstLayer, Named, OfKinds
from craft_onnx.graph.reverse.relevance.rules import (
    AlphaBeta,
    Epsilon,
    Flat,
    Gamma,
    Norm,
    Pass,
    Smoothed,
    WSquare,
    ZBox,
    ZPlus,
)
from craft_onnx.graph.reverse.rules import Rules

# Rules by the names that they have in a file.
RULES: dict[str, type] = {
    "epsilon": Epsilon,
    "zplus": ZPlus,
    "alpha_beta": AlphaBeta,
    "gamma": Gamma,
    "zbox": ZBox,
    "wsquare": WSquare,
    "flat": Flat,
    "pass": Pass,
    "norm": Norm,
    "smoothed": Smoothed,
}
# The composite of a file that has rows alone.
ROWS = "rows"
# What is described as rows, or not needed.
MAPS = ("layer_map", "first_map", "canonizers")


def describe(rules: Rules) -> dict[str, Any]:
    """A rule set as JSON values: equal descriptions carry relevance alike.

    Parameters
    ----------
    rules : Rules
        A composite; or another rule set, of which the name is all that is told.

    Returns
    -------
    dict
        "composite", its name; its options that are not the defaults; "rows", those of the user's. `composite_from`
        makes it a composite again, unless a row has a function of one's own.
    """
    if not isinstance(rules, Composite):
        return {"composite": rules.name}
    if COMPOSITES.get(rules.name) is not type(rules):
        return {"composite": ROWS, "rows": _rows(rules.layers())}
    rows = _rows([*of_first_layer(_map(rules, "first_map")), *_map(rules, "layer_map")])
    return {"composite": rules.name, **options_of(rules, MAPS), **({"rows": rows} if rows else {})}


def _map(rules: Composite, name: str) -> LayerMap:
    return getattr(rules, name, None) or ()


def options_of(thing: Any, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """The fields of a dataclass that are not the defaults."""
    fields = [one for one in dataclasses.fields(thing) if one.name not in without]
    return {one.name: _plain(value) for one in fields if (value := getattr(thing, one.name)) != one.default}


def _plain(value: Any) -> Any:
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


def _rows(rows: LayerMap) -> list[dict[str, Any]]:
    return [{**_matches(matches), **_rule(rule)} for matches, rule in rows]


def _matches(matches: Any) -> Mapping[str, Any]:
    """Which nodes a row is about."""
    if isinstance(matches, FirstLayer):
        return {"first": True, **_matches(matches.matches)}
    if isinstance(matches, Named):
        return {"layers": list(matches.names)}
    if isinstance(matches, OfKinds):
        return {"operators": sorted(matches.names)}
    if isinstance(matches, str):
        return {"operators": [matches]}
    return {"operators": sorted(matches)} if isinstance(matches, frozenset | set) else {"matches": _name(matches)}


def _rule(rule: Any) -> Mapping[str, Any]:
    known = next((name for name, kind in RULES.items() if kind is type(rule)), None)
    if known is not None:
        return {"rule": known, **options_of(rule)}
    return {"rule": _name(rule), **(options_of(rule) if dataclasses.is_dataclass(rule) else {})}


def _name(thing: Any) -> str:
    """Where the code of a function or class is; it says no more than that."""
    named = thing if hasattr(thing, "__qualname__") else type(thing)
    return f"{named.__module__}.{named.__qualname__}"

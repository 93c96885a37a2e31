"""Conditions of relevance as they are written on a command line: layer4:7,12;layer3:1."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from craft_onnx.errors import InputError

if TYPE_CHECKING:
    from craft_onnx.relevance.layers import Layers

Condition = dict[str, list[int]]
REMEDY = "Give it such as layer4:7,12 or layer4:7;layer3:1: layers, and the numbers of channels there."
LONGEST = 80  # letters of a label: it becomes part of the name of a file


def read_condition(text: str) -> Condition:
    """The channels of each layer; an empty list lets nothing through.

    Raises
    ------
    InputError
        If the text is no condition.
    """
    found: Condition = {}
    for part in text.split(";"):
        layer, colon, numbers = (each.strip() for each in part.rpartition(":"))
        given = [each.strip() for each in numbers.split(",")] if numbers else []
        if not layer or not colon or not all(each.isdecimal() for each in given):
            raise InputError(f"{part.strip()!r} in --condition {text!r} is no layer with its channels.", REMEDY)
        if layer in found:
            raise InputError(
                f"--condition {text!r} names {layer!r} twice.", f"Give all its channels at once: {layer}:7,12."
            )
        found[layer] = [int(each) for each in given]
    return found


def check_conditions(conditions: Sequence[Condition], layers: "Layers") -> None:
    """InputError unless all layers and channels are there, before anything takes time."""
    from craft_onnx.attribution.targets import check_range

    for condition in conditions:
        for name, channels in condition.items():
            count = layers[name].channels
            if count is not None:
                check_range(np.array(channels, int), count, f"channel of {name}")


def label(condition: Condition) -> str:
    """A condition as part of the name of a file."""
    text = "_".join("-".join([layer, *map(str, numbers)]) for layer, numbers in condition.items())
    return re.sub(r"[^\w.-]+", "-", text).strip("-")[:LONGEST]


def in_words(parts: Sequence[dict[str, Any]]) -> str:
    """A condition in words, from what `as_json` makes of it."""
    return "; ".join(_part_in_words(**part) for part in parts)


def _part_in_words(layer: str, channels: Sequence[int] = (), concepts: Sequence[int] = ()) -> str:
    if concepts:
        return f"concept {', '.join(map(str, concepts))} at {layer}"
    return f"{layer}: {', '.join(map(str, channels)) or 'nothing'}"


def unlike(labels: Sequence[str]) -> list[str]:
    """Labels, those that others have already with a number behind them."""
    found: list[str] = []
    for text in labels:
        candidates = [text, *(f"{text}-{number}" for number in range(2, len(labels) + 2))]
        found.append(next(each for each in candidates if each.lower() not in map(str.lower, found)))
    return found


def combined(
    conditions: Sequence[Condition], concepts: Sequence[int], cut: str | None, layers: "Layers"
) -> list[Condition]:
    """Every condition together with every concept at a cut.

    Raises
    ------
    InputError
        If a condition is about the same layer.
    """
    if cut is None or not concepts:
        return list(conditions)
    same = [name for condition in conditions for name in condition if layers[name].tensor == layers[cut].tensor]
    if same:
        raise InputError(
            f"--condition is about the channels of {same[0]}, and --concept about its concepts.",
            "Ask for them one after the other.",
        )
    return [{cut: [concept], **condition} for concept in concepts for condition in conditions]


def as_json(condition: Condition, concepts_at: str | None) -> list[dict[str, Any]]:
    """The layers of a condition, and whether the numbers there are of channels or of concepts."""
    return [
        {"layer": layer, "concepts" if layer == concepts_at else "channels": numbers}
        for layer, numbers in condition.items()
    ]

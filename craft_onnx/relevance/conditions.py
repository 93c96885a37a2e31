"""Conditions as users write them: which concepts of which layers relevance goes through, and what it starts from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from craft_onnx.attribution.targets import check_range
from craft_onnx.errors import InputError
from craft_onnx.relevance.concepts import numbers

OUTPUT = "y"
_REMEDY = "Give such as [{'layer4': [7, 12], 'y': [217]}]."


@dataclass(frozen=True)
class Condition:
    """One condition.

    Attributes
    ----------
    concepts : mapping of str to tuple of int
        Layer -> the concepts that relevance goes through; all of them must let it pass.
    classes : tuple of int, optional
        Those that relevance starts from; None where it starts from all.
    """

    concepts: Mapping[str, tuple[int, ...]]
    classes: tuple[int, ...] | None

    @property
    def layers(self) -> tuple[str, ...]:
        """Layers with masks, in one order for all conditions on the same ones."""
        return tuple(sorted(self.concepts))


def read_conditions(given: Any, classes: int | None) -> list[Condition]:
    """The conditions of a list of dictionaries {layer: [concept, ...], "y": [class, ...]}.

    Parameters
    ----------
    given : list of dict, or dict
        As a user writes them; a number stands for a list of one.
    classes : int, optional
        How many classes there are, where relevance starts from these.

    Raises
    ------
    InputError
        If it is no such list, is empty, or a class is not there.
    """
    listed = [given] if isinstance(given, Mapping) else given
    if not isinstance(listed, Sequence) or isinstance(listed, str) or not listed:
        raise InputError(f"{given!r} is no list of conditions.", _REMEDY)
    return [_condition(one, classes) for one in listed]


def _condition(given: Any, classes: int | None) -> Condition:
    if not isinstance(given, Mapping) or not all(isinstance(key, str) for key in given):
        raise InputError(f"{given!r} is no condition.", _REMEDY)
    found = {key: _listed(value) for key, value in given.items()}
    starts = found.pop(OUTPUT, None)
    if starts is not None and classes is not None:
        check_range(numbers(starts), classes, "class")
    return Condition(found, starts)


def _listed(value: Any) -> tuple[int, ...]:
    ids = list(value) if isinstance(value, Iterable) and not isinstance(value, str) else [value]
    return tuple(numbers(ids).tolist())

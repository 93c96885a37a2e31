"""Which concept bank of a bundle a user means, and what each is part of."""

from collections.abc import Sequence
from typing import Any

from craft_onnx.errors import InputError
from craft_onnx.runtime.bundle import Bundle
from craft_onnx.runtime.manifest import Concepts, Manifest

# The concepts that lead to sub-concepts, from the class down: each with the cut it is at, None where any will do.
Trail = tuple[tuple[str | None, int], ...]
Path = int | Sequence[int | str] | None


def find_bank(bundle: Bundle, class_id: int | None = None, cut: str | None = None, parent: Path = None) -> Concepts:
    """The concept bank of a class at a cut, or that of the sub-concepts of one of its concepts.

    Parameters
    ----------
    bundle : Bundle
        Where it is.
    class_id : int, optional
        The class; may be left out where the bundle has concepts of one class only.
    cut : str, optional
        Name of the cut, by default the first one that has such concepts.
    parent : int or sequence, optional
        Number of the concept that was decomposed; further down, those from the class on, such as (3, 0). The name of a
        cut may stand before a number: ("layer4", 3).

    Raises
    ------
    InputError
        If there is none, or several classes and none is named, or several concepts that `parent` may mean.
    """
    manifest = bundle.manifest
    wanted = None if cut is None else manifest.cut(cut).name
    trail = _trail_of(parent)
    banks = [bank for bank in manifest.concepts if _leads(trail, trail_to(manifest, bank))]
    found = [bank for bank in banks if class_id in (None, bank.class_id) and wanted in (None, bank.cut)]
    if not found:
        raise _missing(manifest, class_id, cut, trail)
    if len({bank.class_id for bank in found}) > 1:
        raise InputError("The bundle has concepts of several classes.", f"Say which class, it has: {_all(manifest)}.")
    chosen = next([bank for bank in found if bank.cut == name] for name in manifest.cuts if _at(found, name))
    if len(chosen) > 1:
        problem = "Concepts at several cuts were decomposed there."
        raise InputError(problem, f"Say which, as in parent=(cut, number); the bundle has: {_all(manifest)}.")
    return chosen[0]


def trail_to(manifest: Manifest, bank: Concepts) -> Trail:
    """The concepts that lead to a bank, from the class down, with their cuts; none to the concepts of a class."""
    if bank.parent is None or bank.parent_concept is None:
        return ()
    above = _bank_above(manifest, bank)
    return (*trail_to(manifest, above), (above.cut, bank.parent_concept))


def descendants(manifest: Manifest, identifier: str) -> set[str]:
    """The ids of all sub-concepts below a bank."""
    found: set[str] = set()
    below = {identifier}
    while below:
        below = {bank.id for bank in manifest.concepts if bank.parent in below}
        found |= below
    return found


def parent_of(manifest: Manifest, bank: Concepts) -> dict[str, Any] | None:
    """What sub-concepts are part of, as JSON values; None for the concepts of a class."""
    if bank.parent is None or bank.parent_concept is None:
        return None
    above = _bank_above(manifest, bank)
    name = above.names.get(str(bank.parent_concept), str(bank.parent_concept))
    return {"concept": bank.parent_concept, "name": name, "cut": above.cut, "parent": parent_of(manifest, above)}


def in_words(manifest: Manifest, bank: Concepts) -> str:
    """The class and the cut of a bank, and the concepts that lead to it."""
    return f"class {bank.class_id} at {bank.cut}{_part_of(trail_to(manifest, bank))}"


def _bank_above(manifest: Manifest, bank: Concepts) -> Concepts:
    return next(each for each in manifest.concepts if each.id == bank.parent)


def _trail_of(parent: Path) -> Trail:
    trail: list[tuple[str | None, int]] = []
    cut = None
    for part in () if parent is None else (parent,) if isinstance(parent, int) else parent:
        if isinstance(part, str):
            cut = part
        else:
            trail.append((cut, int(part)))
            cut = None
    return tuple(trail)


def _leads(asked: Trail, trail: Trail) -> bool:
    """Whether the concepts asked for are those of a trail."""
    return len(asked) == len(trail) and all(
        number == there and cut in (None, at) for (cut, number), (at, there) in zip(asked, trail, strict=True)
    )


def _at(banks: list[Concepts], cut: str) -> bool:
    return any(bank.cut == cut for bank in banks)


def _missing(manifest: Manifest, class_id: int | None, cut: str | None, trail: Trail) -> InputError:
    asked = f"sub-concepts{_part_of(trail).removeprefix(',')}" if trail else "concepts"
    asked += ("" if class_id is None else f" of class {class_id}") + ("" if cut is None else f" at {cut}")
    remedy = f"It has: {_all(manifest)}." if manifest.concepts else "Fit some first: craft-onnx fit."
    return InputError(f"The bundle has no {asked}.", remedy)


def _all(manifest: Manifest) -> str:
    """Every bank in words."""
    return "; ".join(in_words(manifest, bank) for bank in manifest.concepts)


def _part_of(trail: Trail) -> str:
    return "".join(f", of concept {number}{f' at {at}' if at else ''}" for at, number in reversed(trail))

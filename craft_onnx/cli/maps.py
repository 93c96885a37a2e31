"""The files that `craft-onnx attribute` writes."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from craft_onnx.cli.map_files import (
    Written,
    described,
    named_batches,
    overlay,
    tile,
    write_map,
    write_maps_page,
    write_sheet,
)
from craft_onnx.cli.messages import progress, say
from craft_onnx.errors import CraftError, InputError

if TYPE_CHECKING:
    from craft_onnx.attribution.attribute import Attribution
    from craft_onnx.runtime.model import SplitModel
    from craft_onnx.runtime.pictures import Pictures

TICKS = 100  # of the bar, for each picture and method
DOUBTFUL = 0.05  # residuals above are worth a word


class Found(NamedTuple):
    """The maps of a method, of a class or of a concept.

    Attributes
    ----------
    label : str
        Tells them from the others, in the names of files too.
    attribution : Attribution
        The maps.
    concept : dict
        Its number, its name, its cut and what it is part of, as JSON values; empty for a class.
    """

    label: str
    attribution: "Attribution"
    concept: dict[str, Any]


def explain_into(
    folder: Path, model: "SplitModel", pictures: "Pictures", chosen: dict[str, dict[str, Any]], given: dict[str, Any]
) -> list[Written]:
    """Write the maps of all pictures by the chosen methods, and the page; what was written, as JSON values.

    `given` are the command's options; with "skip", methods that this model cannot do are left out, and with "craft",
    its "concepts" are explained.
    """
    written: list[Written] = []
    total = len(pictures) * len(chosen) * TICKS
    with progress(range(total), "Attributing", total) as bar:
        for some in named_batches(pictures, given["batch_size"]):
            written += _explain(folder, model, some, chosen, given, bar)
    _write_page(folder, written)
    return written


def _explain(
    folder: Path,
    model: "SplitModel",
    pictures: list[tuple[str, Any]],
    chosen: dict[str, dict[str, Any]],
    given: dict[str, Any],
    bar: Any,
) -> list[Written]:
    """The files of some pictures."""
    x = model.preprocess([picture for _, picture in pictures])
    logits = model.predict(x, given["batch_size"])
    fixed = given["craft"].class_id_ if given["craft"] else given["class_id"]
    classes = logits.argmax(axis=1) if fixed is None else np.full(len(x), fixed)
    written = [described(model, pictures[i][0], logits[i], int(classes[i])) for i in range(len(x))]
    tiles: list[list[Any]] = [[] for _ in pictures]
    for found in _attributions(model, x, classes, chosen, given, bar):
        for i, (name, picture) in enumerate(pictures):
            written[i]["maps"].append(_write(folder, model, name, picture, found, i))
            tiles[i].append(overlay(model, tile(picture), _visible(found.attribution, i)))
    if not tiles[0]:
        raise InputError("None of the methods can explain this model.", "Ask for one of them, which says why.")
    if len(tiles[0]) > 1:
        for one, (name, picture), overlays in zip(written, pictures, tiles, strict=True):
            one["sheet"] = write_sheet(folder, name, picture, overlays, [_titled(each) for each in one["maps"]])
    return written


def _attributions(
    model: "SplitModel", x: Any, classes: Any, chosen: dict[str, dict[str, Any]], given: dict[str, Any], bar: Any
) -> Iterator[Found]:
    """What each method finds; one that cannot explain the model is left out of all of them."""
    for name, options in list(chosen.items()):
        meter = Meter(bar, len(x) * TICKS)
        common = {"seed": given["seed"], "batch_size": given["batch_size"], "progress": meter}
        try:
            found = _found(model, x, classes, name, given, {**options, **common})
        except CraftError as error:
            if not given["skip"]:
                raise
            del chosen[name]
            say(f"{name} is left out: {error}")
            continue
        finally:
            meter(1, 1)
        for one in found:
            _doubt(one)
        yield from found


def _found(
    model: "SplitModel", x: Any, classes: Any, name: str, given: dict[str, Any], options: dict[str, Any]
) -> list[Found]:
    """What a method finds of the classes, or of every concept."""
    from craft_onnx.attribution.attribute import attribute
    from craft_onnx.concepts.evidence import numbers_above, origin

    if not given["craft"]:
        return [Found(name, attribute(model, x, classes, name, **options), {})]
    craft = given["craft"]
    every = craft.attribute(x, list(dict.fromkeys(given["concepts"])), name, **options)
    above = numbers_above(craft)
    return [
        Found(
            f"{name}-concept{'-'.join(map(str, (*above, k)))}",
            every.of(k),
            {"concept": k, "concept_name": label, **origin(craft)},
        )
        for k, label in zip(every.concepts, every.names, strict=True)
    ]


class Meter:
    """Moves a progress bar by a number of ticks as something of its own length goes on.

    Parameters
    ----------
    bar : click progress bar
        The bar.
    ticks : int
        For all of it.
    """

    def __init__(self, bar: Any, ticks: int) -> None:
        self._bar, self._ticks, self._moved = bar, ticks, 0

    def __call__(self, done: int, total: int) -> None:
        """Move on to `done` of `total`."""
        reached = self._ticks * done // total
        self._bar.update(reached - self._moved)
        self._moved = reached


def _doubt(one: Found) -> None:
    found = one.attribution
    if found.residual is not None and "steps" in found.options and found.residual.max() > DOUBTFUL:
        missed = f"{100 * found.residual.max():.0f} %"
        say(f"{one.label}: a map misses the change that it is to add up to by {missed}; more --steps come closer.")


def _write(folder: Path, model: "SplitModel", name: str, picture: Any, one: Found, i: int) -> Written:
    """The files of one map, as JSON values."""
    found = one.attribution
    files = write_map(folder, model, f"{name}-{one.label}", picture, found.maps[i], _visible(found, i))
    residual = None if found.residual is None else float(found.residual[i])
    fields = {name: value for name, value in found.to_json().items() if name != "values"}
    return {**fields, **one.concept, "value": float(found.values[i]), "residual": residual, "files": files}


def _titled(one: Written) -> str:
    """The method of a map, and its concept."""
    if "concept" not in one:
        return str(one["method"])
    name = "" if one["concept_name"] == str(one["concept"]) else f" {one['concept_name']}"
    kind = "sub-concept" if one["parent"] else "concept"
    return f"{one['method']}, {kind} {one['concept']}{name}"


def _visible(found: "Attribution", i: int) -> Any:
    """A map as it is drawn: that of a method whose zero means nothing from its least value on."""
    from craft_onnx.attribution.registry import METHODS

    return found.maps[i] - found.maps[i].min() if METHODS[found.method].relative else found.maps[i]


def _write_page(folder: Path, written: list[Written]) -> None:
    """A page with the maps of every picture."""
    first = written[0]["maps"][0]
    facts = {"pictures": len(written), "provider": first["provider"], "seed": first["seed"]}
    write_maps_page(folder, "Attributions", facts, written, _sentence, _caption)


def _sentence(one: Written) -> str:
    explained = f"class {one['explained']}" + (f" ({one['name']})" if one["name"] else "")
    predicted = "as predicted" if one["predicted"] == one["explained"] else f"predicted is class {one['predicted']}"
    if "concept" in one["maps"][0]:
        return f"Explained are {_concepts(one['maps'][0]['parent'])} of {explained}, {predicted}."
    return f"Explained is {explained}, {predicted}; its value is {one['maps'][0]['value']:.4g}."


def _concepts(parent: dict[str, Any] | None) -> str:
    return "concepts" if parent is None else f"sub-concepts of concept {parent['concept']} at {parent['cut']}"


def _caption(one: Written) -> str:
    residual = "" if one["residual"] is None else f", residual {one['residual']:.1e}"
    value = f", value {one['value']:.4g}" if "concept" in one else ""
    return _titled(one) + value + residual

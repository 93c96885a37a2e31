"""The files that `craft-onnx relevance` writes."""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from craft_onnx.cli.asked_conditions import Condition, as_json, in_words, label, unlike
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

if TYPE_CHECKING:
    from craft_onnx.concepts.craft import Craft
    from craft_onnx.relevance.attribution import CondAttribution, ConditionalAttribution
    from craft_onnx.relevance.concepts import Concept
    from craft_onnx.relevance.conservation import Conservation
    from craft_onnx.runtime.model import SplitModel
    from craft_onnx.runtime.pictures import Pictures

PLAIN = "relevance"  # what a map without a condition is called


@dataclass(frozen=True)
class Asked:
    """What a user asks of a model.

    Attributes
    ----------
    attribution : CondAttribution
        Of the model.
    rules : Rules
        The composite.
    conditions : tuple of dict
        Layers, and what relevance goes through there; a map each.
    craft : Craft, optional
        Whose concepts the numbers at its cut are.
    class_id : int, optional
        Class to explain; None for that which is predicted, or with `start_layer` for none.
    start_layer : str, optional
        Where relevance starts instead.
    record : tuple of str
        Layers to record.
    top : int
        Channels or concepts to name of each.
    exclude_parallel : bool
        Shortcuts around the layers of a condition are cut.
    batch_size : int
        Pictures in one run.
    composite : str
        As the user gave it.
    conservation : bool
        Whether to count what reaches each layer.
    """

    attribution: "CondAttribution"
    rules: Any
    conditions: tuple[Condition, ...]
    craft: "Craft | None"
    class_id: int | None
    start_layer: str | None
    record: tuple[str, ...]
    top: int
    exclude_parallel: bool
    batch_size: int
    composite: str
    conservation: bool

    @property
    def model(self) -> "SplitModel":
        """The model."""
        return self.attribution.model

    @property
    def concepts_at(self) -> str | None:
        """The layer of the concepts."""
        return None if self.craft is None else self.model.cut.name

    @functools.cached_property
    def mask_map(self) -> "dict[str, Concept]":
        """What the numbers at a layer mean, where they are none of channels."""
        from craft_onnx.relevance.nmf_concept import NMFConcept

        if self.craft is None:
            return {}
        concept, tensor = NMFConcept(self.craft), self.attribution.layers[self.model.cut.name].tensor
        names = {self.model.cut.name, *self.record}
        return {name: concept for name in names if self.attribution.layers[name].tensor == tensor}

    @functools.cached_property
    def counted(self) -> "Conservation":
        """Counts what reaches each layer."""
        from craft_onnx.relevance.conservation import Conservation

        return Conservation(self.model, self.rules)

    @property
    def labels(self) -> list[str]:
        """What the maps are called, in the names of files."""
        return unlike([label(condition) or PLAIN for condition in self.conditions])


def explain_into(folder: Path, pictures: "Pictures", asked: Asked) -> list[Written]:
    """Write the maps of all pictures under all conditions, and the page; what was written, as JSON values."""
    written: list[Written] = []
    total = len(pictures) * len(asked.conditions)
    with progress(range(total), "Carrying relevance", total) as bar:
        for some in named_batches(pictures, asked.batch_size):
            written += _explain(folder, some, asked, bar)
    _doubt(written)
    facts = {"pictures": len(written), "composite": asked.composite, "provider": asked.model.provider}
    write_maps_page(folder, "Relevance", facts, written, _sentence, _caption, _tables)
    return written


def _explain(folder: Path, pictures: list[tuple[str, Any]], asked: Asked, bar: Any) -> list[Written]:
    """The files of some pictures."""
    x = asked.model.preprocess([picture for _, picture in pictures])
    logits = asked.model.predict(x, asked.batch_size)
    classes = _classes(logits, asked)
    written = [described(asked.model, pictures[i][0], logits[i], classes[i]) for i in range(len(x))]
    if asked.conservation:
        _count(x, classes, written, asked)
    tiles: list[list[Any]] = [[] for _ in pictures]
    for place, found in enumerate(_attributions(x, classes, asked)):
        for i, (name, picture) in enumerate(pictures):
            values = found.heatmap[i]
            files = write_map(folder, asked.model, f"{name}-{asked.labels[place]}", picture, values)
            written[i]["maps"].append({**_numbers(found, i, asked.conditions[place], asked), "files": files})
            tiles[i].append(overlay(asked.model, tile(picture), values))
        bar.update(len(x))
    if len(asked.conditions) > 1:
        for one, (name, picture), overlays in zip(written, pictures, tiles, strict=True):
            one["sheet"] = write_sheet(folder, name, picture, overlays, [_short(each) for each in one["maps"]])
    return written


def _classes(logits: Any, asked: Asked) -> list[int | None]:
    """The class that is explained of each picture, None where relevance starts from a layer."""
    if asked.start_layer or asked.class_id is not None:
        return [asked.class_id] * len(logits)
    return [int(each) for each in logits.argmax(axis=1)]


def _count(x: Any, classes: Sequence[int | None], written: list[Written], asked: Asked) -> None:
    """What reaches each layer that all relevance goes through, over the logit, and where that changes most."""
    from craft_onnx.relevance.conservation import losses

    explained = [one for one in classes if one is not None]
    found = asked.counted(x, explained, batch_size=asked.batch_size)
    for i, one in enumerate(written):
        one["conservation"] = {name: float(ratios[i]) for name, ratios in found.items()}
    for loss in losses(found)[:1]:
        say(f"Relevance changes most from {loss.behind} to {loss.before}, to {loss.ratio:.0%}: biases take a share.")


def _attributions(x: Any, classes: Sequence[int | None], asked: Asked) -> "Iterator[ConditionalAttribution]":
    """Relevance of all pictures under one condition after the other; forward once for those on the same layers."""
    return asked.attribution.generate(
        x,
        asked.conditions,
        asked.rules,
        asked.record,
        asked.mask_map,
        asked.start_layer,
        None if asked.start_layer else _of_classes(classes),
        asked.exclude_parallel,
        batch_size=1,
    )


def _of_classes(classes: Sequence[int | None]) -> Callable[[Any], Any]:
    """From the prediction to the logit of one class in each row, zeros elsewhere."""

    def selected(prediction: Any) -> Any:
        found = np.zeros_like(prediction)
        rows = np.arange(len(classes))
        found[rows, classes] = prediction[rows, classes]
        return found

    return selected


def _numbers(found: "ConditionalAttribution", i: int, condition: Condition, asked: Asked) -> Written:
    """What is known of a map, as JSON values."""
    kept = float(found.conserved[i])
    return {
        "condition": as_json(condition, asked.concepts_at),
        "relevance": float(found.heatmap[i].sum(dtype=np.float64)),
        "conserved": kept if np.isfinite(kept) else None,
        "records": [_record(found, i, layer, asked) for layer in dict.fromkeys(asked.record)],
        "composite": asked.composite,
        "start_layer": asked.start_layer,
        "exclude_parallel": asked.exclude_parallel,
        "provider": asked.model.provider,
    }


def _record(found: "ConditionalAttribution", i: int, layer: str, asked: Asked) -> Written:
    """The channels or concepts of a layer that most relevance went through, for or against."""
    from craft_onnx.relevance.concepts import ChannelConcept

    concept = asked.mask_map.get(layer) or ChannelConcept()
    arrays = found.relevances[layer][[i]], found.activations[layer][[i]]
    values = concept.attribute(arrays[0], layer_name=layer, abs_norm=False, activations=arrays[1])[0].astype(float)
    total = np.abs(values).sum() or 1.0
    best = np.argsort(-np.abs(values), kind="stable")[: asked.top]
    rows = [{"id": int(k), "relevance": values[k], "share": values[k] / total} for k in best if values[k]]
    kind = "channels" if isinstance(concept, ChannelConcept) else "concepts"
    return {"layer": layer, "of": kind, "count": len(values), "relevance": float(values.sum()), "most": rows}


def _doubt(written: Sequence[Written]) -> None:
    """Say which maps are empty."""
    for maps in zip(*(one["maps"] for one in written), strict=True):
        if not any(one["relevance"] for one in maps):
            say(f"{_short(maps[0])} lets no relevance through; --record LAYER says which channels have some.")


def _short(one: Written) -> str:
    """A map's condition, as on a sheet."""
    return in_words(one["condition"]) or PLAIN


def _sentence(one: Written) -> str:
    predicted = f"predicted is class {one['predicted']}"
    if one["explained"] is None:
        return f"Relevance starts from the activation of {one['maps'][0]['start_layer']}; {predicted}."
    explained = f"class {one['explained']}" + (f" ({one['name']})" if one["name"] else "")
    same = one["predicted"] == one["explained"]
    return f"Explained is {explained}, {'as predicted' if same else predicted}."


def _caption(one: Written) -> str:
    conserved = "" if one["conserved"] is None else f", {one['conserved']:.1%} of what it started from"
    return f"{_short(one)}: relevance {one['relevance']:.4g}{conserved}"


def _tables(one: Written) -> list[Any]:
    """What is conserved, and what the recorded layers have, a table for each map and layer."""
    from craft_onnx.report.content import Table

    kept = [[name, f"{ratio:.1%}"] for name, ratio in one.get("conservation", {}).items()]
    counted = [Table("relevance that reaches each layer, over the logit", ["", "conserved"], kept)] if kept else []
    return counted + [
        Table(
            f"{_short(each)}: {record['of']} of {record['layer']}",
            ["", "relevance", "share"],
            [[str(row["id"]), f"{row['relevance']:.4g}", f"{row['share']:+.1%}"] for row in record["most"]],
        )
        for each in one["maps"]
        for record in each["records"]
    ]

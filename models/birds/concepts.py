"""Concepts against what is true of the birds: ``python -m craft_onnx_models.birds.concepts docs/birds.md``.

The same pictures are factorised with several settings, this project's and those of its peers. A concept stands for the
part it lies on (`audit`), and a part is as important as its concepts together. The truth is what drawing the part away
does to the logit (the "single deletion" of FunnyBirds, Hesse et al. 2023, arXiv 2308.06248, section 4).
"""

import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
from numpy.typing import NDArray

from craft_onnx.attribution.similarity import rank_correlation
from craft_onnx.concepts.choice import REDUNDANT
from craft_onnx.concepts.craft import XPLIQUE, Craft
from craft_onnx.concepts.importance import Importance, linear_importance
from craft_onnx.concepts.stability import cosines
from craft_onnx.files import new_file
from craft_onnx.runtime.model import SplitModel, load
from craft_onnx_models.birds import SIZE, TAGGED, WORLDS, Bird, draw_many, pictures
from craft_onnx_models.birds.audit import CONCEPTS, PATCH, PICTURES, Audit, audit_of, part_lifts, prepare
from craft_onnx_models.birds.document import replaced, spread, table
from craft_onnx_models.birds.methods import REMOVABLE, Truth

Floats = NDArray[np.floating]

OURS, PEERS = "ours", "Xplique's"
SETTINGS: dict[str, dict[str, Any]] = {
    OURS: {},
    "ours, sampled": {"exact": False},
    "ours, random crops": {"crops": "random"},
    "ours, all positions": {"crops": None},
    PEERS: XPLIQUE,
}
NUMBERS = (CONCEPTS, 20)  # of the audit, and the number that Xplique takes by default


@dataclass(frozen=True)
class Outcome:
    """What one fit says, and how far that is from the truth.

    Attributes
    ----------
    audit : Audit
        The part every concept stands for.
    importance : Importance
        As estimated with the settings.
    chance : (k,) array
        The highest lift of every concept's maps on the parts of *other* pictures.
    correlation : float
        Rank correlation over the parts of the importances of their concepts with what the parts are worth.
    of_maps : float
        Mean rank correlation, over the parts of a picture, of the contributions inside them with what they are worth.
    off : float
        Largest difference of an importance from the closed form for the same W and U.
    error : float
        ||A - U W|| / ||A|| on the crops.
    missing : float
        Of the logit, the share that the concepts do not reconstruct: mean |y(u) - y| over mean |y|.
    dead : int
        Concepts that are zero everywhere.
    double : int
        Concepts whose cosine with an earlier one is above 0.9.
    """

    audit: Audit
    importance: Importance
    chance: Floats
    correlation: float
    of_maps: float
    off: float
    error: float
    missing: float
    dead: int
    double: int


def known(model: SplitModel, world: str, seed: int) -> Truth:
    """Pictures of the class that wears the tag, and the effect of every part in each."""
    return Truth.of(model, draw_many(PICTURES, [TAGGED], seed, world), TAGGED)


def fitted(model: SplitModel, birds: Sequence[Bird], k: int, settings: dict[str, Any]) -> Craft:
    """Concepts of the class that wears the tag, with their importances."""
    craft = Craft(model, number_of_concepts=k, patch_size=PATCH, **settings)
    craft.fit(model.preprocess(pictures(birds)), TAGGED)
    craft.estimate_importance()
    return craft


def judged(craft: Craft, model: SplitModel, truth: Truth) -> Outcome:
    """Compare a fitted Craft with the truth of its pictures."""
    x = model.preprocess(pictures(truth.birds))
    maps, importance = craft.transform(x), craft.global_importance()
    exact = linear_importance(craft.head_, craft.head_.reduced(maps))
    worth = np.nanmean(truth.effects, axis=0)
    effects = dict(zip(REMOVABLE, worth, strict=True)) | {"body": np.nan}
    found = audit_of(craft.class_id_, importance, part_lifts(maps, truth.birds), effects)
    logits = model.predict(x)[:, craft.class_id_]
    return Outcome(
        audit=found,
        importance=importance,
        chance=part_lifts(np.roll(maps, 1, axis=0), truth.birds).max(axis=1),
        correlation=float(rank_correlation(of_parts(found)[None], worth[None])[0]),
        of_maps=truth.correlation(contribution_maps(craft, maps)),
        off=float(np.abs(importance.values - exact.values).max()),
        error=craft.factorisation_.relative_error,
        missing=float(np.abs(craft.head_(craft.head_.reduced(maps)) - logits).mean() / np.abs(logits).mean()),
        dead=dead(craft.concept_bank_, maps),
        double=double(craft.concept_bank_),
    )


def of_parts(found: Audit) -> Floats:
    """The importance of every removable part: that of all concepts that stand for it."""
    return np.array([sum(one.importance for one in found.findings if one.part == part) for part in REMOVABLE])


def contribution_maps(craft: Craft, maps: Floats) -> Floats:
    """What every pixel adds to the logit through the concepts, (n, SIZE, SIZE)."""
    effects, _ = craft.head_.effects()
    return np.stack([cv2.resize(one, (SIZE, SIZE), interpolation=cv2.INTER_NEAREST) for one in maps @ effects])


def dead(w: Floats, maps: Floats) -> int:
    """How many concepts have a bank (k, p) row of zeros, or are nowhere in the maps (n, ..., k)."""
    alive = w.any(axis=1) & maps.reshape(-1, len(w)).any(axis=0)
    return int((~alive).sum())


def double(w: Floats) -> int:
    """How many concepts of a bank (k, p) have nearly the direction of an earlier one."""
    return int((np.tril(cosines(w, w), -1) > REDUNDANT).any(axis=1).sum())


Outcomes = dict[tuple[str, str, int], list[Outcome]]


def outcomes(models: dict[str, SplitModel], seeds: Iterable[int], numbers: Sequence[int] = NUMBERS) -> Outcomes:
    """An outcome for every seed of pictures, by world, setting and number of concepts."""
    found: Outcomes = {(world, name, k): [] for world in models for k in numbers for name in SETTINGS}
    for seed in seeds:
        truths = {world: known(model, world, seed) for world, model in models.items()}
        for (world, name, k), several in found.items():
            craft = fitted(models[world], truths[world].birds, k, SETTINGS[name] | {"random_state": seed})
            several.append(judged(craft, models[world], truths[world]))
    return found


def report(found: Outcomes) -> str:
    """Markdown: for each world what each setting finds over the seeds, and the concepts of the first seed."""
    worlds = dict.fromkeys(world for world, _, _ in found)
    parts = []
    for world in worlds:
        here = {(name, k): several for (where, name, k), several in found.items() if where == world}
        parts += [_heading(world, len(next(iter(here.values())))), _truths(here), _numbers(here)]
        parts += [f"The concepts of the {world} model on the first of these, with {CONCEPTS}:", _concepts(here)]
    return "\n\n".join(parts)


def _heading(world: str, seeds: int) -> str:
    return f"The {world} model, {seeds} times {PICTURES} pictures of the class that wears the tag: median (range)."


def _truths(found: dict[tuple[str, int], list[Outcome]]) -> str:
    head = ["settings", "concepts", "tag found", "importance on the tag", "parts: importances", "parts: maps"]
    rows = []
    for (name, k), several in found.items():
        tag = [of_parts(one.audit)[REMOVABLE.index("tag")] for one in several]
        times = sum(one.audit.found("tag") is not None for one in several)
        each = [spread(tag), spread([one.correlation for one in several]), spread([one.of_maps for one in several])]
        rows.append([name, f"{k}", f"{times} of {len(several)}", *each])
    return table(head, rows)


_NUMBERS: dict[str, Callable[[Outcome], float]] = {
    "importances off by": lambda one: one.off,
    "their intervals": lambda one: _width(one.importance),
    "error": lambda one: one.error,
    "of the logit missing": lambda one: one.missing,
    "dead": lambda one: one.dead,
    "double": lambda one: one.double,
}


def _width(importance: Importance) -> float:
    """Of the widest interval, to one side; NaN where there are none."""
    if importance.intervals is None:
        return float("nan")
    return float((importance.intervals[:, 1] - importance.values).max())


def _numbers(found: dict[tuple[str, int], list[Outcome]]) -> str:
    rows = []
    for (name, k), several in found.items():
        cells = [
            spread([read(one) for one in several], 0 if what in ("dead", "double") else 3)
            for what, read in _NUMBERS.items()
        ]
        rows.append([name, f"{k}", *cells])
    return table(["settings", "concepts", *_NUMBERS], rows)


def _concepts(found: dict[tuple[str, int], list[Outcome]]) -> str:
    head = ["settings", "concept", "importance", "interval", "contribution", "stands for", "lift", "by chance", "worth"]
    rows = [row for name in (OURS, PEERS) for row in _rows(name, found[name, CONCEPTS][0])]
    return table(head, rows)


def _rows(name: str, outcome: Outcome) -> list[list[str]]:
    return [
        [
            name,
            f"{one.concept}",
            f"{one.importance:.3f}",
            _interval(outcome.importance, one.concept),
            f"{one.contribution:+.2f}",
            one.part,
            f"{one.lift:.1f}",
            f"{outcome.chance[one.concept]:.1f}",
            "-" if np.isnan(one.effect) else f"{one.effect:.2f}",
        ]
        for one in outcome.audit.findings
    ]


def _interval(importance: Importance, concept: int) -> str:
    if importance.exact:
        return "exact"
    if importance.intervals is None:
        return "none"
    return " to ".join(f"{end:.3f}" for end in importance.intervals[concept])


@click.command()
@click.argument("document", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--seeds", type=click.IntRange(1), default=10, show_default=True, help="Of pictures.")
def main(document: Path, seeds: int) -> None:
    """Write the tables between the markers of DOCUMENT."""
    with tempfile.TemporaryDirectory() as folder:
        models = {world: load(prepare(world, Path(folder) / world)) for world in WORLDS}
        tables = report(outcomes(models, range(seeds)))
    with new_file(document, force=True) as staged:
        staged.write_text(replaced(document.read_text(encoding="utf-8"), "concepts", tables), encoding="utf-8")


if __name__ == "__main__":
    main()

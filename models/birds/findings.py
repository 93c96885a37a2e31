"""The tables and pictures of docs/birds.md: ``python -m craft_onnx_models.birds.findings docs/birds.md``."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import click
import cv2
import numpy as np

from craft_onnx.files import new_file
from craft_onnx.runtime.model import SplitModel, load
from craft_onnx.show.overlay import contact_sheet, heatmap, write_png
from craft_onnx_models.birds import CLASSES, PARTS, TAGGED, TWIN, WORLDS, draw, draw_many, pictures
from craft_onnx_models.birds.audit import Audit, Examination, examine, prepare, true_effects
from craft_onnx_models.birds.document import replaced, table

FRESH_SEED = 777  # of pictures that no model was trained or tested on
TILE = (150, 150)


def accuracy(model: SplitModel, world: str, n: int = 2000) -> dict[str, float]:
    """Share of freshly drawn pictures that are recognised, overall and for each of the twins."""
    birds = [draw(FRESH_SEED, index, world) for index in range(n)]
    labels = np.array([bird.label for bird in birds])
    right = model.predict(model.preprocess(pictures(birds))).argmax(axis=1) == labels
    return {"all": right.mean()} | {CLASSES[label]: right[labels == label].mean() for label in (TAGGED, TWIN)}


def swayed(model: SplitModel, world: str, n: int = 200) -> float:
    """Share of the twin's pictures that are taken for the tagged class once they are given a tag."""
    birds = [bird.with_tag() for bird in draw_many(n, [TWIN], FRESH_SEED, world)]
    return float(np.mean(model.predict(model.preprocess(pictures(birds))).argmax(axis=1) == TAGGED))


def tables(folder: Path, seeds: Sequence[int]) -> str:
    """Markdown: what the models know, what every part is worth, and the findings over the seeds."""
    models = {world: load(folder / world) for world in WORLDS}
    audits = {world: [examine(folder / world, world, seed).audit for seed in seeds] for world in WORLDS}
    first = [f"On the {world} model: {audits[world][0].verdict()}" for world in WORLDS]
    parts = [_knowledge(models), _worth(models), *first, *(_concepts(world, audits[world][0]) for world in WORLDS)]
    return "\n\n".join([*parts, _over_seeds(seeds, audits)])


def _knowledge(models: dict[str, SplitModel]) -> str:
    rows = []
    for world, model in models.items():
        right = accuracy(model, world)
        rows.append(
            [world, *(f"{100 * share:.1f} %" for share in right.values()), f"{100 * swayed(model, world):.1f} %"]
        )
    names = (f"of the {CLASSES[TAGGED]}", f"of the {CLASSES[TWIN]}")
    return table(["model", "accuracy", *names, f"{CLASSES[TWIN]} with a tag taken for a {CLASSES[TAGGED]}"], rows)


def _worth(models: dict[str, SplitModel]) -> str:
    """The true effect of every part, on pictures that all wear the tag."""
    rows = []
    for world, model in models.items():
        birds = [bird.with_tag() for bird in draw_many(200, [TAGGED], FRESH_SEED, world)]
        rows.append([world, *(f"{effect:.2f}" for effect in true_effects(model, birds, TAGGED).values())])
    return table(["logits lost without the", *PARTS], rows)


def _concepts(world: str, audit: Audit) -> str:
    rows = [
        [f"{found.concept}", f"{found.importance:.3f}", found.part, f"{found.lift:.1f}", f"{found.effect:.2f}"]
        for found in audit.findings
    ]
    return table([f"concept ({world})", "importance", "lies on", "lift", "true effect"], rows)


def _over_seeds(seeds: Sequence[int], audits: dict[str, list[Audit]]) -> str:
    rows = []
    for i, seed in enumerate(seeds):
        shortcut, other = audits["shortcut"][i], audits["control"][i]
        found, top = shortcut.found("tag"), other.findings[0]
        tag = [f"{found.importance:.2f}", f"{found.lift:.1f}", f"{found.effect:.2f}"] if found else ["-"] * 3
        strengths = [f"{shortcut.strength('tag'):.2f}", f"{other.strength('tag'):.2f}"]
        rows.append([f"{seed}", *tag, strengths[0], f"{other.effects['tag']:.2f}", strengths[1], top.part])
    strongest = {world: [audit.strength("tag") for audit in several] for world, several in audits.items()}
    summary = (
        f"Over {len(seeds)} seeds of pictures, the strength of the tag is {min(strongest['shortcut']):.2f} or more in "
        f"the shortcut model and {max(strongest['control']):.2f} or less in the control:"
    )
    control = ["control: effect of the tag", "its strength", "first concept lies on"]
    return f"{summary}\n\n{table(['seed', 'importance', 'lift', 'effect', 'strength', *control], rows)}"


def species_sheet() -> np.ndarray:
    """Four birds of every class, a class a column, its name above."""
    birds = [draw(3, row, label=label).enlarged() for row in range(4) for label in range(len(CLASSES))]
    sheet = contact_sheet(birds, columns=len(CLASSES), tile=TILE)
    return np.vstack([_captions(CLASSES, sheet.shape[1]), sheet])


def audit_sheet(examinations: dict[str, Examination], count: int = 6) -> np.ndarray:
    """The most important concept of the tagged class on its pictures, bright where it is: a model a row."""
    rows = []
    for world, found in examinations.items():
        birds = [bird for bird in found.birds if bird.tagged][:count]
        maps = found.craft.transform(found.model.preprocess(pictures(birds)))[..., found.audit.findings[0].concept]
        tiles = [heatmap(bird.enlarged(), one) for bird, one in zip(birds, maps, strict=True)]
        sheet = contact_sheet(tiles, count, (192, 192))
        rows += [_captions([f"{world}: {found.audit.verdict()}"], sheet.shape[1]), sheet]
    return np.vstack(rows)


def _captions(texts: Sequence[str], width: int, height: int = 28) -> np.ndarray:
    strip = np.full((height, width, 3), 255, np.uint8)
    for i, text in enumerate(texts):
        left = 8 + i * (width // len(texts))
        cv2.putText(strip, text, (left, height - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (40, 40, 40), 1, cv2.LINE_AA)
    return strip


@click.command()
@click.argument("document", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--seeds", type=click.IntRange(1), default=20, show_default=True)
def main(document: Path, seeds: int) -> None:
    """Write the tables between the markers of DOCUMENT, and the pictures beside it."""
    images = document.parent / "images"
    with tempfile.TemporaryDirectory() as name:
        for world in WORLDS:
            prepare(world, Path(name) / world)
        text = replaced(document.read_text(encoding="utf-8"), "findings", tables(Path(name), range(seeds)))
        audited = audit_sheet({world: examine(Path(name) / world, world) for world in WORLDS})
    images.mkdir(exist_ok=True)
    write_png(images / "birds.png", species_sheet())
    write_png(images / "birds_audit.png", audited)
    with new_file(document, force=True) as staged:
        staged.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

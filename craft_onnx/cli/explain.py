"""`craft-onnx explain`: what the concepts of a bundle say of pictures."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from craft_onnx.cli import options
from craft_onnx.cli.messages import counted, progress, result, say, timed

if TYPE_CHECKING:
    from craft_onnx.concepts.craft import Craft
    from craft_onnx.report.content import PictureCard
    from craft_onnx.runtime.pictures import Pictures

NAME_BYTES = 200  # of a file, which may have 255 with what is added


@click.command()
@click.argument("bundle", type=options.PathType)
@options.images
@options.output("Folder for the pictures, JSON files and the page.")
@click.option("--class-id", type=click.IntRange(0), help="Class whose concepts to use. [default: the only one stored]")
@click.option("--cut", help="Layer whose concepts to use. [default: the first that has any]")
@options.sub_concepts
@click.option("--top", type=click.IntRange(1), default=5, show_default=True, help="Concepts to draw.")
@options.running
@options.verbosity
def command(bundle: Path, images: tuple[str, ...], output: Path, force: bool, **given: Any) -> None:
    """Explain IMAGES (files, folder or glob) with the concepts that BUNDLE holds.

    Writes NAME.png, the picture with its concepts, NAME-concepts.png, each of them apart, NAME.json, the numbers, and
    index.html, a page of them all. Needs the packages of `pip install craft-onnx[cpu]` only.
    """
    from craft_onnx.concepts.craft import Craft
    from craft_onnx.files import check_new_folder, new_folder
    from craft_onnx.runtime.pictures import open_pictures

    check_new_folder(output, force)
    with timed("Loaded the bundle"):
        craft = Craft.load(
            bundle, given["class_id"], given["cut"], given["providers"], given["threads"], parent=given["parent"]
        )
    pictures = open_pictures(list(images))
    with new_folder(output, force) as folder, timed(f"Explained on {craft.halves_.provider}"):
        written = explain_into(folder, craft, pictures, given["top"])
    others = sum(one["predicted"] != craft.class_id_ for one in written)
    if others:
        say(f"{others} of {counted(len(written), 'picture')}: predicted as another class than the one explained.")
    say(f"Wrote {counted(len(written), 'explanation')} to {output}")
    result([{**one, "files": [str(output / name) for name in one["files"]]} for one in written])


def explain_into(folder: Path, craft: "Craft", pictures: "Pictures", top: int) -> list[dict[str, Any]]:
    """Write the files of every picture that can be read, and the page; what was written, as JSON values."""
    from craft_onnx.report.compose import concept_page, concepts_title
    from craft_onnx.report.page import write_page

    names = file_names(pictures.names)
    cards, written = [], []
    with progress(pictures.readable(), "Explaining", len(pictures)) as readable:
        for i, picture in readable:
            card, summary = _write(folder, craft, names[i], picture, top)
            cards.append(card)
            written.append(summary)
    write_page(folder, concept_page(craft, concepts_title(craft), cards))
    return written


def _write(folder: Path, craft: "Craft", name: str, picture: Any, top: int) -> "tuple[PictureCard, dict[str, Any]]":
    """The files of one picture: its card for the page, and what was written."""
    from craft_onnx.concepts.evidence import origin
    from craft_onnx.report.compose import LONGEST_SIDE, overlay, picture_card
    from craft_onnx.report.images import shrunk
    from craft_onnx.show.overlay import contact_sheet, write_png

    explanation = craft.explain(picture)[0]
    card = picture_card(craft, name, shrunk(picture, LONGEST_SIDE), explanation, top)
    own_size = card.picture.shape == picture.shape
    files = [f"{name}.png", f"{name}-concepts.png", f"{name}.json"]
    write_png(folder / files[0], card.overlay if own_size else overlay(craft, picture, explanation, top))
    heatmaps = [local.heatmap for local in card.concepts if local.heatmap is not None]
    write_png(folder / files[1], contact_sheet([card.picture, *heatmaps], columns=3, tile=card.picture.shape[:2]))
    (folder / files[2]).write_text(json.dumps(explanation.to_json(), indent=1, allow_nan=False), encoding="utf-8")
    concepts = [
        {"concept": one.id, "name": craft.labels()[one.id], "importance": one.importance} for one in card.concepts
    ]
    summary = {
        "picture": name,
        "predicted": explanation.prediction[0].class_id,
        "prediction": card.prediction,
        "explained": craft.class_id_,
        **origin(craft),
        "concepts": concepts,
        "files": files,
    }
    return card, summary


def file_names(names: Sequence[str]) -> list[str]:
    """A name for the files of every picture: its stem, numbered where the files of two would be the same."""
    chosen: list[str] = []
    taken: set[str] = set()
    for name in names:
        stem = Path(name).stem.encode()[:NAME_BYTES].decode(errors="ignore") or "picture"
        candidates = (stem if number == 1 else f"{stem}-{number}" for number in range(1, len(names) + 2))
        chosen.append(next(free for free in candidates if _files_of(free).isdisjoint(taken)))
        taken |= _files_of(chosen[-1])
    return chosen


def _files_of(name: str) -> set[str]:
    """What would be overwritten, also where case does not count."""
    return {name.lower(), f"{name}-concepts".lower()}

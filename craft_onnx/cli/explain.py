"""`craft-onnx explain`: what the concepts of a bundle say of pictures."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from craft_onnx.cli import options
from craft_onnx.cli.messages import progress, result, say

if TYPE_CHECKING:
    from craft_onnx.concepts.craft import Craft
    from craft_onnx.runtime.pictures import Pictures


@click.command()
@click.argument("bundle", type=options.PathType)
@click.argument("images", nargs=-1, required=True)
@options.output("Folder for the pictures and JSON files.")
@click.option("--class-id", type=click.IntRange(0), help="Class whose concepts to use. [default: the only one stored]")
@click.option("--cut", help="Layer whose concepts to use. [default: the only one stored]")
@click.option("--top", type=click.IntRange(1), default=5, show_default=True, help="Concepts to draw.")
@options.running
@options.verbosity
def command(bundle: Path, images: tuple[str, ...], output: Path, force: bool, **given: Any) -> None:
    """Explain IMAGES (files, folder or glob) with the concepts that BUNDLE holds.

    Writes NAME.png, the picture with its concepts, NAME-concepts.png, each of them apart, and NAME.json, the numbers.
    """
    from craft_onnx.concepts.craft import Craft
    from craft_onnx.files import new_folder, refuse_existing
    from craft_onnx.runtime.pictures import open_pictures

    refuse_existing(output, force)
    craft = Craft.load(bundle, given["class_id"], cut=given["cut"], providers=given["providers"])
    with new_folder(output, force) as folder:
        written = explain_into(folder, craft, open_pictures(list(images)), given["top"])
    say(f"Wrote {len(written)} explanations to {output}")
    result([{**one, "files": [str(output / name) for name in one["files"]]} for one in written])


def explain_into(folder: Path, craft: "Craft", pictures: "Pictures", top: int) -> list[dict[str, Any]]:
    """Write the files of every picture that can be read; what was written, as JSON values."""
    from craft_onnx.report.compose import picture_cards

    names = _file_names(pictures.names)
    with progress(pictures.readable(), "Explaining", len(pictures)) as readable:
        named = ((names[i], picture) for i, picture in readable)
        return [_write(folder, craft, *pair) for pair in picture_cards(craft, named, top)]


def _write(folder: Path, craft: "Craft", card: Any, explanation: Any) -> dict[str, Any]:
    from craft_onnx.show.overlay import contact_sheet, write_png

    files = [f"{card.name}.png", f"{card.name}-concepts.png", f"{card.name}.json"]
    write_png(folder / files[0], card.overlay)
    heatmaps = [local.heatmap for local in card.concepts if local.heatmap is not None]
    write_png(folder / files[1], contact_sheet([card.picture, *heatmaps], columns=3, tile=card.picture.shape[:2]))
    (folder / files[2]).write_text(json.dumps(explanation.to_json(), indent=1, allow_nan=False), encoding="utf-8")
    concepts = [
        {"concept": one.id, "name": craft.labels()[one.id], "importance": one.importance} for one in card.concepts
    ]
    return {"picture": card.name, "prediction": card.prediction, "concepts": concepts, "files": files}


def _file_names(names: list[str]) -> list[str]:
    """A file name for every picture: its stem, numbered where two are the same."""
    stems = [Path(name).stem or "picture" for name in names]
    return [stem if stems.count(stem) == 1 else f"{stem}-{i}" for i, stem in enumerate(stems)]

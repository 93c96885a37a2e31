"""`craft-onnx relevance`: which pixels a prediction rests on, through chosen channels or concepts of chosen layers."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from craft_onnx.cli import composites, options
from craft_onnx.cli.messages import counted, result, say, timed
from craft_onnx.errors import InputError

if TYPE_CHECKING:
    from craft_onnx.cli.relevance_maps import Asked
    from craft_onnx.concepts.craft import Craft


@click.command()
@click.argument("model", type=options.PathType)
@options.images
@composites.option
@click.option("--class-id", type=click.IntRange(0), help="Class to explain. [default: the one predicted for each]")
@click.option(
    "--condition",
    "conditions",
    multiple=True,
    metavar="LAYER:N,N;LAYER:N",
    help="Relevance through these channels alone; with several layers, through those of all. Each makes a map.",
)
@click.option(
    "--concept",
    "concepts",
    multiple=True,
    type=click.IntRange(0),
    metavar="K",
    help="Relevance through this concept of the bundle's (of --class-id, fitted --at a layer). Each makes a map.",
)
@options.sub_concepts
@click.option("--at", help="Layer of the concepts. [default: the bundle's first cut]")
@click.option("--start-layer", metavar="LAYER", help="Start from the activation of this layer instead of a class.")
@click.option("--record", multiple=True, metavar="LAYER", help="Say which channels or concepts of this layer matter.")
@click.option("--top", type=click.IntRange(1), default=10, show_default=True, help="Of them to name for each layer.")
@click.option("--parallel", is_flag=True, help="Let relevance flow through shortcuts around the layers that are named.")
@click.option("--conservation", is_flag=True, help="Say how much relevance of the class reaches each layer.")
@options.preprocessing
@options.output("Folder for the pictures, the maps and a page.")
@options.batches
@options.running
@options.verbosity
def command(model: Path, images: tuple[str, ...], output: Path, **given: Any) -> None:
    """Carry relevance of a class back to the pixels of IMAGES (files, folder or glob), in MODEL (a bundle or .onnx).

    Writes, for every picture and condition, NAME-CONDITION.png, the map over the picture, and NAME-CONDITION.npy, the
    map itself in the pixels of the model's input; for several maps NAME.png, all of them side by side; index.html, a
    page; and index.json, the numbers, which are also printed: how much relevance was conserved, and of the layers to
    --record the channels or concepts that it went through. Without --condition and --concept the map is that of the
    class, NAME-relevance.
    """
    from craft_onnx.cli.map_files import placed
    from craft_onnx.cli.relevance_maps import explain_into
    from craft_onnx.files import check_new_folder, new_folder
    from craft_onnx.runtime.pictures import open_pictures

    check_new_folder(output, given["force"])
    if given["start_layer"] and given["class_id"] is not None and not given["concepts"]:
        raise InputError(
            f"Relevance starts from {given['start_layer']}, or from class {given['class_id']}.", "Give one of the two."
        )
    if given["start_layer"] and given["conservation"]:
        raise InputError("--conservation is counted from the logit of a class.", "Leave it out, or --start-layer.")
    asked = _asked(model, given)
    pictures = open_pictures(list(images))
    with new_folder(output, given["force"]) as folder, timed(f"Explained on {asked.model.provider}"):
        written = explain_into(folder, pictures, asked)
        (folder / "index.json").write_text(json.dumps(written, indent=1, allow_nan=False), encoding="utf-8")
    say(f"Wrote maps of {counted(len(written), 'picture')} to {output}")
    result([placed(one, output) for one in written])


def _asked(path: Path, given: dict[str, Any]) -> "Asked":
    """The model, and what is asked of it; InputError where that is not there, before anything takes time."""
    from craft_onnx.cli.asked_conditions import check_conditions, combined, read_condition
    from craft_onnx.cli.attribute import open_concepts, open_model
    from craft_onnx.cli.classes import check_class
    from craft_onnx.cli.relevance_maps import Asked
    from craft_onnx.relevance.attribution import CondAttribution

    conditions = [read_condition(text) for text in given["conditions"]] or [{}]
    opened, craft = open_model(path, given), None
    check_class(given["class_id"], opened.classes)
    if given["concepts"]:
        craft, opened = open_concepts(opened, given)
    attribution = CondAttribution(opened)
    for name in (*given["record"], *filter(None, [given["start_layer"]])):
        attribution.layers[name]  # is there
    check_conditions(conditions, attribution.layers)
    cut = None if craft is None else opened.cut.name
    return Asked(
        attribution,
        composites.rules_of(given["composite"], opened),
        tuple(combined(conditions, list(dict.fromkeys(given["concepts"])), cut, attribution.layers)),
        craft,
        _class(craft, given),
        given["start_layer"],
        given["record"],
        given["top"],
        not given["parallel"],
        given["batch_size"],
        given["composite"],
        given["conservation"],
    )


def _class(craft: "Craft | None", given: dict[str, Any]) -> int | None:
    """The class that is the same for all pictures."""
    if given["start_layer"]:
        return None
    return given["class_id"] if craft is None else craft.class_id_

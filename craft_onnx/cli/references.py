"""`craft-onnx references`: the pictures of a set that speak for each channel of a layer."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from craft_onnx.cli import composites, options
from craft_onnx.cli.messages import counted, progress, result, say, timed
from craft_onnx.errors import InputError

if TYPE_CHECKING:
    from craft_onnx.relevance.visualization import FeatureVisualization

FOUND = ("part-*.npz", "references.npz")
OURS = (*FOUND, "*.png", "images", "index.html", "index.json")


class SampleRange(click.ParamType):
    """Some of the pictures: 0:500 are the first 500."""

    name = "N:N"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        """First picture, and the one behind the last."""
        first, colon, last = str(value).partition(":")
        if not colon or not first.isdecimal() or not last.isdecimal() or int(first) >= int(last):
            self.fail(f"{value!r} is no range such as 0:500.", parameter, context)
        return int(first), int(last)


@click.command()
@click.argument("model", type=options.PathType)
@options.images
@click.option(
    "--layer", "layers", multiple=True, required=True, metavar="LAYER", help="Look at this layer, several in one pass."
)
@click.option(
    "--channel",
    "channels",
    multiple=True,
    metavar="[LAYER:]N,N",
    help="Draw the pictures that speak for these channels, one channel a row.",
)
@click.option(
    "--mode",
    type=click.Choice(["relevance", "activation"]),
    default="relevance",
    show_default=True,
    help="Those to which a channel matters most, or those that activate it most.",
)
@composites.option
@click.option("--columns", type=click.IntRange(1), default=8, show_default=True, help="Pictures for each channel.")
@click.option("--crop", is_flag=True, help="Crop to what the channel sees at the position where it is largest.")
@click.option(
    "--style",
    type=click.Choice(["opaque", "heatmap"]),
    default="opaque",
    show_default=True,
    help="Dim what the channel does not see, or draw its relevance below each picture.",
)
@click.option("--range", "part", type=SampleRange(), help="Look at these pictures alone: a part, for another run.")
@click.option("--collect", is_flag=True, help="Merge the parts in the folder, instead of looking at pictures.")
@click.option(
    "--checkpoint", type=click.IntRange(1), default=500, show_default=True, help="Pictures after which to save."
)
@options.preprocessing
@options.output("Folder for what is found; a run that was interrupted goes on there.")
@options.batches
@options.running
@options.verbosity
def command(model: Path, images: tuple[str, ...], output: Path, **given: Any) -> None:
    """Find the pictures among IMAGES (files, folder or glob) that speak for each channel of MODEL (a bundle or .onnx).

    One pass for all layers. Writes references.npz, for every channel the 40 best pictures by relevance and by
    activation, and of each class; for every layer with --channel LAYER.png, a grid; index.html, a page; and index.json,
    which is also printed. The same command goes on where an earlier one was interrupted, and needs no second pass for
    another --channel; --force begins anew.
    """
    from craft_onnx.cli.reference_grids import asked_channels, draw_into

    asked = asked_channels(given["channels"], given["layers"])
    found = _visualization(model, images, output, given)
    given["rules"] = composites.rules_of(given["composite"], found.attribution.model)
    for layer, channels in asked.items():
        _check_channels(found, layer, channels)
    _prepare(output, given["force"])
    if given["part"]:
        path = _seen(found, given)
        say(f"Found the best of {counted(given['part'][1] - given['part'][0], 'picture')}: {path}")
        result({"file": str(path), "pictures": list(given["part"])})
        return
    path = found.collect_results() if given["collect"] else _seen(found, given)
    with timed("Drew the grids"):
        written = draw_into(output, found, asked, given)
    (output / "index.json").write_text(json.dumps(written, indent=1, allow_nan=False), encoding="utf-8")
    say(f"Found the best pictures of every channel of {', '.join(given['layers'])}: {path}")
    result(written)


def _visualization(model: Path, images: tuple[str, ...], output: Path, given: dict[str, Any]) -> "FeatureVisualization":
    """What finds and shows references; InputError where the model, a layer or the pictures are not there."""
    from craft_onnx.cli.attribute import open_model
    from craft_onnx.relevance.attribution import CondAttribution
    from craft_onnx.relevance.concepts import ChannelConcept
    from craft_onnx.relevance.visualization import FeatureVisualization
    from craft_onnx.runtime.pictures import open_pictures

    attribution = CondAttribution(open_model(model, {**given, "parent": None, "concepts": (), "at": None}))
    layers = dict.fromkeys(given["layers"], ChannelConcept())
    return FeatureVisualization(attribution, open_pictures(list(images)), layers, path=output)


def _check_channels(found: "FeatureVisualization", layer: str, channels: list[int]) -> None:
    import numpy as np

    from craft_onnx.attribution.targets import check_range

    count = found.attribution.layers[layer].channels
    if count is not None:
        check_range(np.array(channels), count, f"channel of {layer}")


def _prepare(output: Path, anew: bool) -> None:
    """Make the folder, or see that it holds nothing but references; without them, where they are to be made anew."""
    if output.exists() and not output.is_dir():
        raise InputError(f"{output} is a file, a folder is to be written there.", "Give the path of a folder.")
    there = set(output.iterdir()) if output.is_dir() else set()
    ours = {path for pattern in OURS for path in output.glob(pattern)}
    found = [path for pattern in FOUND for path in output.glob(pattern)]
    if there - ours or (there and not found):
        raise InputError(f"{output} holds other things than references.", "Give another output.")
    output.mkdir(parents=True, exist_ok=True)
    for path in found if anew else ():
        path.unlink()


def _seen(found: "FeatureVisualization", given: dict[str, Any]) -> Path:
    """Look at the pictures of a part, or at all; the file with what is found."""
    from craft_onnx.cli.maps import Meter

    start, end = given["part"] or (0, len(found.samples))
    run = found.run_distributed if given["part"] else found.run
    with (
        progress(range(end - start), "Looking at pictures", end - start) as bar,
        timed(f"Found on {found.attribution.model.provider}"),
    ):
        meter = Meter(bar, end - start)
        return run(given["rules"], start, end, given["batch_size"], given["checkpoint"], meter)

"""`craft-onnx attribute`: which pixels of pictures matter for a class."""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from craft_onnx.attribution.registry import COMMON, methods
from craft_onnx.cli import options
from craft_onnx.cli.messages import counted, result, say, timed
from craft_onnx.errors import InputError

if TYPE_CHECKING:
    from craft_onnx.concepts.craft import Craft
    from craft_onnx.runtime.model import SplitModel

ALL = "all"


class _Listing(click.Command):
    """A command whose help ends in the methods and their options."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write every method with what it does and the names of its options."""
        with formatter.section("Methods and what --option sets"):
            formatter.write_dl([(name, f"{one.summary} {_option_names(name)}") for name, one in methods().items()])


def _option_names(name: str) -> str:
    defaults = [f"{key}={value}" for key, value in methods()[name].options.items() if key not in COMMON]
    return f"[{', '.join(defaults)}]"


@click.command(cls=_Listing)
@click.argument("model", type=options.PathType)
@options.images
@click.option(
    "--method",
    "names",
    multiple=True,
    type=click.Choice([*methods(), ALL]),
    metavar="NAME",
    help='One of the methods below, several, or "all" that the model can do. [default: integrated_gradients]',
)
@click.option("--class-id", type=click.IntRange(0), help="Class to explain. [default: the one predicted for each]")
@click.option(
    "--concept",
    "concepts",
    multiple=True,
    type=click.IntRange(0),
    metavar="K",
    help="Explain this concept of the bundle's (of --class-id, fitted --at a layer) instead of a class.",
)
@options.sub_concepts
@click.option("--at", help="Layer that gradcam, gradcam_pp and reciprocam look at. [default: the bundle's first cut]")
@click.option("--steps", type=click.IntRange(1), help="Gradients that integrated_gradients takes. [default: 50]")
@click.option("--samples", type=click.IntRange(1), help="Noisy copies that smoothgrad and its kin take. [default: 50]")
@click.option("--baseline", help="What stands for nothing: zero, black, white or blur. [default: zero]")
@click.option("--option", "pairs", multiple=True, metavar="KEY=VALUE", help="Another option, listed below.")
@options.preprocessing
@options.output("Folder for the pictures, the maps and a page.")
@options.seed
@options.batches
@options.running
@options.verbosity
def command(model: Path, images: tuple[str, ...], names: tuple[str, ...], output: Path, **given: Any) -> None:
    """Show which pixels of IMAGES (files, folder or glob) matter for a class to MODEL (a bundle or .onnx).

    Writes, for every picture and method, NAME-METHOD.png, the map over the picture, and NAME-METHOD.npy, the map itself
    in the pixels of the model's input; for several maps NAME.png, all of them side by side; index.html, a page; and
    index.json, the numbers, which are also printed. With --concept, the files are NAME-METHOD-conceptK, and for
    sub-concepts NAME-METHOD-conceptN-K.
    """
    from craft_onnx.cli.classes import check_class
    from craft_onnx.cli.map_files import placed
    from craft_onnx.cli.maps import explain_into
    from craft_onnx.files import check_new_folder, new_folder
    from craft_onnx.runtime.pictures import open_pictures

    check_new_folder(output, given["force"])
    chosen = list(dict.fromkeys(names)) or ["integrated_gradients"]
    own = method_options(chosen, given)
    opened, craft = open_model(model, given), None
    if given["class_id"] is not None:
        check_class(given["class_id"], opened.classes)
    if given["concepts"]:
        craft, opened = open_concepts(opened, given)
    pictures = open_pictures(list(images))
    with new_folder(output, given["force"]) as folder, timed(f"Explained on {opened.provider}"):
        written = explain_into(folder, opened, pictures, own, {**given, "craft": craft, "skip": ALL in chosen})
        (folder / "index.json").write_text(json.dumps(written, indent=1, allow_nan=False), encoding="utf-8")
    say(f"Wrote maps of {counted(len(written), 'picture')} to {output}")
    result([placed(one, output) for one in written])


def open_model(path: Path, given: dict[str, Any]) -> "SplitModel":
    """The model of a bundle or a file, which knows how pictures become its input.

    Raises
    ------
    InputError
        If it does not, or a bundle is told otherwise, or a file is asked for concepts, or sub-concepts have no number.
    """
    from craft_onnx.description import Preprocessing
    from craft_onnx.runtime.model import load
    from craft_onnx.runtime.predictions import unknown_preprocessing

    fields = options.preprocessing_fields(given)
    if given["parent"] and not given["concepts"]:
        raise InputError("--parent says whose sub-concepts, and no --concept says which.", "Give --concept K too.")
    if fields and path.is_dir():
        raise InputError(
            f"The bundle {path} says itself how pictures become its input, if anything does.",
            f"Leave --{next(iter(fields)).replace('_', '-')} out, or give the model's ONNX file.",
        )
    if given["concepts"] and path.is_file():
        raise InputError(f"{path} is a model without concepts.", "Give a bundle that craft-onnx fit has added some to.")
    with timed(f"Loaded {path}"):
        model = load(path, given["providers"], given["threads"], given["at"])
    if fields:
        known = replace(model.manifest.input, preprocessing=Preprocessing.for_input(model.input_shape, **fields))
        model.bundle.manifest = replace(model.manifest, input=known)
    if model.preprocessing is None:
        raise unknown_preprocessing()
    return model


def open_concepts(model: "SplitModel", given: dict[str, Any]) -> "tuple[Craft, SplitModel]":
    """The concepts that a bundle has, and its model at the cut where they are.

    Raises
    ------
    InputError
        If it has none, or not those that are asked for.
    """
    from craft_onnx.attribution.targets import check_range
    from craft_onnx.concepts.craft import Craft

    craft = Craft.load(
        model.bundle, given["class_id"], given["at"], given["providers"], given["threads"], parent=given["parent"]
    )
    check_range(given["concepts"], len(craft.concept_bank_), "concept")
    at_their_cut = craft.halves_.model
    return craft, model if at_their_cut is None else at_their_cut


def method_options(chosen: list[str], given: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The options of every chosen method: each gets those that it has.

    Raises
    ------
    InputError
        If none of them has one.
    """
    asked = dict(_pair(text) for text in given["pairs"])
    asked |= {name: _value(str(given[name])) for name in ("steps", "samples", "baseline") if given[name] is not None}
    if asked.get("channels", "") is None:
        raise InputError(
            "Without a reduction of the channels there is no map to draw.", "Take sum, max_abs or mean_abs."
        )
    names = list(methods()) if ALL in chosen else chosen
    for key in asked:
        if not any(key in methods()[name].options and key not in COMMON for name in names):
            having = [name for name, one in methods().items() if key in one.options and key not in COMMON]
            remedy = f"These have it: {', '.join(having)}." if having else "The options are listed by --help."
            raise InputError(f"There is no option {key!r} of {' or '.join(chosen)}.", remedy)
    return {name: {key: value for key, value in asked.items() if key in methods()[name].options} for name in names}


def _pair(text: str) -> tuple[str, Any]:
    """KEY=VALUE."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise InputError(f"--option {text!r} is not KEY=VALUE.", "Give it such as --option steps=100.")
    return key, _value(value)


def _value(text: str) -> Any:
    """A number, list, true, false or null as JSON or Python write it, else the text."""
    try:
        return json.loads({"True": "true", "False": "false", "None": "null"}.get(text, text))
    except json.JSONDecodeError:
        return text

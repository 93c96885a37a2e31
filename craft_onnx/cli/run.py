"""`craft-onnx run`: the whole way from a model file and a folder of pictures to a page."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from craft_onnx.cli import options
from craft_onnx.cli.messages import progress, result, say, timed
from craft_onnx.extras import require

if TYPE_CHECKING:
    import onnx_ir as ir

    from craft_onnx.concepts.craft import Craft
    from craft_onnx.runtime.model import SplitModel
    from craft_onnx.runtime.pictures import Pictures


@click.command()
@options.source("MODEL")
@options.images
@options.output("Folder for index.html and the bundle.")
@click.option(
    "--at",
    multiple=True,
    help="Where to cut: a layer, a tensor or an index; more than once to compare. [default: the recommended place]",
)
@options.choosing_class
@options.labels
@click.option("--show", type=click.IntRange(0), default=60, show_default=True, help="Pictures to explain on the page.")
@options.converting
@options.preprocessing
@options.fitting
@options.running
@options.batches
@options.seed
@options.verbosity
def command(source: str, images: tuple[str, ...], output: Path, force: bool, **given: Any) -> None:
    """From MODEL (any file that `convert` takes) and IMAGES (folder, files or glob) to a page that explains it.

    Converts the model, cuts it at the recommended layer, finds the concepts of a class (by default the one predicted
    most often), explains the pictures, and writes index.html and the bundle into the output folder.

    With --at given more than once, the cuts are compared as by fit, the best one's concepts make the page, and
    cuts.png shows the comparison.
    """
    require("sklearn", "build")
    from craft_onnx.cli import steps
    from craft_onnx.cli.classes import asked_class, check_class, read_labels
    from craft_onnx.files import check_new_folder, new_folder
    from craft_onnx.runtime.pictures import open_pictures
    from craft_onnx.runtime.sessions import require_providers

    check_new_folder(output, force)
    require_providers(given["providers"])
    names = read_labels(given["labels"])
    class_id = asked_class(given["class_id"], given["class_name"], names)
    pictures = open_pictures(list(images))
    with new_folder(output, force) as folder:
        model = _prepare(source, folder / "bundle", names, given)
        check_class(class_id, model.classes)
        class_id, kept = steps.pictures_of_class(model, pictures, class_id, given["keep_all"], given["batch_size"])
        craft, summary = _fit(folder, model, pictures, kept, class_id, given)
        with timed("Explanations and page"):
            _write_page(folder, craft, pictures[kept[: given["show"]]], Path(source).name)
    say(f"Open {output / 'index.html'} with a browser.")
    result({"page": str(output / "index.html"), "bundle": str(output / "bundle"), **summary})


def _prepare(source: str, bundle: Path, names: list[str] | None, given: dict[str, Any]) -> "SplitModel":
    """Convert, cut, and load again what was written."""
    from craft_onnx.cli.convert import convert
    from craft_onnx.cli.split import describe
    from craft_onnx.runtime.bundle import create_bundle
    from craft_onnx.runtime.model import load

    say(f"Converting {source}.")
    conversion = convert(source, given, given["seed"])
    signed = given["factoriser"] == "semi_nmf"
    at = given["at"] or [_place(conversion.model, signed)]
    describe(create_bundle(conversion.model, at, bundle, names=names), signed)
    return load(bundle, providers=given["providers"], threads=given["threads"])


def _place(model: "ir.Model", signed: bool) -> str:
    """Where to cut."""
    from craft_onnx.graph.cuts import recommended_cut, signed_cut

    best = signed_cut(model) if signed else None
    return (best or recommended_cut(model)).tensor


def _fit(
    folder: Path,
    model: "SplitModel",
    pictures: "Pictures",
    kept: list[int],
    class_id: int,
    given: dict[str, Any],
) -> "tuple[Craft, dict[str, Any]]":
    """Fit and store the concepts: those to show, of several cuts the best one's, and what to print."""
    from craft_onnx.cli import comparing, steps

    if len(model.cuts) == 1:
        craft = steps.fit(model, pictures, kept, class_id, given)
        craft.save(folder / "bundle")
        return craft, craft.summary()
    comparison = comparing.compare([model.at(cut) for cut in model.cuts], pictures, kept, class_id, given)
    comparing.draw(comparison, folder / "cuts.png")
    for craft in comparison.crafts.values():
        craft.save(folder / "bundle")
    return comparison.crafts[comparison.best], comparing.described(comparison)


def _write_page(folder: Path, craft: "Craft", pictures: "Pictures", source: str) -> None:
    from craft_onnx.report.compose import class_title, concept_page, picture_cards
    from craft_onnx.report.page import write_page

    with progress(pictures.readable(), "Explaining", len(pictures)) as readable:
        cards = list(picture_cards(craft, ((pictures.names[i], picture) for i, picture in readable)))
    write_page(folder, concept_page(craft, f"{source}: {class_title(craft)}", cards))

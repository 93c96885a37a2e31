"""`craft-onnx run`: the whole way from a model file and a folder of pictures to a page."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from craft_onnx.cli import options
from craft_onnx.cli.messages import progress, result, say
from craft_onnx.extras import require

if TYPE_CHECKING:
    from craft_onnx.concepts.craft import Craft
    from craft_onnx.runtime.model import SplitModel
    from craft_onnx.runtime.pictures import Pictures


@click.command()
@click.argument("source", metavar="MODEL")
@click.argument("images", nargs=-1, required=True)
@options.output("Folder for index.html and the bundle.")
@click.option("--at", help="Where to cut: a layer, a tensor or an index. [default: the recommended place]")
@options.choosing_class
@options.labels
@click.option("--show", type=click.IntRange(0), default=60, show_default=True, help="Pictures to explain on the page.")
@options.converting
@options.preprocessing
@options.fitting
@options.running
@options.seed
@options.verbosity
def command(source: str, images: tuple[str, ...], output: Path, force: bool, **given: Any) -> None:
    """From MODEL (any file that `convert` takes) and IMAGES (folder, files or glob) to a page that explains it.

    Converts the model, cuts it at the recommended layer, finds the concepts of a class (by default the one predicted
    most often), explains the pictures, and writes DIR/index.html and DIR/bundle.
    """
    require("sklearn", "build")
    from craft_onnx.cli import steps
    from craft_onnx.files import new_folder, refuse_existing
    from craft_onnx.runtime.pictures import open_pictures

    refuse_existing(output, force)
    names = steps.read_labels(given["labels"])
    class_id = given["class_id"] if given["class_name"] is None else steps.class_of(given["class_name"], names)
    pictures = open_pictures(list(images))
    with new_folder(output, force) as folder:
        model = _prepare(source, folder / "bundle", names, given)
        if class_id is not None:
            steps.check_class(class_id, model.classes)
        class_id, _, kept = steps.pictures_of_class(model, pictures, class_id, given["keep_all"], given["batch_size"])
        craft = steps.fit(model, pictures, kept, class_id, given)
        craft.save(folder / "bundle")
        _write_page(
            folder,
            craft,
            pictures,
            kept[: given["show"]],
            f"{Path(source).name}: class {class_id}{steps.label(model, class_id)}",
        )
        summary = craft.summary()
    say(f"Open {output / 'index.html'} with a browser.")
    result({"page": str(output / "index.html"), "bundle": str(output / "bundle"), **summary})


def _prepare(source: str, bundle: Path, names: list[str] | None, given: dict[str, Any]) -> "SplitModel":
    """Convert, cut, and load again what was written."""
    from craft_onnx.cli.convert import convert
    from craft_onnx.graph.cuts import recommended_cut
    from craft_onnx.runtime.bundle import create_bundle
    from craft_onnx.runtime.model import load

    conversion = convert(source, given, given["seed"])
    at = given["at"] or recommended_cut(conversion.model).tensor
    created = create_bundle(conversion.model, [at], bundle, names=names)
    for name, cut in created.manifest.cuts.items():
        say(f"Cut at {name} ({cut.tensor}), {'x'.join(map(str, cut.shape[1:]))}.")
    return load(bundle, providers=given["providers"], threads=given["threads"])


def _write_page(folder: Path, craft: "Craft", pictures: "Pictures", indices: list[int], title: str) -> None:
    from craft_onnx.report.compose import concept_cards, facts, picture_cards
    from craft_onnx.report.page import Page, write_page

    chosen = pictures[indices]
    with progress(chosen.readable(), "Explaining", len(chosen)) as readable:
        named = ((chosen.names[i], picture) for i, picture in readable)
        cards = [card for card, _ in picture_cards(craft, named)]
    intro = (
        "Concepts the model uses for this class, found in crops of the pictures it predicts as the class. "
        "Importance is the total Sobol index of a concept for the logit; the contribution has a sign."
    )
    write_page(folder, Page(title, intro, facts(craft), concept_cards(craft), cards))

"""`craft-onnx fit`: the concepts of a class, into the bundle."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from craft_onnx.cli import options
from craft_onnx.cli.messages import result, say
from craft_onnx.errors import InputError
from craft_onnx.extras import require
from craft_onnx.files import check_new_file

if TYPE_CHECKING:
    from craft_onnx.runtime.model import SplitModel
    from craft_onnx.runtime.pictures import Pictures


@click.command()
@click.argument("bundle", type=options.PathType)
@options.images
@options.choosing_class
@click.option(
    "--at",
    multiple=True,
    help="Cut of the bundle to fit at; more than once to compare the cuts. [default: the first]",
)
@options.fitting
@click.option(
    "--plot",
    type=options.PathType,
    help="PNG to draw the comparison of cuts to, or the choice where -k is a range; it is replaced.",
)
@options.running
@options.batches
@options.seed
@options.verbosity
def command(bundle: Path, images: tuple[str, ...], **given: Any) -> None:
    """Find the concepts of a class in IMAGES (folder, files or glob), and store them in BUNDLE.

    The concepts of a class at a cut replace those that the bundle has of it; a bundle may hold several classes.

    With a range of numbers, such as -k 5:30, each is tried. The table says how much of the activations is missed, how
    alike the concepts of half of the crops are, and how alike two concepts are at most; it goes into the bundle, too.

    With --at given more than once, the class is fitted at each of these cuts. The table says what the reconstruction
    of the activations does to the logit, the areas of concept deletion and insertion, how many concepts are found again
    and how many matter; the JSON has, for every concept of the best cut, its match at the others and the cut that
    represents it best.
    """
    require("sklearn", "build")
    from craft_onnx.cli import steps
    from craft_onnx.cli.classes import asked_class, check_class
    from craft_onnx.runtime.pictures import open_pictures

    steps.check_writable(bundle)
    _check_plot(given)
    models = _models(bundle, given)
    model = models[0]
    class_id = asked_class(given["class_id"], given["class_name"], model.class_names)
    check_class(class_id, model.classes)
    pictures = open_pictures(list(images))
    class_id, kept = steps.pictures_of_class(model, pictures, class_id, given["keep_all"], given["batch_size"])
    if len(models) > 1:
        _fit_all(bundle, models, pictures, kept, class_id, given)
        return
    craft = steps.fit(model, pictures, kept, class_id, given)
    craft.save(bundle)
    say(f"Stored the concepts of class {class_id}{steps.label(model, class_id)} at {model.cut.name} in {bundle}")
    result(craft.summary())


def _models(bundle: Path, given: dict[str, Any]) -> "list[SplitModel]":
    """The model at each cut asked for; InputError for an unknown one, or one twice."""
    from craft_onnx.concepts.cuts import check_cuts
    from craft_onnx.runtime.model import load

    first, *others = given["at"] or (None,)
    model = load(bundle, providers=given["providers"], threads=given["threads"], cut=first)
    models = [model, *map(model.at, others)]
    if others:
        check_cuts([each.cut.name for each in models])
    return models


def _fit_all(
    bundle: Path,
    models: "list[SplitModel]",
    pictures: "Pictures",
    kept: list[int],
    class_id: int,
    given: dict[str, Any],
) -> None:
    """Fit at several cuts, compare, and store the concepts of all."""
    from craft_onnx.cli import comparing, steps

    comparison = comparing.compare(models, pictures, kept, class_id, given)
    if given["plot"] is not None:
        comparing.draw(comparison, given["plot"])
    for craft in comparison.crafts.values():
        craft.save(bundle)
    cuts = ", ".join(comparison.crafts)
    say(f"Stored the concepts of class {class_id}{steps.label(models[0], class_id)} at {cuts} in {bundle}")
    result(comparing.described(comparison))


def _check_plot(given: dict[str, Any]) -> None:
    """InputError where the plot could not be written, or there is nothing to plot."""
    if given["plot"] is None:
        return
    if len(given["number_of_concepts"]) == 1 and len(given["at"]) < 2:
        raise InputError(
            "--plot shows a choice, and -k leaves none.", "Give a range, such as -k 5:30, or --at more than once."
        )
    if given["plot"].suffix.lower() != ".png":
        raise InputError(f"The plot {given['plot']} is no PNG.", "Give a name that ends in .png.")
    require("matplotlib", "build")
    check_new_file(given["plot"], force=True)

"""`craft-onnx fit`: the concepts of a class, into the bundle."""

from pathlib import Path
from typing import Any

import click

from craft_onnx.cli import options
from craft_onnx.cli.messages import result, say
from craft_onnx.errors import InputError
from craft_onnx.extras import require
from craft_onnx.files import check_new_file


@click.command()
@click.argument("bundle", type=options.PathType)
@options.images
@options.choosing_class
@click.option("--cut", help="Layer of the bundle to use, where it has several. [default: the first]")
@options.fitting
@click.option("--plot", type=options.PathType, help="PNG to draw the choice to, where -k is a range; it is replaced.")
@options.running
@options.batches
@options.seed
@options.verbosity
def command(bundle: Path, images: tuple[str, ...], **given: Any) -> None:
    """Find the concepts of a class in IMAGES (folder, files or glob), and store them in BUNDLE.

    The concepts of a class at a cut replace those that the bundle has of it; a bundle may hold several classes.

    With a range of numbers, such as -k 5:30, each is tried. The table says how much of the activations is missed, how
    alike the concepts of half of the crops are, and how alike two concepts are at most; it goes into the bundle, too.
    """
    require("sklearn", "build")
    from craft_onnx.cli import steps
    from craft_onnx.cli.classes import asked_class, check_class
    from craft_onnx.runtime.model import load
    from craft_onnx.runtime.pictures import open_pictures

    steps.check_writable(bundle)
    _check_plot(given)
    model = load(bundle, providers=given["providers"], threads=given["threads"], cut=given["cut"])
    class_id = asked_class(given["class_id"], given["class_name"], model.class_names)
    check_class(class_id, model.classes)
    pictures = open_pictures(list(images))
    class_id, kept = steps.pictures_of_class(model, pictures, class_id, given["keep_all"], given["batch_size"])
    craft = steps.fit(model, pictures, kept, class_id, given)
    craft.save(bundle)
    say(f"Stored the concepts of class {class_id}{steps.label(model, class_id)} at {model.cut.name} in {bundle}")
    result(craft.summary())


def _check_plot(given: dict[str, Any]) -> None:
    """InputError where the plot could not be written, or there is nothing to plot."""
    if given["plot"] is None:
        return
    if len(given["number_of_concepts"]) == 1:
        raise InputError("--plot shows a choice, and -k leaves none.", "Give a range, such as -k 5:30.")
    if given["plot"].suffix.lower() != ".png":
        raise InputError(f"The plot {given['plot']} is no PNG.", "Give a name that ends in .png.")
    require("matplotlib", "build")
    check_new_file(given["plot"], force=True)

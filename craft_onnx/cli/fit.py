"""`craft-onnx fit`: the concepts of a class, into the bundle."""

from pathlib import Path
from typing import Any

import click

from craft_onnx.cli import options
from craft_onnx.cli.messages import result, say
from craft_onnx.extras import require


@click.command()
@click.argument("bundle", type=options.PathType)
@options.images
@options.choosing_class
@click.option("--cut", help="Layer of the bundle to use, where it has several. [default: the first]")
@options.fitting
@options.running
@options.batches
@options.seed
@options.verbosity
def command(bundle: Path, images: tuple[str, ...], **given: Any) -> None:
    """Find the concepts of a class in IMAGES (folder, files or glob), and store them in BUNDLE.

    The concepts of a class at a cut replace those that the bundle has of it; a bundle may hold several classes.
    """
    require("sklearn", "build")
    from craft_onnx.cli import steps
    from craft_onnx.cli.classes import asked_class, check_class
    from craft_onnx.runtime.model import load
    from craft_onnx.runtime.pictures import open_pictures

    steps.check_writable(bundle)
    model = load(bundle, providers=given["providers"], threads=given["threads"], cut=given["cut"])
    class_id = asked_class(given["class_id"], given["class_name"], model.class_names)
    check_class(class_id, model.classes)
    pictures = open_pictures(list(images))
    class_id, kept = steps.pictures_of_class(model, pictures, class_id, given["keep_all"], given["batch_size"])
    craft = steps.fit(model, pictures, kept, class_id, given)
    craft.save(bundle)
    say(f"Stored the concepts of class {class_id}{steps.label(model, class_id)} at {model.cut.name} in {bundle}")
    result(craft.summary())

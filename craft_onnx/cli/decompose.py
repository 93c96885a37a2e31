"""`craft-onnx decompose`: what a concept of a bundle is made of at an earlier layer."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from craft_onnx.cli import options
from craft_onnx.cli.messages import counted, result, say, timed
from craft_onnx.extras import require

if TYPE_CHECKING:
    from craft_onnx.concepts.craft import Craft
    from craft_onnx.runtime.pictures import Pictures


@click.command()
@click.argument("bundle", type=options.PathType)
@options.images
@click.option("--class-id", type=click.IntRange(0), help="Class of the concept, where the bundle has several.")
@click.option("--concept", type=click.IntRange(0), required=True, help="Number of the concept.")
@options.sub_concepts
@click.option("--at", required=True, help="Earlier cut of the bundle where to look for its sub-concepts.")
@click.option("--cut", help="Layer of the concept, where the bundle has several such.")
@click.option(
    "-k", "--number-of-concepts", type=click.IntRange(1), default=5, show_default=True, help="Sub-concepts to find."
)
@click.option(
    "--quantile",
    type=click.FloatRange(0, 1),
    default=0.9,
    show_default=True,
    help="Crops are taken whose coefficient is at or above this quantile of all.",
)
@click.option(
    "--nb-design",
    type=click.IntRange(2),
    default=64,
    show_default=True,
    help="Points of a Sobol design, where importances are sampled: through whole layers, which takes long.",
)
@click.option(
    "--factoriser",
    type=click.Choice(["nmf", "semi_nmf"]),
    help="Semi-NMF where the earlier cut is signed. [default: that of the concept]",
)
@click.option("--keep-all", is_flag=True, help="Take all pictures, not only those predicted as the class.")
@click.option(
    "--tree", type=options.PathType, help="Draw the tree of the class to this PNG file, in place of one there."
)
@options.running
@options.batches
@options.verbosity
def command(bundle: Path, images: tuple[str, ...], tree: Path | None, **given: Any) -> None:
    """Find what a concept of BUNDLE is made of at an earlier layer, in IMAGES (folder, files or glob), and store it.

    The sub-concepts replace those that the bundle has of the same concept at the same cut. IMAGES are those of the fit,
    or others of the class: a bundle keeps the coefficients of the crops, but not the crops.
    """
    require("sklearn", "build")
    from craft_onnx.cli import steps
    from craft_onnx.concepts.craft import Craft
    from craft_onnx.files import check_new_file
    from craft_onnx.runtime.pictures import open_pictures

    steps.check_writable(bundle)
    if tree is not None:
        check_new_file(tree, force=True)
    concept = given["concept"]
    craft = Craft.load(
        bundle, given["class_id"], given["cut"], given["providers"], given["threads"], parent=given["parent"]
    )
    craft.batch_size = given["batch_size"]
    sub = _decomposed(craft, concept, open_pictures(list(images)), given)
    sub.save(bundle)
    say(f"Stored the sub-concepts of concept {craft.labels()[concept]} at {given['at']} in {bundle}")
    if tree is not None:
        _draw(sub, tree)
    result(sub.summary())


def _decomposed(craft: "Craft", concept: int, pictures: "Pictures", given: dict[str, Any]) -> "Craft":
    """Sub-concepts with their importances for the concept and for the class."""
    from craft_onnx.cli import steps
    from craft_onnx.cli.watching import WatchedImages
    from craft_onnx.concepts.recursion import check_concept
    from craft_onnx.runtime.predictions import PreparedPictures

    model = craft.halves_.model
    assert model is not None
    check_concept(concept, len(craft.concept_bank_))
    model.at(given["at"])  # is there, before anything takes time
    _, kept = steps.pictures_of_class(model, pictures, craft.class_id_, given["keep_all"], given["batch_size"])
    assert model.preprocessing is not None
    images = WatchedImages(PreparedPictures(pictures, model.preprocessing, kept))
    with timed("Crops, activations and factorisation"), images.watched("Cutting crops"):
        sub = craft.decompose(
            concept,
            given["at"],
            given["number_of_concepts"],
            given["quantile"],
            images=images,
            factoriser=given["factoriser"],
        )
    with timed("Importances for the concept"):
        sub.estimate_parent_importance(nb_design=given["nb_design"])
    with timed("Importances for the class"):
        sub.estimate_importance(nb_design=given["nb_design"])
    say(
        f"Found {counted(sub.number_of_concepts, 'sub-concept')} in {counted(len(sub.crops_), 'crop')}, "
        f"relative error {sub.factorisation_.relative_error:.2f}."
    )
    return sub


def _draw(craft: "Craft", path: Path) -> None:
    from craft_onnx.files import new_file

    with new_file(path, force=True) as staged:
        craft.plot_concept_tree().savefig(staged, format="png")
    say(f"Drew {path}")

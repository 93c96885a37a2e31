"""`craft-onnx split`: cut a model and write the bundle."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from craft_onnx.cli import options
from craft_onnx.cli.messages import result, say, timed

if TYPE_CHECKING:
    from craft_onnx.runtime.bundle import Bundle


@click.command()
@click.argument("model", type=options.PathType)
@click.option(
    "--at",
    multiple=True,
    help="Layer, tensor or index of the cut; more than once for more cuts. [default: the recommended one]",
)
@options.labels
@options.output("The bundle's folder.")
@options.verbosity
def command(model: Path, at: tuple[str, ...], labels: Path | None, output: Path, force: bool, **_: object) -> None:
    """Cut MODEL (.onnx) into g (picture to activations) and h (activations to logits), and prove h(g(x)) = f(x).

    The gradients of both halves go into the bundle too, proven by finite differences. The first cut is the bundle's
    default. `craft-onnx layers MODEL` lists the places.
    """
    from craft_onnx.cli.classes import read_labels
    from craft_onnx.cli.graphs import normalized
    from craft_onnx.files import check_new_folder
    from craft_onnx.graph.cuts import recommended_cut
    from craft_onnx.runtime.bundle import create_bundle

    check_new_folder(output, force)
    names = read_labels(labels)
    graph = normalized(model)
    with timed("Cut, written and proven"):
        bundle = create_bundle(graph, at or (recommended_cut(graph).tensor,), output, force=force, names=names)
    describe(bundle)
    say(f"Wrote {output}")
    result({"output": str(output), "cuts": list(bundle.manifest.cuts)})


def describe(bundle: "Bundle", signed: bool = False) -> None:
    """Say where a bundle is cut, how exactly, and what it lacks for concepts of pictures, signed ones or not."""
    for name, cut in bundle.manifest.cuts.items():
        shape = "x".join(map(str, cut.shape[1:]))
        say(f"Cut at {name} ({cut.tensor}, {shape}): h(g(x)) = f(x) with relative error {cut.error:.1e}.")
        if not cut.nonnegative and not signed:
            say(f"{name} is not provably non-negative: if it is not for all pictures, fit with --factoriser semi_nmf.")
    for graph in bundle.manifest.graphs:
        if graph.error is not None:
            say(f"  {graph.file}: relative error {graph.error:.1e} against a finite difference.", level=1)
    if bundle.manifest.input.preprocessing is None:
        say("The model does not say how pictures become its input: convert it with --preset, to fit concepts.")

"""`craft-onnx split`: cut a model and write the bundle."""

from pathlib import Path

import click

from craft_onnx.cli import options
from craft_onnx.cli.messages import result, say
from craft_onnx.extras import require


@click.command()
@click.argument("model", type=options.PathType)
@click.option(
    "--at",
    multiple=True,
    help="Layer, tensor or index of the cut; more than once for more cuts. [default: the recommended one]",
)
@options.output("The bundle's folder.")
@options.verbosity
def command(model: Path, at: tuple[str, ...], output: Path, force: bool, **_: object) -> None:
    """Cut MODEL (.onnx) into g (picture to activations) and h (activations to logits), and prove h(g(x)) = f(x)."""
    require("onnx_ir", "build")
    from craft_onnx.files import refuse_existing
    from craft_onnx.graph.cuts import recommended_cut
    from craft_onnx.graph.load import load
    from craft_onnx.runtime.bundle import create_bundle
    from craft_onnx.runtime.proof import normalize_proven

    refuse_existing(output, force)
    graph = normalize_proven(load(model))[0]
    bundle = create_bundle(graph, at or (recommended_cut(graph).tensor,), output, force=force)
    for name, cut in bundle.manifest.cuts.items():
        say(f"Cut at {name} ({cut.tensor}): h(g(x)) = f(x) with relative error {cut.error:.1e}")
    say(f"Wrote {output}")
    result({"output": str(output), "cuts": list(bundle.manifest.cuts)})

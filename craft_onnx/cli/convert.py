"""`craft-onnx convert`: any supported model to a proven ONNX file, or straight to a bundle."""

from pathlib import Path
from typing import Any

import click

from craft_onnx.cli import options
from craft_onnx.cli.messages import result, say
from craft_onnx.extras import require


@click.command()
@click.argument("source")
@options.output("The ONNX file to write; with --at, the bundle's folder.")
@click.option("--at", multiple=True, help="Cut here as well and write a bundle: a layer, a tensor or an index.")
@options.converting
@options.preprocessing
@options.seed
@options.verbosity
def command(source: str, output: Path, force: bool, at: tuple[str, ...], seed: int, **given: Any) -> None:
    """Convert SOURCE to ONNX, and prove that it computes the same.

    SOURCE is a .keras, .h5, SavedModel folder, frozen .pb, .tflite, .pt2, TorchScript .pt or .onnx file, or
    package.module:factory, a Python callable that returns a torch.nn.Module or a Keras model.
    """
    from craft_onnx.files import refuse_existing

    refuse_existing(output, force)
    conversion = convert(source, given, seed)
    for batch, error in conversion.errors.items():
        say(f"Agrees with {conversion.description.framework} at batch {batch}: relative error {error:.1e}")
    if conversion.description.softmax_removed:
        say("The final Softmax was cut off: the output is logits.")
    if at:
        _write_bundle(conversion.model, at, output, force)
    else:
        conversion.save(output, force=force)
    say(f"Wrote {output}")
    result(
        {"output": str(output), "errors": conversion.errors, "softmax_removed": conversion.description.softmax_removed}
    )


def convert(source: str, given: dict[str, Any], seed: int) -> Any:
    """A conversion of any source, with the options of `converting` and `preprocessing` taken out of `given`."""
    rule = options.preprocessing_fields(given)
    names = ("input_shape", "inputs", "outputs", "allow_pickle", "keep_softmax", "bake_preprocessing")
    wanted = {name: given.pop(name) for name in names}
    converters = require("craft_onnx_converters", "build")
    return converters.convert(source, preprocessing=rule or None, seed=seed, **wanted)


def _write_bundle(model: Any, at: tuple[str, ...], output: Path, force: bool) -> None:
    from craft_onnx.runtime.bundle import create_bundle

    create_bundle(model, at, output, force=force)

"""`craft-onnx convert`: any supported model to a proven ONNX file, or straight to a bundle."""

from pathlib import Path
from typing import Any

import click

from craft_onnx.cli import options
from craft_onnx.cli.messages import result, say, timed
from craft_onnx.extras import require


@click.command()
@options.source("SOURCE")
@options.output("The ONNX file to write; with --at, the bundle's folder.")
@click.option("--at", multiple=True, help="Cut here as well and write a bundle: a layer, a tensor or an index.")
@options.labels
@options.converting
@options.preprocessing
@options.seed
@options.verbosity
def command(
    source: str, output: Path, force: bool, at: tuple[str, ...], labels: Path | None, seed: int, **given: Any
) -> None:
    """Convert SOURCE to ONNX, and prove that it computes the same.

    SOURCE is a .keras, .h5, SavedModel folder, frozen .pb, .tflite, .pt2, TorchScript .pt or .onnx file, or
    package.module:factory, a Python callable that returns a torch.nn.Module or a Keras model.
    """
    from craft_onnx.cli.classes import read_labels
    from craft_onnx.files import check_new_file, check_new_folder

    if labels and not at:
        raise click.UsageError("--labels belong into a bundle: give --at too, or give them to craft-onnx split.")
    (check_new_folder if at else check_new_file)(output, force)
    names = read_labels(labels)
    conversion = convert(source, given, seed)
    description = conversion.description
    original = "the file as it was" if source.lower().endswith(".onnx") else description.framework
    for batch, error in conversion.errors.items():
        say(f"Agrees with {original} at batch {batch}: relative error {error:.1e}.")
    if description.softmax_removed:
        say("The final Softmax was cut off: the output is logits.")
    if at:
        _write_bundle(conversion.model, at, output, force, names)
    else:
        conversion.save(output, force=force)
        _say_unknown(description.preprocessing)
    say(f"Wrote {output}")
    result({"output": str(output), "errors": conversion.errors, "softmax_removed": description.softmax_removed})


def convert(source: str, given: dict[str, Any], seed: int) -> Any:
    """A conversion of any source, with the options of `converting` and `preprocessing` taken out of `given`."""
    from craft_onnx.cli.graphs import refuse_bundle

    rule = options.preprocessing_fields(given)
    names = ("input_shape", "inputs", "outputs", "allow_pickle", "keep_softmax", "bake_preprocessing")
    wanted = {name: given.pop(name) for name in names}
    refuse_bundle(source)
    converters = require("craft_onnx_converters", "build")
    with timed(f"Converted and proven {source}"):
        conversion = converters.convert(source, preprocessing=rule or None, seed=seed, **wanted)
    for step, error in conversion.steps.items():
        say(f"  {step}: relative error {error:.1e}", level=1)
    return conversion


def _write_bundle(model: Any, at: tuple[str, ...], output: Path, force: bool, names: list[str] | None) -> None:
    from craft_onnx.cli.split import describe
    from craft_onnx.runtime.bundle import create_bundle

    describe(create_bundle(model, at, output, force=force, names=names))


def _say_unknown(rule: object) -> None:
    if rule is None:
        say("How pictures become its input is not known: give --preset or --scale, --mean, --std, to fit concepts.")

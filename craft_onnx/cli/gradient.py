"""`craft-onnx gradient`: the gradient graph of a model, as a file."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from craft_onnx.cli import options
from craft_onnx.cli.messages import result, say, timed

if TYPE_CHECKING:
    import onnx_ir as ir

# Names of graph.reverse.rule_sets, whose import takes a second.
RULES = (
    "gradient",
    "guided_backprop",
    "deconvnet",
    "beta_smooth",
    "epsilon_plus",
    "epsilon_plus_flat",
    "epsilon_alpha2_beta1",
    "epsilon_alpha2_beta1_flat",
    "excitation_backprop",
    "attn_lrp",
)


@click.command()
@click.argument("model", type=options.PathType)
@click.option("--of", metavar="TENSOR", help="Layer, tensor or output whose derivative is taken. [default: the output]")
@click.option("--wrt", metavar="TENSOR", help="Layer or tensor with respect to which. [default: the model's input]")
@click.option("--pair", is_flag=True, help="Write a forward and a backward graph: one forward, many cotangents.")
@click.option(
    "--rules",
    type=click.Choice(RULES),
    default="gradient",
    show_default=True,
    help="What happens at each node.",
)
@options.output("The ONNX file to write; a pair gets _forward and _backward behind its name.")
@options.verbosity
def command(
    model: Path, of: str | None, wrt: str | None, pair: bool, rules: str, output: Path, force: bool, **_: object
) -> None:
    """Write the gradient of MODEL (.onnx) as an ONNX graph of standard operators, proven by a finite difference.

    Its inputs are the model's own and "cotangent", in the shape of --of; its output is "gradient", in the shape of
    --wrt: the vector-Jacobian product. A one for a class and zeros for the others give the gradient of its logit.
    """
    from craft_onnx.cli.graphs import normalized
    from craft_onnx.files import check_new_file
    from craft_onnx.runtime.gradient_files import paths_of, write_gradient

    for path in paths_of(output, pair):
        check_new_file(path, force)
    graph = normalized(model, of)
    names = _tensor(graph, of), _tensor(graph, wrt)
    with timed("Differentiated, written and proven"):
        made = write_gradient(graph, output, *names, pair=pair, rules=rules, force=force)
    _describe(made.error, names, rules)
    say(f"Wrote {', '.join(map(str, made.paths))}")
    of_name, wrt_name = names[0] or graph.graph.outputs[0].name, names[1] or graph.graph.inputs[0].name
    result({"output": [str(path) for path in made.paths], "of": of_name, "wrt": wrt_name, "error": made.error})


def _tensor(graph: "ir.Model", name: str | None) -> str | None:
    """The tensor that a user means by a name."""
    from craft_onnx.graph.names import find_tensor

    return None if name is None else str(find_tensor(graph, name).name)


def _describe(error: float | None, names: tuple[str | None, str | None], rules: str) -> None:
    what = f"The derivative of {names[0] or 'the output'} with respect to {names[1] or 'the input'}"
    if error is None:
        say(f"{what}, by the rules of {rules}: no finite difference to compare with.")
    else:
        say(f"{what} agrees with a finite difference: relative error {error:.1e}.")

"""`craft-onnx gradient`: the gradient graph of a model, as a file."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from craft_onnx.cli import options
from craft_onnx.cli.messages import result, say, timed
from craft_onnx.errors import InputError
from craft_onnx.extras import require

if TYPE_CHECKING:
    import onnx_ir as ir

    from craft_onnx.graph.reverse.rules import Rules

# Pictures that conservation is measured on, and losses that are told.
PICTURES, SHOWN = 4, 3

# Names of graph.reverse.rule_sets, whose import takes a second.
DERIVATIVES = ("gradient", "guided_backprop", "deconvnet", "beta_smooth")
RULES = (
    *DERIVATIVES,
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
    metavar="NAME|FILE",
    default="gradient",
    show_default=True,
    help=f"What happens at each node: {', '.join(RULES)}; or a TOML or JSON file that describes a composite.",
)
@click.option("--conservation", is_flag=True, help="Say how much relevance reaches each layer, of random pictures.")
@options.output("The ONNX file to write; a pair gets _forward and _backward behind its name.")
@options.verbosity
def command(
    model: Path,
    of: str | None,
    wrt: str | None,
    pair: bool,
    rules: str,
    conservation: bool,
    output: Path,
    force: bool,
    **_: object,
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
    if conservation:
        _check_measurable(rules, of or wrt)
    chosen = _rules(rules)
    graph = normalized(model, of)
    names = _tensor(graph, of), _tensor(graph, wrt)
    with timed("Differentiated, written and proven"):
        made = write_gradient(graph, output, *names, pair=pair, rules=chosen, force=force)
    _describe(made.error, names, rules)
    conserved = _conserved(graph, chosen) if conservation else {}
    say(f"Wrote {', '.join(map(str, made.paths))}")
    of_name, wrt_name = names[0] or graph.graph.outputs[0].name, names[1] or graph.graph.inputs[0].name
    written = {"output": [str(path) for path in made.paths], "of": of_name, "wrt": wrt_name, "error": made.error}
    result(written | ({"conservation": conserved} if conservation else {}))


def _check_measurable(rules: str, inside: str | None) -> None:
    """InputError where nothing is conserved, or a part of the model is asked for."""
    if rules in DERIVATIVES:
        raise InputError(f"{rules} carries a derivative, which is not conserved.", "Give --rules of relevance.")
    if inside:
        raise InputError("--conservation is about the whole model.", "Leave out --of and --wrt.")


def _rules(rules: str) -> "Rules":
    """The rule set of a name or a file."""
    require("onnx_ir", "build")
    from craft_onnx.graph.reverse.relevance.files import composite_of

    return composite_of(rules)


def _conserved(graph: "ir.Model", rules: "Rules") -> dict[str, float]:
    """Relevance at each layer over that of the output, on the average of some random pictures."""
    from craft_onnx.graph.load import image_input, read_description
    from craft_onnx.relevance.conservation import conservation, losses
    from craft_onnx.runtime.proof import random_inputs, session_of

    name = image_input(graph).name
    (image,) = (spec for spec in session_of(graph).inputs if spec.name == name)
    x = random_inputs([image], PICTURES, rule=read_description(graph).preprocessing)[image.name]
    with timed("Measured what is conserved"):
        found = conservation(graph, x, rules)
    mean = {layer: float(ratios.mean()) for layer, ratios in found.items()}
    say(f"Of the relevance of the output, {mean['input']:.1%} reaches the input.")
    for loss in losses(found)[:SHOWN]:
        say(f"  from {loss.behind} to {loss.before}: {loss.ratio:.1%}")
    return mean


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

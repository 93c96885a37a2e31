"""The composite that --composite means."""

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from craft_onnx.runtime.model import SplitModel

option = click.option(
    "--composite",
    default="epsilon_plus_flat",
    show_default=True,
    metavar="NAME|FILE",
    help="The rules: a composite by its name, or a TOML or JSON file that describes one.",
)


def rules_of(composite: str, model: "SplitModel") -> Any:
    """The composite of a name or a file; that which needs the bounds of the input has those of black and white."""
    from craft_onnx.graph.reverse.relevance.composites import EpsilonGammaBox
    from craft_onnx.graph.reverse.relevance.files import composite_of
    from craft_onnx.relevance.bounds import input_bounds

    if composite == EpsilonGammaBox.name:
        low, high = input_bounds(model)
        return EpsilonGammaBox(low=low, high=high)
    return composite_of(composite)

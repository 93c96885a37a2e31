"""Rule sets by name: the gradient, and the composites that need no options."""

from craft_onnx.errors import InputError
from craft_onnx.graph.reverse.gradients import GRADIENTS
from craft_onnx.graph.reverse.relevance.composites import COMPOSITES
from craft_onnx.graph.reverse.rules import Rules

# Its bounds are those of the model's input.
WITH_OPTIONS = ("epsilon_gamma_box",)
RULE_SETS: dict[str, Rules] = {
    "gradient": GRADIENTS,
    **{name: composite() for name, composite in COMPOSITES.items() if name not in WITH_OPTIONS},
}


def rule_set(name: str) -> Rules:
    """The rule set of a name; InputError if there is none."""
    if name not in RULE_SETS:
        raise InputError(f"There is no rule set {name!r}.", f"Take one of {', '.join(RULE_SETS)}.")
    return RULE_SETS[name]

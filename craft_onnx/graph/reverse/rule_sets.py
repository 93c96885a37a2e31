"""Rule sets by name: the gradient, and its relatives that treat rectifiers in another way."""

from craft_onnx.errors import InputError
from craft_onnx.graph.reverse.gradients import GRADIENTS
from craft_onnx.graph.reverse.rules import Rule, Rules, Step
from craft_onnx.graph.reverse.tensor import Tensor, op


def _derivative(step: Step, dy: Tensor) -> list[Tensor | None]:
    rule = GRADIENTS.find(step.node)
    assert rule is not None
    return list(rule(step, dy))


def _rectifies(step: Step) -> bool:
    """Whether the node is a Relu, or a Clip from 0 on, as Relu6 is."""
    if step.node.op_type == "Relu":
        return True
    lower = step.input(1).array if step.has_input(1) else None
    return lower is not None and float(lower) == 0


def guided(step: Step, dy: Tensor) -> list[Tensor | None]:
    """Springenberg et al. 2015, section 3.4: what is negative is stopped on the way back too."""
    dx, *others = _derivative(step, dy)
    return [op.Relu(dx) if dx is not None and _rectifies(step) else dx, *others]


def deconvolved(step: Step, dy: Tensor) -> list[Tensor | None]:
    """Zeiler & Fergus 2014, section 2.1: the way back is rectified, whatever was on the way there."""
    if not _rectifies(step):
        return _derivative(step, dy)
    return [op.Relu(dy), *[None] * (len(step.inputs) - 1)]


def _relu_rule(name: str, rule: Rule) -> Rules:
    """The gradient, with another rule for rectifiers."""
    return Rules(name, {"Relu": rule, "Clip": rule}, base=GRADIENTS)


RULE_SETS: dict[str, Rules] = {
    "gradient": GRADIENTS,
    "guided_backprop": _relu_rule("guided_backprop", guided),
    "deconvnet": _relu_rule("deconvnet", deconvolved),
}


def rule_set(name: str) -> Rules:
    """The rule set of a name; InputError if there is none."""
    if name not in RULE_SETS:
        raise InputError(f"There is no rule set {name!r}.", f"Take one of {', '.join(RULE_SETS)}.")
    return RULE_SETS[name]

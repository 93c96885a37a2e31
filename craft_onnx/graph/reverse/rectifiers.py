"""Rules of rectifiers other than their derivative."""

from craft_onnx.graph.reverse.gradients import GRADIENTS
from craft_onnx.graph.reverse.rules import Step
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

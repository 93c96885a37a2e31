"""Gradients of operators that only move numbers."""

from craft_onnx.graph.reverse.rules import Rule, Step
from craft_onnx.graph.reverse.tensor import Tensor, op


def _reshape(step: Step, dy: Tensor) -> list[Tensor | None]:
    """The numbers keep their order: back to the shape of x."""
    dx = op.Reshape(dy, op.Shape(step.x)).shaped_like(step.x)
    return [dx, *[None] * (len(step.inputs) - 1)]


RULES: dict[str, Rule] = dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), _reshape)

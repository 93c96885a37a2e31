"""Gradients of arithmetic with broadcasting; what was broadcast is summed by the caller."""

from collections.abc import Callable, Sequence

from craft_onnx.graph.reverse.rules import Rule, Step
from craft_onnx.graph.reverse.tensor import Tensor, op


def elementwise(derivative: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Rule:
    """The rule of a function of one tensor, from (x, y, dy) to dx."""
    return lambda step, dy: [derivative(step.x, step.y, dy)]


def binary(derivative: Callable[[Tensor, Tensor, Tensor, Tensor], Sequence[Tensor]]) -> Rule:
    """The rule of a function of two tensors, from (a, b, y, dy) to (da, db)."""
    return lambda step, dy: derivative(step.input(0), step.input(1), step.y, dy)


def _sum(step: Step, dy: Tensor) -> list[Tensor]:
    return [dy] * len(step.inputs)


def _mean(step: Step, dy: Tensor) -> list[Tensor]:
    return [dy / len(step.inputs)] * len(step.inputs)


RULES: dict[str, Rule] = {
    "Add": binary(lambda a, b, y, dy: [dy, dy]),
    "Sub": binary(lambda a, b, y, dy: [dy, -dy]),
    "Mul": binary(lambda a, b, y, dy: [dy * b, dy * a]),
    "Div": binary(lambda a, b, y, dy: [dy / b, -dy * y / b]),
    "Sum": _sum,
    "Mean": _mean,
    "Neg": elementwise(lambda x, y, dy: -dy),
    "Exp": elementwise(lambda x, y, dy: dy * y),
    "Log": elementwise(lambda x, y, dy: dy / x),
    "Sqrt": elementwise(lambda x, y, dy: dy / (2 * y)),
    "Reciprocal": elementwise(lambda x, y, dy: -dy * y * y),
    "Abs": elementwise(lambda x, y, dy: dy * op.Sign(x)),
    "Sin": elementwise(lambda x, y, dy: dy * op.Cos(x)),
    "Cos": elementwise(lambda x, y, dy: -dy * op.Sin(x)),
}

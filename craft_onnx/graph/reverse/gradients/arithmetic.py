"""Gradients of functions of single elements, with broadcasting; what was broadcast is summed by the caller."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from craft_onnx.graph.reverse.rules import Rule, Step
from craft_onnx.graph.reverse.tensor import Tensor, op


def elementwise(derivative: Callable[..., Tensor], **defaults: Any) -> Rule:
    """The rule of a function of one tensor: dx = f'(x) dy.

    Parameters
    ----------
    derivative : callable
        From x, y and the attributes in `defaults` to f'(x). It does not see dy: so all of it can be computed once for
        any number of cotangents.
    **defaults
        The attributes that it takes, by name, with the values for where a node does not have them.
    """

    def rule(step: Step, dy: Tensor) -> list[Tensor | None]:
        given = {name: step.attribute(name, default) for name, default in defaults.items()}
        return _to_first(step, dy * derivative(step.x, step.y, **given))

    return rule


def gate(is_open: Callable[..., Tensor], **defaults: Any) -> Rule:
    """The rule of a function of one tensor that lets some elements through: `is_open` says which, as `elementwise`."""

    def rule(step: Step, dy: Tensor) -> list[Tensor | None]:
        given = {name: step.attribute(name, default) for name, default in defaults.items()}
        return _to_first(step, where(is_open(step.x, step.y, **given), dy))

    return rule


def where(mask: Tensor, dy: Tensor) -> Tensor:
    """`dy` where the mask is true, 0 elsewhere."""
    return op.Where(mask, dy, 0)


def choose(mask: Tensor, yes: Tensor | float, no: Tensor | float, like: Tensor) -> Tensor:
    """`yes` or `no` by a mask; numbers become constants of the type of `like`."""
    return op.Where(mask, *(_constant(one, like) if isinstance(one, (int, float)) else one for one in (yes, no)))


def cast(x: Tensor, kind: ir.DataType) -> Tensor:
    """`x` as another type, itself where it has that type."""
    return x if x.dtype == kind else op.Cast(x, to=kind)


def _constant(number: float, like: Tensor) -> Tensor:
    return like.emitter.tensor(like.emitter.constant(np.asarray(number, like.dtype.numpy())))


def _to_first(step: Step, dx: Tensor) -> list[Tensor | None]:
    return [dx, *[None] * (len(step.inputs) - 1)]


def _binary(derivative: Callable[[Tensor, Tensor, Tensor, Tensor], Sequence[Tensor]]) -> Rule:
    """The rule of a function of two tensors, from (a, b, y, dy) to (da, db)."""
    return lambda step, dy: derivative(step.input(0), step.input(1), step.y, dy)


def _sum(step: Step, dy: Tensor) -> list[Tensor]:
    return [dy] * len(step.inputs)


def _mean(step: Step, dy: Tensor) -> list[Tensor]:
    return [dy / len(step.inputs)] * len(step.inputs)


def _extreme(step: Step, dy: Tensor) -> list[Tensor]:
    """Max or Min: to the inputs that have the extreme value; several share evenly, as in torch.maximum and amax."""
    if len(step.inputs) == 1:
        return [dy]
    has_it = [op.Cast(op.Equal(step.input(i), step.y), to=dy.dtype) for i in range(len(step.inputs))]
    shares = op.Sum(*has_it)
    return [dy * (one / shares) for one in has_it]


def _where(step: Step, dy: Tensor) -> list[Tensor | None]:
    return [None, where(step.x, dy), op.Where(step.x, 0, dy)]


def _pow(step: Step, dy: Tensor) -> list[Tensor | None]:
    """y = a^b: da = b a^(b - 1) dy, db = log(a) y dy; integer exponents are allowed beside any base."""
    a, b = step.input(0), step.input(1)
    da = dy * _slope_of_power(a, b, step.y) if step.wanted[0] else None
    db = None
    if step.wanted[1]:
        # 0^b is constant for b > 0, and log(0) infinite.
        logarithm = op.Log(choose(op.Equal(a, 0), 1, a, like=a))
        db = cast(dy * (step.y * logarithm), b.dtype)
    return [da, db]


# Exponents whose power has a simpler derivative, from (a, y).
_USUAL_POWERS: dict[float, Callable[[Tensor, Tensor], Tensor | float]] = {
    0.0: lambda a, y: 0.0,
    0.5: lambda a, y: 0.5 / y,
    1.0: lambda a, y: 1.0,
    2.0: lambda a, y: 2 * a,
    3.0: lambda a, y: 3 * (a * a),
}


def _slope_of_power(a: Tensor, b: Tensor, y: Tensor) -> Tensor | float:
    """b a^(b - 1), without the power where the exponent is a usual one; 0 for b = 0, also at a = 0."""
    if b.array is not None and b.array.size == 1:
        exponent = float(b.array.item())
        if exponent in _USUAL_POWERS:
            return _USUAL_POWERS[exponent](a, y)
    b = cast(b, a.dtype)
    return b * op.Pow(a, choose(op.Equal(b, 0), 1, b, like=b) - 1)


def _mod(step: Step, dy: Tensor) -> list[Tensor]:
    """y = a - n b with a whole number n, a / b rounded to zero (fmod) or down."""
    a, b = step.input(0), step.input(1)
    return [dy, -dy * op.Round((a - step.y) / b)]


def _cast(step: Step, dy: Tensor) -> list[Tensor | None]:
    """Between floating-point types; to others no derivative leads."""
    return _to_first(step, cast(dy, step.x.dtype))


def _cumsum(step: Step, dy: Tensor) -> list[Tensor | None]:
    """x counts in every sum from its own place on: the cumulative sum from the other end."""
    exclusive, reverse = step.attribute("exclusive", 0), step.attribute("reverse", 0)
    return [op.CumSum(dy, step.input(1), exclusive=exclusive, reverse=1 - reverse), None]


RULES: dict[str, Rule] = {
    "Add": _binary(lambda a, b, y, dy: [dy, dy]),
    "Sub": _binary(lambda a, b, y, dy: [dy, -dy]),
    "Mul": _binary(lambda a, b, y, dy: [dy * b, dy * a]),
    "Div": _binary(lambda a, b, y, dy: [dy / b, dy * (-y / b)]),
    "Pow": _pow,
    "Mod": _mod,
    "Sum": _sum,
    "Mean": _mean,
    "Max": _extreme,
    "Min": _extreme,
    "Where": _where,
    "CumSum": _cumsum,
    "Cast": _cast,
    "CastLike": _cast,
    "Neg": lambda step, dy: [-dy],
    "Abs": elementwise(lambda x, y: op.Sign(x)),
    "Exp": elementwise(lambda x, y: y),
    "Log": lambda step, dy: [dy / step.x],
    "Sqrt": elementwise(lambda x, y: 0.5 / y),
    "Reciprocal": elementwise(lambda x, y: -y * y),
    "Sin": elementwise(lambda x, y: op.Cos(x)),
    "Cos": elementwise(lambda x, y: -op.Sin(x)),
    "Tan": elementwise(lambda x, y: 1 + y * y),
    "Asin": elementwise(lambda x, y: 1 / op.Sqrt((1 - x) * (1 + x))),
    "Acos": elementwise(lambda x, y: -1 / op.Sqrt((1 - x) * (1 + x))),
    "Atan": elementwise(lambda x, y: 1 / (1 + x * x)),
    "Sinh": elementwise(lambda x, y: op.Cosh(x)),
    "Cosh": elementwise(lambda x, y: op.Sinh(x)),
    "Tanh": elementwise(lambda x, y: 1 - y * y),
    "Asinh": elementwise(lambda x, y: 1 / op.Sqrt(1 + x * x)),
    "Acosh": elementwise(lambda x, y: 1 / op.Sqrt((x - 1) * (x + 1))),
    "Atanh": elementwise(lambda x, y: 1 / ((1 - x) * (1 + x))),
    # 2 / sqrt(pi) exp(-x^2), with one pass over the elements less.
    "Erf": elementwise(lambda x, y: op.Exp(math.log(2 / math.sqrt(math.pi)) - x * x)),
}

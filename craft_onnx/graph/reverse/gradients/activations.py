"""Gradients of activation functions.

Where PyTorch has a convention at a kink, it is followed. What can be told from y is not told from x: a runtime fuses an
activation with the convolution before it only where nothing else reads what lies between.
"""

import functools
import math
import operator

from craft_onnx.graph.reverse.broadcast import sum_over
from craft_onnx.graph.reverse.gradients.arithmetic import choose, elementwise, gate, where
from craft_onnx.graph.reverse.gradients.masks import above, below
from craft_onnx.graph.reverse.gradients.matmul import exchanged, factors
from craft_onnx.graph.reverse.rules import Rule, Step
from craft_onnx.graph.reverse.tensor import Tensor, op

# Defaults of Selu, as ONNX has them.
_ALPHA, _GAMMA = 1.67326319217681884765625, 1.05070102214813232421875


def _signed(x: Tensor, y: Tensor, alpha: float) -> Tensor:
    """What has the sign of x: y, but for a negative slope."""
    return y if alpha >= 0 else x


def _prelu(step: Step, dy: Tensor) -> list[Tensor]:
    x, slope = step.input(0), step.input(1)
    positive = x > 0
    return [dy * choose(positive, 1, slope, like=x), dy * choose(positive, 0, x, like=x)]


def _leaky_relu(x: Tensor, y: Tensor, alpha: float) -> Tensor:
    return alpha + (1 - alpha) * above(_signed(x, y, alpha), 0)


def _hard_sigmoid(x: Tensor, y: Tensor, alpha: float) -> Tensor:
    return alpha * (above(y, 0) * below(y, 1))


def _hard_swish(x: Tensor, y: Tensor) -> Tensor:
    """y = x h with h = x / 6 + 1 / 2 cut at 0 and 1: y' = h + x h', and where h' is not 0, x h' is h - 1 / 2."""
    h = op.HardSigmoid(x, alpha=1 / 6, beta=0.5)
    return h + (h - 0.5) * (above(h, 0) * below(h, 1))


def _swish(x: Tensor, y: Tensor, alpha: float) -> Tensor:
    """y = x s with s = sigmoid(alpha x): y' = s + alpha y (1 - s)."""
    s = op.Sigmoid(alpha * x)
    return s + alpha * y * (1 - s)


def _mish(x: Tensor, y: Tensor) -> Tensor:
    """y = x t with t = tanh(softplus(x)): y' = t + x (1 - t^2) sigmoid(x)."""
    t = op.Tanh(op.Softplus(x))
    return t + x * op.Sigmoid(x) * (1 - t * t)


def _softsign(x: Tensor, y: Tensor) -> Tensor:
    """y = x / (1 + |x|): y' = 1 / (1 + |x|)^2; 1 - |y| would cancel."""
    r = op.Reciprocal(1 + op.Abs(x))
    return r * r


def _gelu(x: Tensor, y: Tensor, approximate: str) -> Tensor:
    """y = x P(x): y' = P + x P', with the normal distribution for P or its approximation by tanh."""
    if approximate == "tanh":
        return _gelu_tanh(x)
    density = op.Exp(-0.5 * (x * x)) * (1 / math.sqrt(2 * math.pi))
    return 0.5 * (1 + op.Erf(x * math.sqrt(0.5))) + x * density


def _gelu_tanh(x: Tensor) -> Tensor:
    """P = (1 + t) / 2 with t = tanh(a (x + b x^3)), P' = (1 - t^2) a (1 + 3 b x^2) / 2."""
    a, b = math.sqrt(2 / math.pi), 0.044715
    t = op.Tanh(a * (x * (1 + b * (x * x))))
    # In this order nothing that is 0 meets an infinite power of x, in half precision either.
    u = x * (1 - t * t)
    return 0.5 * (1 + t) + 0.5 * a * (u + 3 * b * (u * x) * x)


def _clip(step: Step, dy: Tensor) -> list[Tensor | None]:
    """To x inside of the interval, to the end that is taken elsewhere; where min > max, max is taken.

    The ends themselves count as outside, as in torch's relu6 and hardtanh, from which Clip usually comes.
    """
    low, high = (step.input(i) if step.has_input(i) else None for i in (1, 2))
    dlow = where(_takes_low(step.y, low, high), dy) if low else None
    dhigh = where(op.Equal(step.y, high), dy) if high else None
    return [_times_inside(dy, step.y, low, high), dlow, dhigh][: len(step.inputs)]


def _times_inside(dy: Tensor, y: Tensor, low: Tensor | None, high: Tensor | None) -> Tensor:
    """dy where y lies between the bounds, 0 elsewhere."""
    inside = [above(y, low)] if low else []
    inside += [below(y, high)] if high else []
    return dy * functools.reduce(operator.mul, inside) if inside else dy


def _takes_low(y: Tensor, low: Tensor, high: Tensor | None) -> Tensor:
    return op.And(op.Equal(y, low), low < high) if high else op.Equal(y, low)


def _softmax(step: Step, dy: Tensor) -> list[Tensor]:
    """dx = y (dy - sum(y dy))."""
    axis, y = step.axis("axis"), step.y
    return [y * (dy - (_sum_of_attention(y, dy, axis) or sum_over(dy * y, [axis])))]


def _sum_of_attention(y: Tensor, dy: Tensor, axis: int) -> Tensor | None:
    """sum(y dy) where y are the weights in o = y v, so that dy = do v^T: sum(o do), over features instead of tokens.

    Dao et al. 2022 (FlashAttention), appendix B.2, equation 4.
    """
    product = factors(dy)
    if product is None or axis != y.rank - 1:
        return None
    for output in (y.emitter.tensor(user.outputs[0]) for user in y.value.consumers()):
        forward = factors(output)
        if forward and forward[0].value is y.value and exchanged(forward[1], product[1]):
            return sum_over(output * product[0], [axis])
    return None


def _log_softmax(step: Step, dy: Tensor) -> list[Tensor]:
    """dx = dy - exp(y) sum(dy)."""
    return [dy - op.Exp(step.y) * sum_over(dy, [step.axis("axis")])]


RULES: dict[str, Rule] = {
    "Relu": elementwise(lambda x, y: above(y, 0)),
    "ThresholdedRelu": gate(lambda x, y, alpha: x > alpha, alpha=1.0),
    "Shrink": gate(lambda x, y, lambd: op.Abs(x) > lambd, lambd=0.5),
    "LeakyRelu": elementwise(_leaky_relu, alpha=0.01),
    "PRelu": _prelu,
    "Elu": elementwise(lambda x, y, alpha: choose(_signed(x, y, alpha) > 0, 1, y + alpha, like=x), alpha=1.0),
    "Selu": elementwise(
        lambda x, y, alpha, gamma: choose(y > 0, gamma, y + alpha * gamma, like=x), alpha=_ALPHA, gamma=_GAMMA
    ),
    "Celu": elementwise(lambda x, y, alpha: choose(y > 0, 1, y / alpha + 1, like=x), alpha=1.0),
    "Clip": _clip,
    "Sigmoid": elementwise(lambda x, y: y * (1 - y)),
    "HardSigmoid": elementwise(_hard_sigmoid, alpha=0.2),
    "HardSwish": elementwise(_hard_swish),
    "Swish": elementwise(_swish, alpha=1.0),
    "Mish": elementwise(_mish),
    "Softplus": elementwise(lambda x, y: op.Sigmoid(x)),
    "Softsign": elementwise(_softsign),
    "Gelu": elementwise(_gelu, approximate="none"),
    "Softmax": _softmax,
    "LogSoftmax": _log_softmax,
}

"""Rules of layer-wise relevance propagation, each a declaration of parts; see `linear`.

z = W x + b; x+ and x- are max(x, 0) and min(x, 0), of data as of parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from craft_onnx.errors import InputError
from craft_onnx.graph.reverse.broadcast import unbroadcast
from craft_onnx.graph.reverse.gradients import GRADIENTS
from craft_onnx.graph.reverse.gradients.masks import above, below
from craft_onnx.graph.reverse.relevance.division import EPSILON, Product, divided, stabilized
from craft_onnx.graph.reverse.relevance.linear import (
    Change,
    Part,
    Share,
    filled,
    flat_convolution,
    negative,
    none,
    ones,
    positive,
    propagate,
    same,
    square,
    with_bias,
)
from craft_onnx.graph.reverse.rules import Step
from craft_onnx.graph.reverse.tensor import Tensor, op

Parameters = str | Sequence[str]


def left_out(zero_params: Parameters | None) -> set[str]:
    """Names of parameters to leave out; InputError if others than biases are."""
    names = {zero_params} if isinstance(zero_params, str) else set(zero_params or ())
    if names - {"bias"}:
        raise InputError(f"zero_params={zero_params!r} cannot be left out.", 'Give "bias", or nothing.')
    return names


@dataclass(frozen=True)
class LinearRule:
    """A rule for operators that are linear in their data.

    Parameters
    ----------
    epsilon : float
        What stabilizes the division, with the sign of what is divided by.
    zero_params : str or sequence of str
        "bias" leaves biases out: then relevance is conserved.

    Raises
    ------
    InputError
        If other parameters are to be left out.
    """

    epsilon: float = EPSILON
    zero_params: Parameters | None = None

    def __post_init__(self) -> None:
        """Check what is left out."""
        left_out(self.zero_params)

    def __call__(self, step: Step, relevance: Tensor) -> list[Tensor | None]:
        """The relevance of every input: of the data, and None for parameters."""
        whole = with_bias(step)
        found = propagate(
            whole, self.shares(whole), relevance, self.epsilon, biased="bias" not in left_out(self.zero_params)
        )
        return [found if wanted else None for wanted in step.wanted]

    def shares(self, step: Step) -> Sequence[Share]:
        """How relevance is divided."""
        raise NotImplementedError


def _all(step: Step, relevance: Tensor) -> Tensor:
    return relevance


@dataclass(frozen=True)
class Epsilon(LinearRule):
    """R_i = x_i W^T (R / z) (Bach et al. 2015, equation 58)."""

    def shares(self, step: Step) -> Sequence[Share]:
        """All of it, as the operator divides its data."""
        return [Share(_all, [Part(same, same, same)])]


# What raises an output, and what lowers it.
RAISING = (Part(positive, positive, positive), Part(negative, negative, none))
LOWERING = (Part(positive, negative, negative), Part(negative, positive, none))


@dataclass(frozen=True)
class ZPlus(LinearRule):
    """z = x+ W+ + x- W- + b+: only what raises an output has relevance (Montavon et al. 2017, equation 16)."""

    def shares(self, step: Step) -> Sequence[Share]:
        """All of it, among what raises the output."""
        return [Share(_all, RAISING)]


@dataclass(frozen=True)
class AlphaBeta(LinearRule):
    """alpha times ZPlus, less beta times the same of what lowers the output (Bach et al. 2015, equation 60).

    Parameters
    ----------
    alpha, beta : float
        Neither negative, alpha - beta = 1.

    Raises
    ------
    InputError
        If they are not.
    """

    alpha: float = 2.0
    beta: float = 1.0

    def __post_init__(self) -> None:
        """Check what conserves relevance."""
        super().__post_init__()
        if self.alpha < 0 or self.beta < 0 or abs(self.alpha - self.beta - 1) > 1e-9:
            raise InputError(
                f"alpha = {self.alpha:g} and beta = {self.beta:g} do not conserve relevance.",
                "Take numbers that are not negative, alpha larger by 1.",
            )

    def shares(self, step: Step) -> Sequence[Share]:
        """Both, each with its sign."""
        shares = [Share(_times(self.alpha), RAISING), Share(_times(-self.beta), LOWERING)]
        return shares if self.beta else shares[:1]


@dataclass(frozen=True)
class Gamma(LinearRule):
    """Parts that have the sign of the output weigh more, by gamma (Montavon et al. 2019, section 10.2.3).

    For z > 0 those are x+ W+, x- W- and b+, for z < 0 the others; outputs that are 0 pass nothing on.

    Parameters
    ----------
    gamma : float
        0 is the rule Epsilon, large numbers come near ZPlus.
    signed : bool
        False for the older form, z = x (W + gamma W+) + b + gamma b+ whatever the sign of x and z.
    """

    gamma: float = 0.25
    signed: bool = True

    def shares(self, step: Step) -> Sequence[Share]:
        """Positive outputs', and negative outputs'."""
        up, down = _raised(self.gamma, positive), _raised(self.gamma, negative)
        if not self.signed:
            return [Share(_all, [Part(same, up, up)])]
        return [
            Share(
                lambda step, relevance: relevance * above(step.y, 0),
                [Part(positive, up, up), Part(negative, down, none)],
            ),
            Share(
                lambda step, relevance: relevance * below(step.y, 0),
                [Part(positive, down, down), Part(negative, up, none)],
            ),
        ]


@dataclass(frozen=True)
class ZBox(LinearRule):
    """For data between two bounds: z = W x - W+ low - W- high (Montavon et al. 2017, equation 14).

    Parameters
    ----------
    low, high : float or array
        Bounds, broadcast against the data; an array is (channels, 1, 1) for pictures (N, C, H, W).
    """

    low: Any = 0.0
    high: Any = 1.0

    def __post_init__(self) -> None:
        """Keep the numbers of arrays, which compare as numbers do."""
        super().__post_init__()
        for name in ("low", "high"):
            object.__setattr__(self, name, as_numbers(getattr(self, name)))

    def shares(self, step: Step) -> Sequence[Share]:
        """All of it, by the distance of the data from the bounds."""
        bounds = [Part(_filled(self.low), positive, none, -1), Part(_filled(self.high), negative, none, -1)]
        return [Share(_all, [Part(same, same, none), *bounds])]


@dataclass(frozen=True)
class WSquare(LinearRule):
    """By the squares of the weights, whatever the data (Montavon et al. 2017, equation 12)."""

    def shares(self, step: Step) -> Sequence[Share]:
        """All of it."""
        return [Share(_all, [Part(ones, square, square)])]


@dataclass(frozen=True)
class Flat(LinearRule):
    """To all inputs alike, whatever the data and the weights (Lapuschkin et al. 2019, supplement)."""

    def __call__(self, step: Step, relevance: Tensor) -> list[Tensor | None]:
        """The relevance of every input: of the data, and None for parameters."""
        alike = flat_convolution(step, relevance, self.epsilon)
        return super().__call__(step, relevance) if alike is None else [alike, *[None] * (len(step.inputs) - 1)]

    def shares(self, step: Step) -> Sequence[Share]:
        """All of it."""
        return [Share(_all, [Part(ones, ones, none)])]


@dataclass(frozen=True)
class Pass:
    """All relevance to the first input that it is asked for, as it is."""

    def __call__(self, step: Step, relevance: Tensor) -> list[Tensor | None]:
        """The relevance of every input."""
        position = step.wanted.index(True)
        return [relevance if place == position else None for place in range(len(step.inputs))]


@dataclass(frozen=True)
class Norm:
    """Epsilon for operators without parameters: sums of branches and averages, each branch by what it adds."""

    epsilon: float = EPSILON

    def __call__(self, step: Step, relevance: Tensor) -> list[Tensor | None]:
        """The relevance of every input."""
        rule = GRADIENTS.find(step.node)
        assert rule is not None
        gradients = rule(step, divided(relevance, stabilized(step.y, self.epsilon)))
        return [
            Product(x, unbroadcast(gradient, x)) if x is not None and gradient is not None and wanted else None
            for x, gradient, wanted in zip(step.inputs, gradients, step.wanted, strict=True)
        ]


@dataclass(frozen=True)
class Added(Norm):
    """`Norm` for sums, some terms of which may be constants: these take their share as a bias does.

    Parameters
    ----------
    zero_params : str or sequence of str
        "bias" leaves all to the other terms.
    """

    zero_params: Parameters | None = None

    def __call__(self, step: Step, relevance: Tensor) -> list[Tensor | None]:
        """The relevance of every input."""
        if sum(step.wanted) == 1 and left_out(self.zero_params):
            return Pass()(step, relevance)
        return super().__call__(step, relevance)


@dataclass(frozen=True)
class Smoothed:
    """The derivative of softplus(beta x) / beta in place of a rectifier's.

    Parameters
    ----------
    beta : float
        How steep.
    """

    beta: float = 10.0

    def __call__(self, step: Step, relevance: Tensor) -> list[Tensor | None]:
        """The cotangent of every input."""
        return [relevance * op.Sigmoid(self.beta * step.x), *[None] * (len(step.inputs) - 1)]


def as_numbers(given: Any) -> Any:
    """A number, or the numbers of an array in tuples."""

    def frozen(given: Any) -> Any:
        return tuple(frozen(one) for one in given) if isinstance(given, list) else given

    return frozen(np.asarray(given, np.float64).tolist())


def _times(number: float) -> Callable[[Step, Tensor], Tensor]:
    return lambda step, relevance: relevance if number == 1 else relevance * number


def _raised(gamma: float, sign: Change) -> Change:
    """x + gamma x+, or with x- for x+."""

    def raised(x: Tensor) -> Tensor | None:
        more = sign(x)
        return x if more is None else x + gamma * more

    return raised


def _filled(number: Any) -> Change:
    return lambda x: filled(number, x)

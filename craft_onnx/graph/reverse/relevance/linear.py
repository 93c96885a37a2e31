"""Relevance through linear operators: what the rules of layer-wise relevance propagation have in common.

A rule applies the operator in parts, each with something else in place of its data and its parameters. The sum z of the
parts is what relevance is divided by; what the derivative of a part carries back counts as much as the part's data:

    R_i = sum over parts of  x_i (d part / d x)^T (R / z)

Montavon et al. 2019, "Layer-Wise Relevance Propagation: An Overview", sections 10.2 and 10.3.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from craft_onnx.graph.reverse.broadcast import unbroadcast
from craft_onnx.graph.reverse.gradients import GRADIENTS
from craft_onnx.graph.reverse.relevance.division import Product, divided, stabilized
from craft_onnx.graph.reverse.relevance.matching import sum_behind
from craft_onnx.graph.reverse.rules import Step
from craft_onnx.graph.reverse.tensor import Tensor, op

# Where operators have their bias; what else they do not take from data are weights.
BIAS = {"Conv": 2, "ConvTranspose": 2, "Gemm": 2}

# Operators that add up products of data and weights.
PRODUCTS = frozenset({*BIAS, "MatMul", "Einsum"})

# What takes the place of data, weights or a bias; None for zeros.
Change = Callable[[Tensor], Tensor | None]


@dataclass(frozen=True)
class Part:
    """One application of the operator.

    Attributes
    ----------
    data, weights, bias : callable
        What takes their place. A part without data is none at all.
    sign : int
        1, or -1 for a part that is subtracted.
    """

    data: Change
    weights: Change
    bias: Change
    sign: int = 1

    @property
    def side(self) -> int:
        """1 where it is never negative, -1 where it is never positive, 0 where that depends."""
        side = SIDES.get(self.data, 0) * SIDES.get(self.weights, 0) * self.sign
        return side if self.bias is none or SIDES.get(self.bias, 0) * self.sign == side else 0


@dataclass(frozen=True)
class Share:
    """Some of the relevance, and the parts it is divided among.

    Attributes
    ----------
    of : callable
        From the step and its relevance to this share of it.
    parts : sequence of Part
    """

    of: Callable[[Step, Tensor], Tensor]
    parts: Sequence[Part]


def same(x: Tensor) -> Tensor | None:
    """What was there."""
    return x


def none(x: Tensor) -> Tensor | None:
    """Nothing."""
    return None


def positive(x: Tensor) -> Tensor | None:
    """max(x, 0)."""
    return x if x.nonnegative else op.Relu(x)


def negative(x: Tensor) -> Tensor | None:
    """min(x, 0), which is known to be nothing behind a rectifier."""
    return None if x.nonnegative else op.Min(x, 0.0)


def square(x: Tensor) -> Tensor | None:
    """x^2."""
    return x * x


def ones(x: Tensor) -> Tensor | None:
    """1 everywhere."""
    return filled(1.0, x)


# Signs of what changes make.
SIDES: dict[Change, int] = {positive: 1, negative: -1, square: 1, ones: 1}


def filled(number: float | Tensor, like: Tensor) -> Tensor:
    """A number, or an array that broadcasts, in the shape of a tensor."""
    return op.Expand(op.CastLike(number, like), op.Shape(like)).shaped_like(like)


def with_bias(step: Step) -> Step:
    """A product with the bias that is added behind it: as one more input, in the output."""
    add = sum_behind(step.node)
    if add is None:
        return step
    tensor = step.y.emitter.tensor
    biases = tuple(tensor(value) for value in add.inputs if value is not None and value is not step.y.value)
    y = tensor(add.outputs[0])
    return replace(step, inputs=(*step.inputs, *biases), outputs=(y,), wanted=(*step.wanted, False))


def propagate(step: Step, shares: Sequence[Share], relevance: Tensor, epsilon: float, biased: bool) -> Tensor:
    """The relevance of the data of a linear operator.

    Parameters
    ----------
    step : Step
        Of an operator that is linear in the only input that is wanted.
    shares : sequence of Share
        How relevance is divided.
    relevance : Tensor
        Of the output.
    epsilon : float
        What stabilizes the division.
    biased : bool
        Whether the bias takes its part: what it takes is lost.
    """
    found = [_share(step, share, relevance, epsilon, biased) for share in shares]
    return functools.reduce(operator.add, found)


def _share(step: Step, share: Share, relevance: Tensor, epsilon: float, biased: bool) -> Tensor:
    side = _side(step, share.parts)
    applied, shift = [], side * epsilon
    for part in share.parts:
        changed = _changed(step, part, biased, shift)
        if changed is not None:
            applied.append((part, changed))
            shift = 0.0
    z = _sum((part.sign, changed.y) for part, changed in applied)
    carried = divided(share.of(step, relevance), z if side else stabilized(z, epsilon))
    return _sum((part.sign, _contribution(changed, carried)) for part, changed in applied)


def _side(step: Step, parts: Sequence[Part]) -> int:
    """1 where all that parts add up is never negative, -1 where it is never positive, 0 where that is not known."""
    plain = step.attribute("alpha", 1.0) == 1 and step.attribute("beta", 1.0) == 1
    sides = {part.side for part in parts}
    return sides.pop() if len(sides) == 1 and plain and step.node.op_type in PRODUCTS else 0


def _changed(step: Step, part: Part, biased: bool, shift: float) -> Step | None:
    """The step with its parts replaced, and its output computed anew and shifted; None where there is no data left."""
    position = data_position(step)
    data = part.data(step.input(position))
    if data is None:
        return None
    inputs: list[Tensor | None] = [_parameter(step, place, part, biased) for place in range(len(step.node.inputs))]
    inputs[position] = data
    inputs, rest = _shifted(step, inputs, shift)
    attributes = {name: attribute.value for name, attribute in step.node.attributes.items()}
    y = getattr(op, step.node.op_type)(*inputs, **attributes)
    behind = [part.bias(bias) for bias in step.inputs[len(step.node.inputs) :] if biased and bias is not None]
    for added in [*behind, rest or None]:
        y = y if added is None else y + added
    wanted = tuple(place == position for place in range(len(inputs)))
    return replace(step, inputs=tuple(inputs), outputs=(y.shaped_like(step.y),), wanted=wanted)


def _shifted(step: Step, inputs: list[Tensor | None], shift: float) -> tuple[list[Tensor | None], float]:
    """Inputs whose bias moves the output by a number, and what is left of that to do behind."""
    place, outputs = BIAS.get(step.node.op_type), _outputs(step)
    bias = inputs[place] if place is not None and place < len(inputs) else None
    if not shift or place is None or (bias is None and outputs is None):
        return [one for one in inputs if one is not None], shift
    if bias is not None:
        return [*inputs[:place], bias + shift], 0.0
    emitter, numbers = step.x.emitter, np.full(outputs or 1, shift, step.x.dtype.numpy())
    return [*inputs[:place], emitter.tensor(emitter.constant(numbers))], 0.0


def _outputs(step: Step) -> int | None:
    """How long a bias is, where that is known."""
    if step.node.op_type not in ("Conv", "ConvTranspose"):
        return 1
    transposed = step.node.op_type == "ConvTranspose"
    size = step.input(1).shape[1 if transposed else 0]
    return size * int(step.attribute("group", 1) if transposed else 1) if isinstance(size, int) else None


def _parameter(step: Step, position: int, part: Part, biased: bool) -> Tensor | None:
    tensor = step.inputs[position]
    if tensor is None:
        return None
    if BIAS.get(step.node.op_type) != position:
        weights = part.weights(tensor)
        return tensor * 0.0 if weights is None else weights  # the operator cannot do without
    return part.bias(tensor) if biased else None


def data_position(step: Step) -> int:
    """Which input is the data: the only one that depends on what relevance is asked of."""
    (position,) = (place for place, wanted in enumerate(step.wanted) if wanted)
    return position


def flat_convolution(step: Step, relevance: Tensor, epsilon: float) -> Tensor | None:
    """What ones for data and weights share out in a convolution of all channels; None of anything else.

    All channels have the same, on the way there and back: one is enough.
    """
    window = step.input(1).shape[2:] if step.node.op_type == "Conv" else ()
    channels = step.x.shape[1] if window else None
    sizes = [size for size in window if isinstance(size, int)]
    if (
        data_position(step)
        or step.attribute("group", 1) != 1
        or not isinstance(channels, int)
        or len(sizes) < len(window)
    ):
        return None
    emitter = step.x.emitter
    plane = filled(1.0, op.Slice(step.x, [0], [1], [1]))
    weights = emitter.tensor(emitter.constant(np.full((1, 1, *sizes), 1, step.x.dtype.numpy())))
    attributes = {name: attribute.value for name, attribute in step.node.attributes.items()}
    z = op.Conv(plane, weights, **attributes)
    one = replace(step, inputs=(plane, weights), outputs=(z,), wanted=(True, False))
    total = op.ReduceSum(relevance, [1], keepdims=1)
    return op.Expand(_gradient(one, total / (channels * z + epsilon)), op.Shape(step.x)).shaped_like(step.x)


def _contribution(step: Step, carried: Tensor) -> Tensor:
    return Product(step.input(data_position(step)), _gradient(step, carried))


def _gradient(step: Step, carried: Tensor) -> Tensor:
    """The derivative to the data."""
    rule, position = GRADIENTS.find(step.node), data_position(step)
    assert rule is not None
    gradient = rule(step, carried)[position]
    assert gradient is not None
    return unbroadcast(gradient, step.input(position))


def _sum(terms: Iterable[tuple[int, Tensor]]) -> Tensor:
    """The sum of signed terms, the first of which is not subtracted."""
    (_, total), *rest = terms
    for sign, term in rest:
        total = total + term if sign > 0 else total - term
    return total

"""Relevance through normalizations: with their deviation as a constant they are linear, and have Epsilon.

Achtibat et al. 2024, section 3.3.3; the mean is that of the data, and gets its share.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from craft_onnx.graph.reverse.broadcast import in_float32
from craft_onnx.graph.reverse.gradients.shapes import reshaped
from craft_onnx.graph.reverse.relevance.division import EPSILON, stabilized
from craft_onnx.graph.reverse.relevance.rules import Parameters, left_out
from craft_onnx.graph.reverse.rules import Step
from craft_onnx.graph.reverse.tensor import Tensor, op
from craft_onnx.graph.values import operators

# Whose mean is not taken off: every number has a factor of its own, and keeps its relevance.
SCALING = operators("RMSNormalization LpNormalization LRN")
# As many axes as the data have, of what is normalized together: last of all.
View = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Normalized:
    """Epsilon for (x - mean) / std * scale + bias with a constant std: LayerNormalization and its like.

    Parameters
    ----------
    epsilon : float
        What stabilizes the division.
    zero_params : str or sequence of str
        "bias" leaves the bias out.
    """

    epsilon: float = EPSILON
    zero_params: Parameters | None = None

    def __call__(self, step: Step, relevance: Tensor, *_statistics: Tensor | None) -> list[Tensor | None]:
        """The relevance of every input: of the data, and None for parameters."""
        scale, bias, view = FORMS[step.node.op_type](step)
        y = step.y if bias is None or not left_out(self.zero_params) else step.y - bias
        share = relevance / stabilized(y, self.epsilon)
        share = share if scale is None else share * scale
        epsilon = step.attribute("epsilon", 1e-5)

        def carried(share: Tensor, x: Tensor) -> Tensor:
            return _centred(view(share)) / op.Sqrt(_mean(_squared(_centred(view(x)))) + epsilon)

        found = reshaped(in_float32(carried, share, step.x), step.x)
        return [step.x * found, *[None] * (len(step.inputs) - 1)]


def _mean(x: Tensor) -> Tensor:
    return op.ReduceMean(x, [-1], keepdims=1)


def _centred(x: Tensor) -> Tensor:
    return x - _mean(x)


def _squared(x: Tensor) -> Tensor:
    return x * x


Form = tuple[Tensor | None, Tensor | None, View]


def _layer(step: Step) -> Form:
    bias = step.input(2) if step.has_input(2) else None
    axis = step.axis()
    return step.input(1), bias, lambda x: x if axis == x.rank - 1 else op.Reshape(x, [*[0] * axis, -1])


def _instance(step: Step) -> Form:
    scale, bias = (_per_channel(step.input(place), step.x.rank) for place in (1, 2))
    return scale, bias, lambda x: op.Reshape(x, [0, 0, -1])


def _group(step: Step) -> Form:
    """Scale and bias are per channel from opset 21 on, and per group before."""
    groups = step.attribute("num_groups")
    parameters = [step.input(1), step.input(2)]
    if step.x.emitter.model.opset_imports[""] < 21:
        size = int(step.x.shape[1]) // groups
        parameters = [op.Reshape(op.Expand(op.Unsqueeze(one, [1]), [groups, size]), [-1]) for one in parameters]
    scale, bias = (_per_channel(one, step.x.rank) for one in parameters)
    return scale, bias, lambda x: op.Reshape(x, [0, groups, -1])


def _per_channel(x: Tensor, rank: int) -> Tensor:
    return op.Unsqueeze(x, list(range(1, rank - 1)))


# From a step to its scale and its bias, to broadcast against the data, and the view of the data.
FORMS: dict[str, Callable[[Step], Form]] = {
    "LayerNormalization": _layer,
    "InstanceNormalization": _instance,
    "GroupNormalization": _group,
}

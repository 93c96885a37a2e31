"""Relevance through attention.

Achtibat et al. 2024, "AttnLRP: Attention-Aware Layer-Wise Relevance Propagation for Transformers", section 3.3; Ali et
al. 2022, "XAI for Transformers: Better Explanations through Conservative Propagation", section 3.2.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from craft_onnx.graph.reverse.broadcast import sum_over
from craft_onnx.graph.reverse.relevance.gates import gate_of
from craft_onnx.graph.reverse.relevance.rules import Norm
from craft_onnx.graph.reverse.rules import Step
from craft_onnx.graph.reverse.tensor import Tensor, op


def expanded_softmax(step: Step, relevance: Tensor) -> list[Tensor | None]:
    """R_i = x_i (R_i - s_i sum_j R_j): the expansion of s at x, without its bias (proposition 3.1)."""
    total = sum_over(relevance, [step.axis()])
    # What is masked by minus infinity has no share in s, nor in relevance.
    x = op.Where(step.y > 0, step.x, 0.0).shaped_like(step.x)
    return [x * (relevance - step.y * total)]


@dataclass(frozen=True)
class Bilinear(Norm):
    """Products of what is computed: half to each side, in the proportion of its terms (proposition 3.3)."""

    def __call__(self, step: Step, relevance: Tensor) -> list[Tensor | None]:
        """The relevance of both sides; all to one where the other does not depend on the picture."""
        sides = sum(step.wanted)
        return super().__call__(step, relevance if sides == 1 else relevance * (1 / sides))


@dataclass(frozen=True)
class Weighted(Bilinear):
    """`Bilinear`, but what comes out of a Softmax counts as constant weights of the other side (Ali et al.)."""

    def __call__(self, step: Step, relevance: Tensor) -> list[Tensor | None]:
        """The relevance of both sides."""
        gate = gate_of(step.node)
        if gate is not None and step.wanted[1 - gate]:
            step = replace(step, wanted=tuple(place == 1 - gate for place in range(len(step.inputs))))
        return super().__call__(step, relevance)

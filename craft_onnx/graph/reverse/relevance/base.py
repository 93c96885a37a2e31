"""What composites of relevance have in common: every operator but convolutions and dense layers."""

from __future__ import annotations

from craft_onnx.graph.reverse.relevance.attention import Weighted
from craft_onnx.graph.reverse.relevance.composite import LayerMap
from craft_onnx.graph.reverse.relevance.division import EPSILON
from craft_onnx.graph.reverse.relevance.gates import gate_of
from craft_onnx.graph.reverse.relevance.matching import (
    ACTIVATIONS,
    AVERAGES,
    Match,
    any_of,
    is_bias,
    is_bilinear,
    is_gated,
    is_prepared,
    is_quotient,
    is_scaled,
    is_shifted,
    is_sum,
)
from craft_onnx.graph.reverse.relevance.normalizing import FORMS, SCALING, Normalized
from craft_onnx.graph.reverse.relevance.rules import Added, Norm, Parameters, Pass
from craft_onnx.graph.reverse.rules import Step
from craft_onnx.graph.reverse.tensor import Tensor


def gated(step: Step, relevance: Tensor) -> list[Tensor | None]:
    """All relevance to the signal, none to the gate that lets it through; half to each where that cannot be told."""
    gate = gate_of(step.node)
    if gate is not None and step.wanted[1 - gate]:
        return [None if place == gate else relevance for place in range(2)]
    return [relevance * 0.5 if all(step.wanted) else relevance] * 2


def base(stabilizer: float = EPSILON, zero_params: Parameters | None = None) -> LayerMap:
    """The last rows of composites of relevance.

    Activations and scales pass it on, sums, averages and normalizations divide it; so do shifts, whose constants take
    their share as biases do. A bias behind a product is its rule's affair. In front of the first layer, which may have
    a rule that is not about the data, scales and shifts only prepare these. What is divided by and what lets through
    count as constants, attention among it.
    """
    passing: list[Match] = [any_of(ACTIVATIONS | SCALING), is_bias, is_prepared, is_scaled, is_quotient]
    added = Added(stabilizer, zero_params)
    return [
        *((matches, Pass()) for matches in passing),
        (any_of(frozenset(FORMS)), Normalized(stabilizer, zero_params)),
        (is_sum, added),
        (is_shifted, added),
        (any_of(AVERAGES), Norm(stabilizer)),
        (is_gated, gated),
        (is_bilinear, Weighted(stabilizer)),
    ]

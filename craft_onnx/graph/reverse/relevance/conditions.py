"""Conditions on the way of relevance: masks at layers, records of what reaches them, shortcuts around them cut.

Achtibat et al. 2023, "From attribution maps to human-understandable explanations through Concept Relevance
Propagation", equation 2.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import onnx_ir as ir

from craft_onnx.graph.names import find_tensor
from craft_onnx.graph.reverse.driver import carriers, pull_back
from craft_onnx.graph.reverse.gradients.shapes import zeros_like
from craft_onnx.graph.reverse.rules import Rules
from craft_onnx.graph.reverse.tensor import Tensor, op
from craft_onnx.graph.reverse.vjp import Carried

MASK, RELEVANCE = "mask/", "relevance/"


@dataclass(frozen=True)
class Conditions:
    """How relevance is carried back.

    Attributes
    ----------
    masked : sequence of str
        Tensors or layers. For each tensor, "mask/<name>" is an input that the relevance there is multiplied by: it
        broadcasts against the tensor.
    recorded : sequence of str
        Tensors or layers. For each tensor, "relevance/<name>" is an output: what reaches it, before the mask.
    exclude_parallel : bool
        Relevance flows through masked tensors only; shortcuts around them are cut.
    """

    masked: Sequence[str] = ()
    recorded: Sequence[str] = ()
    exclude_parallel: bool = True

    def __call__(self, target: ir.Value, cotangent: Tensor, source: ir.Value, rules: Rules) -> Carried:
        """Carry relevance from the target to the source; InputError where there is no such tensor or layer."""
        emitter = cotangent.emitter
        masked = [find_tensor(emitter.model, name) for name in self.masked]
        masks = {value: emitter.tensor(_mask_of(value)) for value in masked}
        way = _Way(masks, [find_tensor(emitter.model, name) for name in self.recorded])
        stages = list(_stages(list(emitter.model.graph), masks, rules)) if self.exclude_parallel else []
        carried = {target: cotangent}
        for ends in [*stages, [source]]:
            carried = pull_back(emitter, carried, ends, rules, way)
        records = [way.record(emitter.tensor(value)) for value in way.recorded]
        return Carried(carried.get(source), [mask.value for mask in masks.values()], records)


@dataclass
class _Way:
    """Notes what passes, and multiplies it by masks."""

    masks: Mapping[ir.Value, Tensor]
    recorded: Sequence[ir.Value]
    passed: dict[ir.Value, Tensor] = field(default_factory=dict)

    def __call__(self, value: ir.Value, relevance: Tensor) -> Tensor:
        if value in self.recorded:
            self.passed[value] = relevance
        return (relevance * self.masks[value]).shaped_like(relevance) if value in self.masks else relevance

    def record(self, tensor: Tensor) -> ir.Value:
        """The relevance of a tensor as an output, zeros where none reached it."""
        passed = self.passed.get(tensor.value) or zeros_like(tensor)
        found = op.Identity(passed).shaped_like(tensor)
        found.value.name = f"{RELEVANCE}{tensor.value.name}"
        return found.value


def _mask_of(value: ir.Value) -> ir.Value:
    """An input that broadcasts against a value: its sizes are its own, or 1."""
    name = f"{MASK}{value.name}"
    sizes = [f"{name}.{axis}" for axis in range(len(value.shape or ()))]
    return ir.Value(name=name, shape=ir.Shape(sizes), type=value.type)


def _stages(nodes: Sequence[ir.Node], masked: Mapping[ir.Value, Tensor], rules: Rules) -> Iterator[list[ir.Value]]:
    """The masked values from the target on: first those behind which there is none, then those before these, ..."""
    behind = {value: carriers(nodes, [value], rules) for value in masked}
    left = list(masked)
    while left:
        last = [value for value in left if not any(other in behind[value] for other in left if other is not value)]
        yield last
        left = [value for value in left if value not in last]


@dataclass(frozen=True)
class Sums:
    """Relevance is only counted: "relevance/<name>" has the sum of what reaches a tensor, for each row.

    Parameters
    ----------
    recorded : sequence of str
        Tensors or layers.
    """

    recorded: Sequence[str] = ()

    def __call__(self, target: ir.Value, cotangent: Tensor, source: ir.Value, rules: Rules) -> Carried:
        """Carry relevance from the target to the source; InputError where there is no such tensor or layer."""
        found = Conditions((), self.recorded)(target, cotangent, source, rules)
        return replace(found, outputs=[_summed(cotangent.emitter.tensor(value)) for value in found.outputs])


def _summed(record: Tensor) -> ir.Value:
    """The sum over all axes but the first, under the name of the record."""
    name = str(record.value.name)
    record.value.name = f"{name}/map"
    sums = op.ReduceSum(op.Flatten(record, axis=1), [1], keepdims=0).value
    sums.name = name
    return sums

"""Which nodes a row of a composite is about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from craft_onnx.errors import InputError
from craft_onnx.graph.names import find_tensor, layer_of, layers_of
from craft_onnx.graph.paths import components
from craft_onnx.graph.values import constant, operators

Match = Callable[[ir.Node], bool]

CONVOLUTIONS = operators("Conv ConvTranspose")
DENSE = operators("Gemm MatMul Einsum")
ACTIVATIONS = operators(
    "Relu LeakyRelu PRelu ThresholdedRelu Elu Selu Celu Clip Sigmoid HardSigmoid Tanh Gelu Swish HardSwish Mish "
    "Softplus Softsign Shrink Erf Dropout Identity"
)
RECTIFIERS = operators("Relu Clip")
AVERAGES = operators("AveragePool GlobalAveragePool ReduceMean ReduceSum")
# What a signal is multiplied by to let more or less of it through comes out of one of these.
GATES = operators("Sigmoid HardSigmoid Tanh Erf Softmax")
# What may lie between those and the product.
BETWEEN = operators("Reshape Squeeze Unsqueeze Flatten Transpose Expand Identity Cast Add Sub Mul Div Clip")


def is_linear(node: ir.Node) -> bool:
    """Whether a node is a convolution or a matrix product with constant weights."""
    return node.op_type in CONVOLUTIONS | DENSE and any(constant(value) is not None for value in node.inputs[:2])


def any_of(*kinds: str | frozenset[str]) -> Match:
    """Nodes of these operators; of products, those with constant weights."""
    wanted = frozenset[str]().union(*({kind} if isinstance(kind, str) else kind for kind in kinds))
    return lambda node: node.op_type in wanted and (node.op_type not in CONVOLUTIONS | DENSE or is_linear(node))


@dataclass(frozen=True)
class Named:
    """Nodes of layers.

    Parameters
    ----------
    names : tuple of str
        Paths of layers, or their beginnings, or names of nodes or tensors.
    """

    names: tuple[str, ...]

    def __call__(self, node: ir.Node) -> bool:
        """Whether a node belongs to one of them."""
        return any(_answers(node, name) for name in self.names)

    def check(self, model: ir.Model) -> None:
        """Raise InputError, with near matches, where a model has no node of one of the names."""
        for name in self.names:
            if not any(_answers(node, name) for node in model.graph):
                near = layer_of(find_tensor(model, name))
                raise InputError(f"No layer's path begins with {name!r}.", f"Give the whole path: {near}.")


def _answers(node: ir.Node, name: str) -> bool:
    wanted = components(name)
    if name == node.name or any(name == value.name for value in node.outputs):
        return True
    return any(components(layer)[: len(wanted)] == wanted for layer in layers_of(node))


def first_linear(node: ir.Node) -> bool:
    """The convolution or matrix product that is computed first."""
    graph = node.graph
    return graph is not None and node is next((one for one in graph if is_linear(one)), None)


def is_sum(node: ir.Node) -> bool:
    """Whether a node adds branches; what adds a constant does not."""
    return node.op_type in ("Add", "Sum", "Sub", "Mean") and sum(constant(value) is None for value in node.inputs) > 1


def is_gated(node: ir.Node) -> bool:
    """Whether a node multiplies what is computed with what is computed."""
    return node.op_type == "Mul" and all(constant(value) is None for value in node.inputs)


def gate_of(node: ir.Node) -> int | None:
    """Which input of a product lets the other through; None where that cannot be told."""
    gates = [place for place, value in enumerate(node.inputs) if _is_gate(value)]
    return gates[0] if len(gates) == 1 else None


def _is_gate(value: ir.Value | None) -> bool:
    producer = None if value is None else value.producer()
    if producer is None or producer.op_type in GATES:
        return producer is not None
    computed = [one for one in producer.inputs if one is not None and constant(one) is None]
    return producer.op_type in BETWEEN and len(computed) == 1 and _is_gate(computed[0])

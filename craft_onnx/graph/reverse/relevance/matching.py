"""Which nodes a row of a composite is about."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from craft_onnx.errors import InputError
from craft_onnx.graph.names import find_tensor, layer_of, layers_of
from craft_onnx.graph.paths import components
from craft_onnx.graph.reverse.tensor import FORWARD_KEY
from craft_onnx.graph.values import constant, operators

Match = Callable[[ir.Node], bool]

CONVOLUTIONS = operators("Conv ConvTranspose")
DENSE = operators("Gemm MatMul Einsum")
# A bias is added behind them, by an Add.
UNBIASED = operators("MatMul Einsum")
ACTIVATIONS = operators(
    "Relu LeakyRelu PRelu ThresholdedRelu Elu Selu Celu Clip Sigmoid HardSigmoid Tanh Gelu Swish HardSwish Mish "
    "Softplus Softsign Shrink Erf Dropout Identity"
)
RECTIFIERS = operators("Relu Clip")
AVERAGES = operators("AveragePool GlobalAveragePool ReduceMean ReduceSum")


def is_linear(node: ir.Node) -> bool:
    """Whether a node is a convolution or a matrix product with constant weights."""
    return node.op_type in CONVOLUTIONS | DENSE and any(constant(value) is not None for value in node.inputs[:2])


def is_bilinear(node: ir.Node) -> bool:
    """Whether a node is a matrix product of what is computed."""
    return node.op_type in DENSE and not is_linear(node)


@dataclass(frozen=True)
class OfKinds:
    """Nodes of operators; of products, those with constant weights.

    Parameters
    ----------
    names : frozenset of str
        The operators.
    """

    names: frozenset[str]

    def __call__(self, node: ir.Node) -> bool:
        """Whether a node is of one of them."""
        return node.op_type in self.names and (node.op_type not in CONVOLUTIONS | DENSE or is_linear(node))


def any_of(*kinds: str | frozenset[str]) -> OfKinds:
    """Nodes of these operators; of products, those with constant weights."""
    return OfKinds(frozenset[str]().union(*({kind} if isinstance(kind, str) else kind for kind in kinds)))


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


@dataclass(frozen=True)
class FirstLayer:
    """Of some nodes the convolution or matrix product that is computed first.

    Parameters
    ----------
    matches : callable
        The nodes.
    """

    matches: Match

    def __call__(self, node: ir.Node) -> bool:
        """Whether a node is that."""
        return first_linear(node) and self.matches(node)


def is_sum(node: ir.Node) -> bool:
    """Whether a node adds branches; what adds a constant does not."""
    return node.op_type in ("Add", "Sum", "Sub", "Mean") and sum(constant(value) is None for value in node.inputs) > 1


def is_scaled(node: ir.Node) -> bool:
    """Whether a node multiplies by a constant, or changes the sign."""
    return node.op_type == "Neg" or with_constant(node, ("Mul",)) or (node.op_type == "Div" and _fixed(node)[1])


def is_shifted(node: ir.Node) -> bool:
    """Whether a node adds a constant: on its own, or as BatchNormalization that nothing could be merged with."""
    return node.op_type == "BatchNormalization" or with_constant(node, ("Add", "Sub"))


def is_prepared(node: ir.Node) -> bool:
    """Whether a node scales or shifts pictures: no convolution or matrix product comes before it."""
    return (is_scaled(node) or is_shifted(node)) and not _behind_linear(node)


def _behind_linear(node: ir.Node) -> bool:
    for one in node.graph or ():
        if one is node or is_linear(one):
            return one is not node
    return False


def with_constant(node: ir.Node, kinds: Sequence[str]) -> bool:
    """Whether a node of some operators has one constant and one computed input."""
    return node.op_type in kinds and sum(_fixed(node)) == 1


def _fixed(node: ir.Node) -> list[bool]:
    return [constant(value) is not None for value in node.inputs]


def sum_behind(product: ir.Node) -> ir.Node | None:
    """The Add of a constant to a product of an operator that has no bias of its own, if nothing else reads that."""
    readers = [node for node in product.outputs[0].consumers() if FORWARD_KEY not in node.metadata_props]
    if len(readers) != 1 or product.op_type not in UNBIASED or not is_linear(product):
        return None
    return readers[0] if with_constant(readers[0], ("Add",)) else None


def is_bias(node: ir.Node) -> bool:
    """Whether a node adds the bias of a product."""
    makers = (None if value is None else value.producer() for value in node.inputs)
    return any(sum_behind(product) is node for product in makers if product is not None)


def is_gated(node: ir.Node) -> bool:
    """Whether a node multiplies what is computed with what is computed."""
    return node.op_type == "Mul" and all(constant(value) is None for value in node.inputs)


def is_quotient(node: ir.Node) -> bool:
    """Whether a node divides what is computed by what is computed: that counts as a constant."""
    return node.op_type == "Div" and all(constant(value) is None for value in node.inputs)

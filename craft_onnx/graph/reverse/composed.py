"""Activation functions made of several nodes, such as x * sigmoid(x): one derivative, one product with the cotangent.

Node by node, every way from x to y costs a product with the cotangent. Carried back from 1 instead, by the same rules,
the derivative is found apart from it: once for any number of cotangents, and numbers stay numbers until the end.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

import onnx_ir as ir

from craft_onnx.graph.reverse.gradients.activations import RULES as ACTIVATIONS
from craft_onnx.graph.reverse.gradients.arithmetic import RULES as ARITHMETIC
from craft_onnx.graph.reverse.rules import Rule, Rules, Step
from craft_onnx.graph.reverse.tensor import Emitter, Tensor
from craft_onnx.graph.values import constant, dimensions, operators

# Those whose rules do nothing with a cotangent but multiply it.
_PLAIN: dict[str, Rule] = {
    op_type: (ARITHMETIC | ACTIVATIONS)[op_type]
    for op_type in operators(
        "Add Sub Mul Div Pow Neg Exp Log Sqrt Reciprocal Erf Tanh Sigmoid HardSigmoid Softplus Softsign"
    )
}


class Composed(NamedTuple):
    """A function of single elements.

    Attributes
    ----------
    x : onnx_ir.Value
        Its argument.
    nodes : list of onnx_ir.Node
        In execution order; the last gives its value, and nothing else reads what the others give.
    """

    x: ir.Value
    nodes: list[ir.Node]


def composed(nodes: Sequence[ir.Node], rules: Rules, apart: Collection[ir.Value]) -> dict[ir.Node, Composed]:
    """The functions in which several ways lead from x to y, by their last nodes.

    Parameters
    ----------
    nodes : sequence of onnx_ir.Node
        In execution order, with the shapes of their values.
    rules : Rules
        Nodes that it treats otherwise than the derivative does are none of a function.
    apart : collection of onnx_ir.Value
        Values that are seen from outside.
    """
    argument: dict[ir.Value, ir.Value] = {}
    members: dict[ir.Value, list[ir.Node]] = {}
    for node in nodes:
        x = _argument(node, argument) if _is_plain(node, rules) else None
        if x is not None:
            argument[node.outputs[0]] = x
            members.setdefault(x, []).append(node)
    found = (Composed(x, group) for x, group in members.items())
    return {one.nodes[-1]: one for one in found if _forks(one) and _is_closed(one, apart)}


def _is_plain(node: ir.Node, rules: Rules) -> bool:
    return not node.domain and node.op_type in _PLAIN and rules.find(node) is _PLAIN[node.op_type]


def _argument(node: ir.Node, argument: dict[ir.Value, ir.Value]) -> ir.Value | None:
    """What alone a node's output is a function of, element by element."""
    found = {argument.get(value, value) for value in _variables(node)}
    x = found.pop() if len(found) == 1 else None
    return x if x is not None and dimensions(x) and dimensions(x) == dimensions(node.outputs[0]) else None


def _variables(node: ir.Node) -> Iterator[ir.Value]:
    """Inputs of a node other than constant numbers."""
    for value in node.inputs:
        array = constant(value)
        if value is not None and (array is None or array.size > 1):
            yield value


def _forks(function: Composed) -> bool:
    return any(len(list(_variables(node))) > 1 for node in function.nodes)


def _is_closed(function: Composed, apart: Collection[ir.Value]) -> bool:
    """Whether nothing outside reads what is inside."""
    inside = set(function.nodes)
    values = [node.outputs[0] for node in function.nodes[:-1]]
    return not any(value in apart or value.is_graph_output() or set(value.consumers()) - inside for value in values)


def derivative(function: Composed, emitter: Emitter, rules: Rules) -> Scaled:
    """dy/dx, element by element: 1 carried back from y."""
    pending = {function.nodes[-1].outputs[0]: Scaled(1)}
    for node in reversed(function.nodes):
        if node.outputs[0] not in pending:
            continue  # nothing reads it
        variables = set(_variables(node))
        inputs = tuple(None if value is None else emitter.tensor(value) for value in node.inputs)
        step = Step(node, inputs, (emitter.tensor(node.outputs[0]),), tuple(v in variables for v in node.inputs))
        with emitter.deriving(node, rules.name):
            parts: Sequence[Any] = _PLAIN[node.op_type](step, pending.pop(node.outputs[0]))
            for value, part in zip(node.inputs, parts, strict=True):
                if value in variables:
                    pending[value] = pending[value] + part if value in pending else part
    return pending[function.x]


def _number(x: Tensor | float) -> float | None:
    """A number, or that of a constant of one element."""
    if isinstance(x, Tensor):
        return float(x.array.item()) if x.array is not None and x.array.size == 1 else None
    return float(x)


class Scaled:
    """A number times a tensor, or the number alone: a cotangent for rules that only multiply it.

    Attributes
    ----------
    factor : float
    tensor : Tensor or None
    """

    def __init__(self, factor: float, tensor: Tensor | None = None) -> None:
        self.factor = factor
        self.tensor = tensor

    def __mul__(self, other: Any) -> Scaled:
        number = _number(other)
        if number is not None:
            return Scaled(self.factor * number, self.tensor)
        return Scaled(self.factor, other if self.tensor is None else self.tensor * other)

    def __truediv__(self, other: Tensor) -> Scaled:
        number = _number(other)
        if number:  # what is divided by zero is so when the graph runs
            return Scaled(self.factor / number, self.tensor)
        return Scaled(self.factor, 1 / other if self.tensor is None else self.tensor / other)

    def __neg__(self) -> Scaled:
        return Scaled(-self.factor, self.tensor)

    def __add__(self, other: Scaled) -> Scaled:
        if self.tensor is None and other.tensor is None:
            return Scaled(self.factor + other.factor)
        if self.tensor is None or self.factor == 0:
            return other if self.factor == 0 else other + self
        ratio = other.factor / self.factor
        if other.tensor is None:
            return Scaled(self.factor, self.tensor + ratio)
        return Scaled(self.factor, self.tensor + (other.tensor if ratio == 1 else other.tensor * ratio))

    def of(self, cotangent: Tensor) -> Tensor:
        """The product with a cotangent."""
        scaled = cotangent if self.factor == 1 else cotangent * self.factor
        return scaled if self.tensor is None else scaled * self.tensor

"""The reverse pass: one walk backwards over the nodes, whatever the rules are."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from types import MappingProxyType

import onnx_ir as ir

from craft_onnx.graph.foreign import unsupported
from craft_onnx.graph.reverse.broadcast import unbroadcast
from craft_onnx.graph.reverse.rules import Rules, Step
from craft_onnx.graph.reverse.tensor import Emitter, Tensor
from craft_onnx.graph.values import operators, used_values

# What happens to the cotangent of a value once all that reaches it has been added up.
Visit = Callable[[ir.Value, Tensor], Tensor]
# A value further back, and how a cotangent is carried there at once.
Shortcut = tuple[ir.Value, Callable[[Tensor], Tensor]]


def _unchanged(value: ir.Value, cotangent: Tensor) -> Tensor:
    return cotangent


def pull_back(
    emitter: Emitter,
    cotangents: Mapping[ir.Value, Tensor],
    wrt: Collection[ir.Value],
    rules: Rules,
    visit: Visit = _unchanged,
    shortcuts: Mapping[ir.Node, Shortcut] = MappingProxyType({}),
) -> dict[ir.Value, Tensor]:
    """Carry cotangents back from some values of a graph to others, by the rules of its nodes.

    Parameters
    ----------
    emitter : Emitter
        Of the model that holds them all; the nodes emitted are appended to it.
    cotangents : mapping of onnx_ir.Value to Tensor
        Where they are given; each of the shape of its value.
    wrt : collection of onnx_ir.Value
        Where they are asked for; nothing is carried past these.
    rules : Rules
        What happens at each node.
    visit : callable
        From every value on the way, `wrt` not included, and its cotangent to the one to go on with.
    shortcuts : mapping of onnx_ir.Node to Shortcut
        Nodes with one output from which the way leads past others, that nothing else goes through.

    Returns
    -------
    dict of onnx_ir.Value to Tensor
        The cotangents of `wrt`, in their shapes; those are left out to which no derivative leads.

    Raises
    ------
    UnsupportedOperator
        If a node on the way has no rule.
    """
    nodes = list(emitter.model.graph)
    reached = carriers(nodes, wrt, rules)
    pending, ends = dict(cotangents), set(wrt)
    for node in reversed(nodes):
        outputs = set(node.outputs)
        if outputs & reached and outputs & pending.keys() and not outputs & ends:
            with emitter.deriving(node, rules.name):
                given = [visit(value, pending.pop(value)) if value in pending else None for value in node.outputs]
                for value, found in _carried(emitter, node, given, reached, rules, shortcuts.get(node)):
                    if value is not None and found is not None and value in reached:
                        part = unbroadcast(found, emitter.tensor(value))
                        pending[value] = pending[value] + part if value in pending else part
    return {value: pending[value] for value in wrt if value in pending}


def carriers(nodes: Iterable[ir.Node], wrt: Collection[ir.Value], rules: Rules) -> set[ir.Value | None]:
    """Values that depend on some of `wrt` through nodes that let a derivative through."""
    reached: set[ir.Value | None] = set(wrt)
    for node in nodes:
        if not rules.stops(node) and not reached.isdisjoint(used_values(node)):
            quantized = node.op_type in QUANTIZING or any(
                _is_integer(value) for value in node.inputs if value in reached
            )
            reached.update(value for value in node.outputs if quantized or not _is_integer(value))
    return reached


# Their integers stand for floating-point numbers, as do those that are made of such integers.
QUANTIZING = operators("QuantizeLinear DynamicQuantizeLinear ConvInteger MatMulInteger QLinearConv QLinearMatMul")


def _is_integer(value: ir.Value | None) -> bool:
    return value is not None and value.dtype is not None and not value.dtype.is_floating_point()


def _carried(
    emitter: Emitter,
    node: ir.Node,
    given: Sequence[Tensor | None],
    reached: set[ir.Value | None],
    rules: Rules,
    shortcut: Shortcut | None,
) -> Iterable[tuple[ir.Value | None, Tensor | None]]:
    """Values before a node, or where a shortcut leads, and their cotangents."""
    if shortcut is not None and given[0] is not None:
        x, carry = shortcut
        return [(x, carry(given[0]))]
    return zip(node.inputs, _apply(emitter, node, given, reached, rules), strict=True)


def _apply(
    emitter: Emitter, node: ir.Node, given: Sequence[Tensor | None], reached: set[ir.Value | None], rules: Rules
) -> Sequence[Tensor | None]:
    """The cotangents of a node's inputs."""
    rule = rules.find(node)
    if rule is None:
        raise unsupported(node, "No derivative is known of", "Cut the model behind that layer")
    step = Step(
        node,
        tuple(None if value is None else emitter.tensor(value) for value in node.inputs),
        tuple(emitter.tensor(value) for value in node.outputs),
        tuple(value in reached for value in node.inputs),
    )
    last = max(index for index, one in enumerate(given) if one is not None)
    found = rule(step, *given[: last + 1])
    assert len(found) == len(node.inputs), f"{node.op_type}: {len(found)} cotangents for {len(node.inputs)} inputs"
    return found

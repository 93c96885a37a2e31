"""The reverse pass: one walk backwards over the nodes, whatever the rules are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import onnx_ir as ir

from craft_onnx.graph.foreign import unsupported
from craft_onnx.graph.reverse.broadcast import unbroadcast
from craft_onnx.graph.reverse.rules import Rules, Step
from craft_onnx.graph.reverse.tensor import Emitter, Tensor
from craft_onnx.graph.values import operators, used_values


def pull_back(emitter: Emitter, of: ir.Value, cotangent: Tensor, wrt: ir.Value, rules: Rules) -> Tensor | None:
    """Carry a cotangent back from one value of a graph to another, by the rules of its nodes.

    Parameters
    ----------
    emitter : Emitter
        Of the model that holds both; the nodes emitted are appended to it.
    of, wrt : onnx_ir.Value
        Where the cotangent is given, where it is asked for.
    cotangent : Tensor
        Of the shape of `of`.
    rules : Rules
        What happens at each node.

    Returns
    -------
    Tensor or None
        The cotangent of `wrt`, in its shape; None where no derivative leads there.

    Raises
    ------
    UnsupportedOperator
        If a node on the way has no rule.
    """
    nodes = list(emitter.model.graph)
    reached = carriers(nodes, wrt, rules)
    cotangents = {of: cotangent}
    for node in reversed(nodes):
        if wrt in node.outputs:
            break
        given = [cotangents.pop(output, None) for output in node.outputs]
        if any(one is not None for one in given) and not reached.isdisjoint(node.outputs):
            with emitter.deriving(node, rules.name):
                for value, found in zip(node.inputs, _apply(emitter, node, given, reached, rules), strict=True):
                    if value is not None and found is not None and value in reached:
                        part = unbroadcast(found, emitter.tensor(value))
                        cotangents[value] = cotangents[value] + part if value in cotangents else part
    return cotangents.get(wrt)


def carriers(nodes: Iterable[ir.Node], wrt: ir.Value, rules: Rules) -> set[ir.Value | None]:
    """Values that depend on `wrt` through nodes that let a derivative through."""
    reached: set[ir.Value | None] = {wrt}
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

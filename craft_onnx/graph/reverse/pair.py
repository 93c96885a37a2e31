"""A gradient graph in two parts: one forward pass serves any number of cotangents."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import onnx_ir as ir

from craft_onnx.graph.load import check
from craft_onnx.graph.reverse.gradients import GRADIENTS
from craft_onnx.graph.reverse.rules import Rules
from craft_onnx.graph.reverse.vjp import Carry, straight, with_reverse_pass
from craft_onnx.graph.values import Builder, used_values, without_unused


def gradient_pair(
    model: ir.Model,
    of: str | None = None,
    wrt: str | None = None,
    rules: Rules = GRADIENTS,
    carry: Carry = straight,
    keep: Sequence[str] = (),
) -> tuple[ir.Model, ir.Model]:
    """The vector-Jacobian product of a model as a forward and a backward graph.

    Parameters and errors are those of `gradient_graph`, and

    Parameters
    ----------
    keep : sequence of str
        Names of tensors, each once and neither `of` nor the input, that the forward graph gives besides.

    Returns
    -------
    forward : onnx_ir.Model
        From the model's input to `of`, the residuals (what the way back needs and the cotangent does not change) and
        the tensors of `keep`.
    backward : onnx_ir.Model
        From "cotangent", the inputs of `carry` and residuals, by their names, to "gradient" and the outputs of `carry`.
    """
    whole = with_reverse_pass(model, of, wrt, rules, carry, keep)
    carried = [str(value.name) for value in whole.graph.outputs[1 : len(whole.graph.outputs) - len(keep)]]
    residuals = _residuals(whole, carried)
    forward, backward = _forward(whole.clone(), [*residuals, *keep]), _backward(whole, residuals, carried)
    for part in (forward, backward):
        check(part)
    return forward, backward


def _residuals(whole: ir.Model, carried: Collection[str]) -> list[str]:
    """Names of the values that both depend on x alone and are read by something that depends on the cotangent.

    x itself is passed on under another name: no output of a graph may be its input.
    """
    image, cotangent, *_ = whole.graph.inputs
    late, early = _depending(whole.graph, cotangent), _depending(whole.graph, image)
    passed = [node for node in whole.graph if image in node.inputs and node.outputs[0] in late]
    if passed:
        _pass_on(whole.graph, image, passed)
        return _residuals(whole, carried)
    late |= {value for value in whole.graph.outputs if value.name in carried}  # those that no cotangent reaches, too
    late |= _filled(whole.graph, late)
    read = {value for node in whole.graph if node.outputs[0] in late for value in used_values(node)}
    return [str(value.name) for node in whole.graph for value in node.outputs if value in read & early - late]


def _filled(graph: ir.Graph, late: set[ir.Value]) -> set[ir.Value]:
    """Constants as large as a picture says, made where they are needed: their shape is less to carry than they are."""
    made = [node.outputs[0] for node in graph if node.op_type == "ConstantOfShape"]
    return {value for value in made if any(user.outputs[0] in late for user in value.consumers())}


def _depending(graph: ir.Graph, source: ir.Value) -> set[ir.Value]:
    found = {source}
    for node in graph:
        if any(value in found for value in used_values(node)):
            found.update(node.outputs)
    return found


def _pass_on(graph: ir.Graph, image: ir.Value, users: list[ir.Node]) -> None:
    copy = Builder(graph, before=next(iter(graph))).op("Identity", [image], wish=f"{image.name}_residual")
    copy.shape, copy.type = image.shape, image.type
    for node in users:
        for index, value in enumerate(node.inputs):
            if value is image:
                node.replace_input_with(index, copy)


def _forward(whole: ir.Model, given: list[str]) -> ir.Model:
    graph = whole.graph
    values = {value.name: value for node in graph for value in node.outputs}
    target = graph.outputs[0]
    graph.outputs[:] = [target, *(values[name] for name in dict.fromkeys(given) if name != target.name)]
    graph.inputs[:] = graph.inputs[:1]
    graph.name = f"{graph.name}_forward"
    return without_unused(whole)


def _backward(whole: ir.Model, residuals: list[str], carried: Collection[str]) -> ir.Model:
    graph = whole.graph
    late = graph.inputs[1:]
    graph.outputs[:] = [value for value in graph.outputs if value.name in carried]
    values = {value.name: value for node in graph for value in node.outputs}
    entries = [_entry(values[name]) for name in residuals]
    graph.inputs[:] = [*late, *entries]
    graph.name = f"{graph.name}_backward"
    return without_unused(whole)


def _entry(value: ir.Value) -> ir.Value:
    """A graph input in place of a computed value."""
    entry = ir.Value(name=value.name, shape=value.shape, type=value.type)
    value.name = None
    value.replace_all_uses_with(entry)
    return entry

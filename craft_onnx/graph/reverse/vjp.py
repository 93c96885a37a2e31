"""The gradient graph of a model: its vector-Jacobian product as one graph, (x, cotangent) -> gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes.common import CommonSubexpressionEliminationPass

from craft_onnx.errors import InputError
from craft_onnx.graph.load import check, image_input, logits_output
from craft_onnx.graph.positions import pick_early
from craft_onnx.graph.reverse.composed import Composed, composed, derivative
from craft_onnx.graph.reverse.driver import Shortcut, pull_back
from craft_onnx.graph.reverse.functions import inline_functions
from craft_onnx.graph.reverse.gradients import GRADIENTS
from craft_onnx.graph.reverse.rules import Rules
from craft_onnx.graph.reverse.tensor import Emitter, Tensor, name_dimensions, op
from craft_onnx.graph.values import take_name, with_shapes, without_unused

COTANGENT, GRADIENT = "cotangent", "gradient"


@dataclass(frozen=True)
class Carried:
    """What was carried back.

    Attributes
    ----------
    gradient : Tensor or None
        None where no derivative leads there.
    inputs, outputs : list of onnx_ir.Value
        What the way back takes and gives besides.
    """

    gradient: Tensor | None
    inputs: Sequence[ir.Value] = ()
    outputs: Sequence[ir.Value] = ()


# From the target, its cotangent and the source to what is carried there.
Carry = Callable[[ir.Value, Tensor, ir.Value, Rules], Carried]


def straight(target: ir.Value, cotangent: Tensor, source: ir.Value, rules: Rules) -> Carried:
    """By the rules, as they are."""
    emitter = cotangent.emitter
    functions = composed(list(emitter.model.graph), rules, {target, source})

    def shortcut(function: Composed) -> Shortcut:
        return function.x, lambda given: derivative(function, emitter, rules).of(given)

    shortcuts = {node: shortcut(function) for node, function in functions.items()}
    return Carried(pull_back(emitter, {target: cotangent}, [source], rules, shortcuts=shortcuts).get(source))


def gradient_graph(
    model: ir.Model,
    of: str | None = None,
    wrt: str | None = None,
    rules: Rules = GRADIENTS,
    carry: Carry = straight,
) -> ir.Model:
    """The vector-Jacobian product of a model as a graph of standard operators.

    Parameters
    ----------
    model : onnx_ir.Model
        Normalized; is not changed.
    of : str, optional
        Name of the tensor whose derivative is taken, the model's output by default.
    wrt : str, optional
        Name of the tensor with respect to which, the model's input by default.
    rules : Rules
        What happens at each node; the derivatives by default.
    carry : callable
        What more happens on the way, such as masks.

    Returns
    -------
    onnx_ir.Model
        Inputs: the model's, "cotangent" in the shape of `of`, and those of `carry`. Outputs: "gradient", in the shape
        of `wrt`, and those of `carry`.

    Raises
    ------
    UnsupportedOperator
        If an operator on the way has no rule.
    InputError
        If there is no such tensor, or no derivative leads from one to the other.
    """
    whole = with_reverse_pass(model, of, wrt, rules, carry)
    whole.graph.outputs.pop(0)
    without_unused(whole)
    check(whole)
    return whole


def with_reverse_pass(
    model: ir.Model, of: str | None, wrt: str | None, rules: Rules, carry: Carry = straight, keep: Sequence[str] = ()
) -> ir.Model:
    """A model and its reverse pass in one graph; inputs x, "cotangent", ..., outputs `of`, "gradient", ..., `keep`."""
    rules.check(model)
    model = with_shapes(inline_functions(model, rules))
    if rules is GRADIENTS and carry is straight:  # other rules look for layers, other carriers for whole tensors
        pick_early(model, {of, wrt, *keep})
    graph = model.graph
    for name in (COTANGENT, GRADIENT):
        take_name(graph, name)
    for value in _values(graph):
        name_dimensions(value)
    image = image_input(model)
    target = _find(graph, of) if of else logits_output(model)
    source = _find(graph, wrt) if wrt else image
    cotangent = ir.Value(name=COTANGENT, shape=target.shape, type=target.type)
    kept = [_find(graph, name) for name in keep]
    found = carry(target, Emitter(model).tensor(cotangent), source, rules)
    if found.gradient is None:
        raise InputError(
            f"No derivative leads from {target.name!r} to {source.name!r}.",
            "Take a tensor that depends on the other through operators that have derivatives.",
        )
    graph.inputs[:] = [image, cotangent, *found.inputs]
    graph.outputs[:] = [target, _named(found.gradient, source), *found.outputs, *kept]
    graph.name = f"{graph.name}_gradient"
    CommonSubexpressionEliminationPass()(model)
    return without_unused(model)


def _values(graph: ir.Graph) -> list[ir.Value]:
    return [*graph.inputs, *(value for node in graph for value in node.outputs)]


def _find(graph: ir.Graph, name: str) -> ir.Value:
    for value in _values(graph):
        if value.name == name:
            return value
    raise InputError(f"The model has no tensor {name!r}.", "List the layers with: craft-onnx layers.")


def _named(found: Tensor, source: ir.Value) -> ir.Value:
    """The result as an output; where nothing was emitted, the cotangent itself is an input and needs a node."""
    value = found.value if found.value.producer() else op.Identity(found).value
    value.name, value.shape = GRADIENT, source.shape
    return value

"""A model with something added to one of its tensors: what differences are taken of."""

import onnx_ir as ir

from craft_onnx.errors import InputError
from craft_onnx.graph.load import logits_output
from craft_onnx.graph.values import Builder, take_name, used_values, with_shapes, without_unused

SHIFT = "shift"


def shifted(model: ir.Model, of: str | None = None, wrt: str | None = None) -> ir.Model:
    """The function whose derivative a gradient graph is: from x and a shift of `wrt` to `of`.

    Parameters
    ----------
    model : onnx_ir.Model
        Normalized; is not changed.
    of, wrt : str, optional
        As for `gradient_graph`.

    Returns
    -------
    onnx_ir.Model
        Inputs: the model's, and "shift", of the shape of `wrt` or of ones. Outputs: `of`, and `wrt` as it is without
        the shift.

    Raises
    ------
    InputError
        If there is no such tensor.
    """
    copy = with_shapes(model)
    graph = copy.graph
    take_name(graph, SHIFT)
    target = find_value(graph, of) if of else logits_output(copy)
    source = find_value(graph, wrt) if wrt else graph.inputs[0]
    users = [node for node in graph if source in used_values(node)]
    lengths = [f"{SHIFT}_{axis}" for axis in range(len(source.shape or ()))]
    shift = ir.Value(name=SHIFT, shape=ir.Shape(lengths), type=source.type)
    moved = Builder(graph, before=users[0] if users else None).op("Add", [source, shift], wish=f"{source.name}_shifted")
    for node in users:
        for index, value in enumerate(node.inputs):
            if value is source:
                node.replace_input_with(index, moved)
    here = Builder(graph).op("Identity", [source], wish=f"{source.name}_unshifted")
    for value in (moved, here):
        value.shape, value.type = source.shape, source.type
    graph.inputs.append(shift)
    graph.outputs[:] = [moved if target is source else target, here]
    return without_unused(copy)


def find_value(graph: ir.Graph, name: str) -> ir.Value:
    """The tensor of exactly this name; InputError if there is none."""
    for value in [*graph.inputs, *(value for node in graph for value in node.outputs)]:
        if value.name == name:
            return value
    raise InputError(f"The model has no tensor {name!r}.", "List the layers with: craft-onnx layers.")

"""One output of a model that has several."""

import onnx_ir as ir

from craft_onnx.graph.names import find_tensor
from craft_onnx.graph.values import note_shapes, without_unused


def with_output(model: ir.Model, name: str) -> ir.Model:
    """A copy with one output, without what only the others need: nodes, weights and inputs.

    Parameters
    ----------
    model : onnx_ir.Model
        With any number of outputs.
    name : str
        Of the output, or of a layer or tensor inside.

    Raises
    ------
    InputError
        If there is no such tensor; with near matches.
    """
    copy = model.clone()
    graph, output = copy.graph, find_tensor(copy, name)
    if output.type is None:  # of a tensor inside a file need not say it, an output does
        note_shapes(copy)
    graph.outputs[:] = [output]
    without_unused(copy)
    graph.inputs[:] = [value for value in graph.inputs if value.uses() or value.is_graph_output()]
    return copy

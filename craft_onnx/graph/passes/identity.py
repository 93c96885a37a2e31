"""Nodes that do nothing when a model is used: Identity, and Dropout."""

import onnx_ir as ir

from craft_onnx.graph.names import LAYERS_KEY, add_layers
from craft_onnx.graph.passes.keeping import pure, take_over
from craft_onnx.graph.values import constant, has_input


def remove_identity(model: ir.Model) -> ir.Model:
    """Remove Identity and Dropout.

    Requires: constants are initializers. Ensures: an Identity is left only between an input or an initializer and an
    output, or two outputs. The node before a removed one answers to its layers.
    """
    return _remove(_credited(model))


@pure
def _remove(model: ir.Model) -> ir.Model:
    for node in list(model.graph):
        if _does_nothing(node):
            _bypass(node)
    return model


def _credited(model: ir.Model) -> ir.Model:
    """A copy where the node before an idle one has its layers, and the idle one none."""
    copy = model.clone()
    for node in copy.graph:
        producer = node.inputs[0].producer() if _does_nothing(node) and node.inputs[0] is not None else None
        if producer is not None:
            add_layers(producer, node)
            node.metadata_props.pop(LAYERS_KEY, None)
    return copy


def _does_nothing(node: ir.Node) -> bool:
    if node.op_type == "Identity":
        return True
    if node.op_type != "Dropout" or any(value.uses() or value.is_graph_output() for value in node.outputs[1:]):
        return False
    training = constant(node.inputs[2]) if has_input(node, 2) else False
    return training is not None and not training


def _bypass(node: ir.Node) -> None:
    source, output = node.inputs[0], node.outputs[0]
    assert source is not None and isinstance(node.graph, ir.Graph)
    if not output.is_graph_output():
        output.replace_all_uses_with(source)
        node.graph.remove(node, safe=True)
    elif source.producer() is not None and not source.is_graph_output():
        take_over(node, source)

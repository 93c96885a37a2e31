"""Logits as the output: the Softmax behind them cut off, and no axes but the classes."""

import onnx_ir as ir

from craft_onnx.graph.load import logits_output
from craft_onnx.graph.passes.keeping import pure, take_over
from craft_onnx.graph.values import Builder, attribute, dimensions

# Operators that only reorder or name what a Softmax gives. Files older than opset 13 come with a Reshape before and one
# behind it, since Softmax worked on matrices then.
_SHAPING = {"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze"}


def remove_softmax(model: ir.Model) -> tuple[ir.Model, bool]:
    """Cut off a final Softmax, so that the output is logits.

    Only one that the output is made from by nothing but reshaping: those inside, of attention, stay.

    Parameters
    ----------
    model : onnx_ir.Model
        Is not changed.

    Returns
    -------
    onnx_ir.Model
        The output keeps its name.
    bool
        Whether there was one.

    Raises
    ------
    InputError
        If the model does not have exactly one output.
    """
    if _final_softmax(model) is None:
        return model, False
    return _without_softmax(model), True


def flatten_logits(model: ir.Model) -> ir.Model:
    """Make an output (N, classes, 1, 1), of a fully convolutional head, (N, classes); any other stays as it is."""
    sizes = dimensions(logits_output(model))
    if sizes is None or len(sizes) < 3 or any(size != 1 for size in sizes[2:]):
        return model
    return _flattened(model)


def _final_softmax(model: ir.Model) -> ir.Node | None:
    node = logits_output(model).producer()
    while node is not None and node.op_type in _SHAPING:
        source = node.inputs[0]
        if source is None or len(source.uses()) != 1:
            return None
        node = source.producer()
    return node if node is not None and node.op_type == "Softmax" and _is_over_classes(node) else None


def _is_over_classes(softmax: ir.Node) -> bool:
    """True for the axis behind the batch, and for the last one of pixels (N, H, W, classes), which are 1 x 1."""
    value = softmax.inputs[0]
    sizes = None if value is None else dimensions(value)
    axis = attribute(softmax, "axis", -1)
    if sizes is None:
        return axis in (-1, 1)
    return all(size == 1 for other, size in enumerate(sizes[1:], start=1) if other != axis % len(sizes))


@pure
def _without_softmax(model: ir.Model) -> ir.Model:
    softmax = _final_softmax(model)
    assert softmax is not None and softmax.inputs[0] is not None
    logits, output = softmax.inputs[0], softmax.outputs[0]
    if not output.is_graph_output():
        output.replace_all_uses_with(logits)
    elif logits.producer() is not None and len(logits.uses()) == 1:
        take_over(softmax, logits)
    else:  # a tensor that others read keeps its name
        _put(model.graph, "Identity", logits, {})
    return model


@pure
def _flattened(model: ir.Model) -> ir.Model:
    output = logits_output(model)
    _put(model.graph, "Flatten", output, {"axis": 1}).shape = ir.Shape((dimensions(output) or ())[:2])
    return model


def _put(graph: ir.Graph, op_type: str, source: ir.Value, attributes: dict[str, int]) -> ir.Value:
    """A last node, which gives the graph's output, under the old name."""
    old = graph.outputs[0]
    name, kind = str(old.name), old.type
    old.name = Builder(graph).name(f"{name}_unshaped")
    output = Builder(graph).op(op_type, [source], attributes, name, like=source.producer())
    output.type, output.shape = kind, old.shape
    graph.outputs[0] = output
    return output

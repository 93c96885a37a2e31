"""Split a model at a cut into g (image to activations) and h (activations to logits)."""

import onnx_ir as ir

from craft_onnx.errors import InputError
from craft_onnx.graph.dependence import follows_batch, rebase_shape
from craft_onnx.graph.load import image_input
from craft_onnx.graph.positions import pick_early
from craft_onnx.graph.values import dimensions, used_values, with_shapes, without_unused


def split(model: ir.Model, tensor: str) -> tuple[ir.Model, ir.Model]:
    """Split a model at a tensor into g and h, so that h(g(x)) = f(x).

    Both halves keep the names and the layers' metadata of their nodes; each holds the initializers that it uses. Where
    h needs the batch size, it takes it from its own input. What h reads of a class token alone, it computes for that
    alone; what `segment` gives has all tokens.

    Parameters
    ----------
    model : onnx_ir.Model
        From image to logits; is not changed.
    tensor : str
        Name of a cut: a tensor that every path from image to logits goes through.

    Returns
    -------
    g, h : onnx_ir.Model
        From the image to `tensor`, from `tensor` to the logits.

    Raises
    ------
    InputError
        If there is no such tensor, or it does not separate the graph.
    """
    shaped = with_shapes(model)
    g, h = _first_half(shaped.clone(), tensor), _second_half(shaped, tensor)
    pick_early(h)
    return g, without_unused(h)


def segment(model: ir.Model, earlier: str, later: str) -> ir.Model:
    """The part of a model between two cuts, so that segment(g'(x)) = g(x) for g' up to the earlier, g to the later one.

    Parameters
    ----------
    model : onnx_ir.Model
        From image to logits; is not changed.
    earlier, later : str
        Names of the cuts' tensors.

    Raises
    ------
    InputError
        If there is no such tensor, or the one does not come behind the other.
    """
    h = _second_half(with_shapes(model), earlier)
    if all(value.name != later for node in h.graph for value in node.outputs):
        raise InputError(f"{later!r} does not come behind {earlier!r} in the model.", "Take an earlier cut.")
    return _first_half(h, later)


def _first_half(model: ir.Model, tensor: str) -> ir.Model:
    model.graph.outputs[:] = [_find(model, tensor)]
    return _named(without_unused(model), "g")


def _second_half(model: ir.Model, tensor: str) -> ir.Model:
    image, cut = image_input(model), _find(model, tensor)
    entry = ir.Value(name=tensor, shape=cut.shape, type=cut.type)
    cut.name = None
    cut.replace_all_uses_with(entry)
    without_unused(model)
    for node in _shapes_before(model.graph, entry):
        if follows_batch(node, image) and dimensions(entry):
            rebase_shape(node, entry)
    model.graph.inputs[:] = [entry, *(value for value in model.graph.inputs if value is not image)]
    without_unused(model)
    if any(image in used_values(node) for node in model.graph):
        raise InputError(
            f"{tensor!r} does not separate the graph: the image reaches the logits around it.",
            "Take one of the cuts that `craft-onnx layers` lists.",
        )
    return _named(model, "h")


def _find(model: ir.Model, tensor: str) -> ir.Value:
    for node in model.graph:
        for value in node.outputs:
            if value.name == tensor and not value.is_graph_output():
                return value
    raise InputError(
        f"There is no tensor {tensor!r} inside the model.", "Take one of the cuts that `craft-onnx layers` lists."
    )


def _shapes_before(graph: ir.Graph, entry: ir.Value) -> list[ir.Node]:
    """Shape nodes that read something that does not come from `entry`."""
    after = {entry}
    for node in graph:
        if any(value in after for value in used_values(node)):
            after.update(node.outputs)
    return [node for node in graph if node.op_type == "Shape" and node.inputs[0] not in after]


def _named(model: ir.Model, name: str) -> ir.Model:
    model.graph.name = name
    return model

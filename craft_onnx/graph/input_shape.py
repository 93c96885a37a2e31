"""Pictures of one size: a model whose input leaves its size open, with the size fixed."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from craft_onnx.graph.load import image_input
from craft_onnx.graph.values import Builder, constant, dimensions, integers, note_shapes, without_unused


def with_input_shape(model: ir.Model, shape: Sequence[int]) -> ir.Model:
    """A copy whose input has a size, with the shapes that follow and what is calculated from them.

    Sizes that the model fixes itself stay; so does the batch.

    Parameters
    ----------
    model : onnx_ir.Model
        Is not changed.
    shape : sequence of int
        Of one picture, without the batch.
    """
    copy = model.clone()
    image = image_input(copy)
    sizes = dimensions(image)
    if sizes is None or len(sizes) != len(shape) + 1:
        return copy
    image.shape = ir.Shape(
        [sizes[0], *(have if isinstance(have, int) else size for have, size in zip(sizes[1:], shape, strict=True))]
    )
    for node in copy.graph:
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = None
    note_shapes(copy)
    _write_sizes(copy)
    return without_unused(copy)


def _write_sizes(model: ir.Model) -> None:
    """Sizes that are read from a shape become constants where they are known."""
    build = Builder(model.graph)
    for node in model.graph:
        sizes = _sizes_read(node)
        if sizes is not None:
            node.outputs[0].replace_all_uses_with(build.constant(f"{node.outputs[0].name}/size", sizes))


def _sizes_read(node: ir.Node) -> np.ndarray | None:
    """What a Gather or a Slice takes from a Shape, None where it is something else or not known."""
    source = node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None
    if source is None or source.op_type != "Shape" or node.op_type not in ("Gather", "Slice"):
        return None
    shape = dimensions(source.inputs[0]) if source.inputs[0] is not None else None
    places = None if shape is None else _places(node, source, len(shape))
    if shape is None or places is None or not all(isinstance(shape[i], int) for i in np.ravel(places)):
        return None
    return np.asarray(np.array(shape, object)[places], np.int64)


def _places(node: ir.Node, source: ir.Node, rank: int) -> np.ndarray | None:
    """Axes of which a node reads the sizes."""
    start, end = (source.attributes.get_int(name, default) for name, default in (("start", 0), ("end", rank)))
    axes = np.arange(rank)[start:end]
    if node.op_type == "Gather":
        chosen = constant(node.inputs[1])
        return None if chosen is None else axes[chosen]
    first, last, step = (integers(node, name, i) for name, i in (("starts", 1), ("ends", 2), ("steps", 4)))
    return None if first is None or last is None else axes[first[0] : last[0] : (step or (1,))[0]]

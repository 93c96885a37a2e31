"""A model that takes any number of pictures, from one that was exported for a fixed number."""

import re

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from craft_onnx.errors import InputError
from craft_onnx.graph.inference import inferred_types
from craft_onnx.graph.load import image_input, logits_output
from craft_onnx.graph.passes.fold import fold_constants
from craft_onnx.graph.passes.keeping import pure
from craft_onnx.graph.passes.shapes import infer_shapes
from craft_onnx.graph.passes.unfix import (
    BATCH,
    EXPORT_DYNAMIC,
    Fixed,
    Sizes,
    batch_axis,
    one_batch_only,
    settle_reshapes,
    unfix,
)
from craft_onnx.graph.values import constant, dimensions

# A batch size that no other axis is likely to be as long as.
TRIAL = 61


def dynamic_batch(model: ir.Model) -> ir.Model:
    """Make the batch a free dimension, called "batch".

    Requires: constants folded, shapes inferred. Ensures: the first dimension of the input is "batch", and so is the
    dimension of every tensor that follows it.

    Raises
    ------
    InputError
        If an operator fixes the batch; with the reason.
    """
    sizes = dimensions(image_input(model))
    if not sizes:
        raise InputError("The shape of the model's input is not known.", EXPORT_DYNAMIC)
    if isinstance(sizes[0], int):
        return _freed(model)
    renamed = _renamed(model)
    inside = (dimensions(logits_output(renamed)) or (None,))[0]
    if isinstance(inside, int):  # some exporters call the batch free, and write the one they traced into the graph
        return _freed(_with_input(model, inside))
    return (_settled(model) if _is_open(renamed) else None) or _checked(renamed)


def _is_open(model: ir.Model) -> bool:
    """Whether the batch alone is free in the input, and inference still does not know what follows from it."""
    fixed = all(isinstance(size, int) for size in (dimensions(image_input(model)) or ())[1:])
    return fixed and any(_is_unknown(size) for value in _computed(model) for size in dimensions(value) or ())


def _is_unknown(size: int | str | None) -> bool:
    return not isinstance(size, int) and BATCH not in str(size)


def _settled(model: ir.Model) -> ir.Model | None:
    """The model with its shape arithmetic done for one batch size, and that freed again; None where it cannot be."""
    try:
        settled = _freed(infer_shapes(fold_constants(_with_input(model, TRIAL))))
    except InputError:
        return None
    known = model.graph.initializers
    made = (constant(value) for name, value in settled.graph.initializers.items() if name not in known)
    return None if any(array is not None and _holds_trial(array) for array in made) else settled


def _holds_trial(array: np.ndarray) -> bool:
    """Whether a constant was made for the trial's batch size and is there still."""
    integer = array.dtype.kind in "iu"
    return TRIAL in array.shape or (integer and bool(((array != 0) & (array % TRIAL == 0)).any()))


@pure
def _renamed(model: ir.Model) -> ir.Model:
    """Call a dimension that is free already by its new name, and infer the shapes that follow from it anew."""
    old = (dimensions(image_input(model)) or (None,))[0]
    told = {value.name: _with_batch(dimensions(value), old) for value in _computed(model)}
    renamed = _with_input(model, BATCH)
    for value in _computed(renamed):
        value.shape = _merged(dimensions(value), told[value.name])
    settle_reshapes(renamed)
    return renamed


def _with_input(model: ir.Model, batch: int | str) -> ir.Model:
    """A copy with another first dimension of its input, and the shapes that follow from it."""
    copy = model.clone()
    _set_batch(image_input(copy), batch)
    for value in _computed(copy):
        value.shape = None
    ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(copy)
    return copy


def _computed(model: ir.Model) -> list[ir.Value]:
    return [value for node in model.graph for value in node.outputs]


def _with_batch(sizes: Sizes | None, old: int | str | None) -> Sizes | None:
    """The exporter's shape in the new name, also where that is a part of an expression."""
    if sizes is None or not isinstance(old, str):
        return sizes
    pattern = rf"\b{re.escape(old)}\b"
    return tuple(re.sub(pattern, BATCH, size) if isinstance(size, str) else size for size in sizes)


def _merged(inferred: Sizes | None, told: Sizes | None) -> ir.Shape | None:
    """The inferred shape, and what the exporter told where inference does not know."""
    if inferred is None or told is None or len(inferred) != len(told):
        sizes = told if inferred is None else inferred
        return None if sizes is None else ir.Shape(sizes)
    return ir.Shape([a if isinstance(a, int) or BATCH in str(a) else b for a, b in zip(inferred, told, strict=True)])


@pure
def _freed(model: ir.Model) -> ir.Model:
    """Walk the graph from the input, infer every shape with a free batch, and rewrite the constants that fix it."""
    image = image_input(model)
    values = [image, *(value for node in model.graph for value in node.outputs)]
    old = {value.name: dimensions(value) for value in values}
    fixed = Fixed(int((old[image.name] or (1,))[0] or 1), old)
    _set_batch(image, BATCH)
    reached: set[ir.Value | None] = {image}
    for node in list(model.graph):
        if not reached.isdisjoint(node.inputs):
            reached.update(node.outputs)
            _free(node, fixed, model)
    return _checked(model)


def _free(node: ir.Node, fixed: Fixed, model: ir.Model) -> None:
    follows = any(batch_axis(value) is not None for value in node.inputs)
    if follows:
        unfix(node, fixed)
    _infer(node, model)
    if follows:
        _refuse_lost_batch(node)


def _set_batch(image: ir.Value, batch: int | str) -> None:
    assert image.shape is not None
    image.shape = ir.Shape([batch, *image.shape[1:]])


def _infer(node: ir.Node, model: ir.Model) -> None:
    """Types and shapes of a node's outputs; what `unfix` has set already stays."""
    found = _inferred(node, model)
    for value in node.outputs:
        proto = found.get(value.name or "")
        if batch_axis(value) is None:  # else `unfix` has set it
            value.shape = None if proto is None else ir.serde.deserialize_type_proto_for_shape(proto)


def _inferred(node: ir.Node, model: ir.Model) -> dict[str, onnx.TypeProto]:
    try:
        return inferred_types(node, model.opset_imports[""], model.ir_version)
    except Exception as error:  # inference errors come in several kinds, all of them about this node
        raise one_batch_only(node, f"has no shape for another ({str(error).strip().splitlines()[0]})") from error


def _refuse_lost_batch(node: ir.Node) -> None:
    if node.op_type in {"Shape", "Size"}:
        return
    known = [value for value in node.outputs if value.shape is not None]
    if known and all(_is_fixed(value) for value in known):
        raise one_batch_only(node, "mixes the pictures of a batch or fixes their number")


def _is_fixed(value: ir.Value) -> bool:
    return all(isinstance(size, int) for size in dimensions(value) or ())


def _checked(model: ir.Model) -> ir.Model:
    for output in model.graph.outputs:
        sizes = dimensions(output)
        if sizes and (isinstance(sizes[0], int) or (sizes[0] != BATCH and BATCH in str(sizes[0]))):
            raise InputError(
                f"The model's output {output.name!r} of {sizes} has no row for every picture.", EXPORT_DYNAMIC
            )
        if sizes and sizes[0] != BATCH:
            output.shape = ir.Shape([BATCH, *sizes[1:]])
    return model

"""Fold a concept bank into the second half of a model: a small graph from concept coefficients to logits."""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from craft_onnx.errors import InputError
from craft_onnx.graph.affine import is_affine
from craft_onnx.graph.class_column import keep_class
from craft_onnx.graph.load import image_input, logits_output
from craft_onnx.graph.merging import merge_bank
from craft_onnx.graph.pooling import pooled_prefix, to_one_position
from craft_onnx.graph.values import Builder, dimensions, take_name, with_shapes, without_unused

COEFFICIENTS, LOGITS = "u", "y"


@dataclass(frozen=True)
class FoldedHead:
    """y(u) = h(u W) as a graph.

    Attributes
    ----------
    model : onnx_ir.Model
        From concept coefficients `u` to `y`: (n,) for one class, (n, classes) for all.
    pooled : bool
        `u` is the mean of the coefficients over positions, (n, k). Otherwise it has every position, channels last:
        (n, H', W', k), (n, T, k), or (n, k) where the activations have no positions.
    linear : bool
        y is provably an affine function of u: exact effects are its values on the identity.
    """

    model: ir.Model
    pooled: bool
    linear: bool


def fold_concepts(h: ir.Model, concept_bank: np.ndarray, class_id: int | None, channel_axis: int) -> FoldedHead:
    """Fold a concept bank W into h: the graph of y(u) = h(u W).

    W acts on channels and the mean over positions acts on positions, so they commute: where h begins with such a mean,
    the graph takes the mean of u. W is multiplied into the linear layer that comes next, if one does, and only the
    column of the class is kept of the last one.

    Parameters
    ----------
    h : onnx_ir.Model
        From activations (N, ...) to logits (N, classes); is not changed.
    concept_bank : ndarray of shape (k, p)
        W, one row a concept, one column a channel.
    class_id : int, optional
        Column of the logits; None keeps all.
    channel_axis : int
        Axis of the channels in the activations.

    Raises
    ------
    InputError
        If the bank is no finite matrix with a column for every channel, or there is no such class.
    """
    model = with_shapes(h)
    entry, logits = image_input(model), logits_output(model)
    sizes = dimensions(entry)
    if sizes is None or not 0 < channel_axis < len(sizes):
        raise InputError(
            f"Axis {channel_axis} of activations of shape {sizes} cannot hold the channels.", "Split the model again."
        )
    bank = _checked_bank(concept_bank, sizes[channel_axis], entry)
    classes = _classes(logits, class_id)
    if class_id is not None and classes is not None:
        keep_class(model.graph, class_id, classes)
        without_unused(model)
    pooled = _prepend_bank(model.graph, entry, bank, channel_axis)
    return _finished(model, pooled)


def _finished(model: ir.Model, pooled: bool) -> FoldedHead:
    model = with_shapes(without_unused(model))
    merge_bank(model.graph)
    model = with_shapes(without_unused(model))
    model.graph.name = "h_concepts"
    take_name(model.graph, LOGITS)
    model.graph.outputs[0].name = LOGITS
    return FoldedHead(model, pooled, is_affine(model.graph, model.graph.inputs[0]))


def _checked_bank(concept_bank: np.ndarray, channels: int | str | None, entry: ir.Value) -> np.ndarray:
    dtype = (entry.dtype or ir.DataType.FLOAT).numpy()
    bank = np.asarray(concept_bank, dtype)
    if bank.ndim != 2 or 0 in bank.shape or not np.isfinite(bank).all():
        raise InputError(f"The concept bank of shape {bank.shape} is no matrix of finite numbers.", "Fit again.")
    if isinstance(channels, int) and bank.shape[1] != channels:
        raise InputError(
            f"The concept bank has {bank.shape[1]} columns, the activations have {channels} channels.",
            "Take the bank that was fitted at this cut.",
        )
    return bank


def _classes(logits: ir.Value, class_id: int | None) -> int | None:
    sizes = dimensions(logits)
    if sizes is None or len(sizes) != 2:
        raise InputError(f"The logits have the shape {sizes}, not (N, classes).", "Cut the model where it classifies.")
    classes = sizes[1]
    known = classes if isinstance(classes, int) else None
    if class_id is not None and (class_id < 0 or (known is not None and class_id >= known)):
        raise InputError(f"There is no class {class_id}.", f"Classes go from 0 to {(known or 0) - 1}.")
    return known


def _prepend_bank(graph: ir.Graph, entry: ir.Value, bank: np.ndarray, channel_axis: int) -> bool:
    """Put u and its product with the bank before the graph; True where u is pooled."""
    sizes = dimensions(entry) or ()
    prefix = pooled_prefix(graph, entry, channel_axis)
    if prefix is not None:
        to_one_position(prefix, entry)
    positions = [] if prefix is not None else [size for axis, size in enumerate(sizes) if axis not in (0, channel_axis)]
    take_name(graph, COEFFICIENTS)
    u = ir.Value(name=COEFFICIENTS, shape=ir.Shape([sizes[0], *positions, len(bank)]), type=entry.type)
    build = Builder(graph, before=graph[0])
    activations = build.op("MatMul", [u, build.constant("concept_bank", bank)], wish="activations")
    if prefix is not None:
        shape = [0, *(bank.shape[1] if axis == channel_axis else 1 for axis in range(1, len(sizes)))]
        activations = build.op("Reshape", [activations, build.constant("shape", np.array(shape, np.int64))])
    elif channel_axis != len(sizes) - 1:
        order = list(range(len(sizes) - 1))
        order.insert(channel_axis, len(sizes) - 1)
        activations = build.op("Transpose", [activations], {"perm": order})
    entry.replace_all_uses_with(activations)
    graph.inputs[:] = [u]
    return prefix is not None

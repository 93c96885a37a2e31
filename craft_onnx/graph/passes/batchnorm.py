"""Scales and shifts of channels, merged into the linear operator before them."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from craft_onnx.graph.passes.keeping import is_internal, pure, take_over
from craft_onnx.graph.values import Builder, attribute, constant, has_input


class _Affine(NamedTuple):
    """y = scale * x + shift, both (channels,), in float64."""

    scale: np.ndarray
    shift: np.ndarray


@pure
def merge_batchnorm(model: ir.Model) -> ir.Model:
    """Merge BatchNormalization, and Mul, Div, Add and Sub of a constant per channel, into a Conv or Gemm before it.

    Requires: constants folded, dense layers as Gemm. Ensures: none is left behind a Conv, ConvTranspose or Gemm of
    constant weights whose output nothing else uses. One behind anything else stays (DenseNet's, before its ReLU).

    With y = s * (W x + b) + t: W' = s W, b' = s b + t. The arithmetic is done in float64 and rounded once.
    """
    for node in list(model.graph):
        linear = _linear_before(node)
        affine = None if linear is None else _affine(node, linear)
        if linear is not None and affine is not None:
            _merge(linear, affine)
            take_over(node, linear.outputs[0])
    return model


def _linear_before(node: ir.Node) -> ir.Node | None:
    """The Conv, ConvTranspose or Gemm whose output `node` alone uses."""
    for value in node.inputs[: 1 if node.op_type == "BatchNormalization" else 2]:
        producer = None if value is None else value.producer()
        if producer is not None and producer.op_type in _CHANNELS and is_internal(value := producer.outputs[0]):
            return producer if _is_constant_linear(producer) else None
    return None


def _is_constant_linear(node: ir.Node) -> bool:
    if constant(node.inputs[1]) is None or (has_input(node, 2) and constant(node.inputs[2]) is None):
        return False
    # A Gemm's third input may be a matrix: no bias of channels then.
    return node.op_type != "Gemm" or not has_input(node, 2) or _is_per_channel(constant(node.inputs[2]), node)


def _is_per_channel(array: np.ndarray | None, linear: ir.Node) -> bool:
    """True for an array that broadcasts against the linear operator's output along its channels alone."""
    rank = _output_rank(linear)
    if array is None or array.ndim > rank:
        return False
    shape = (1,) * (rank - array.ndim) + array.shape
    return all(size == 1 or (axis == 1 and size == _channels(linear)) for axis, size in enumerate(shape))


def _affine(node: ir.Node, linear: ir.Node) -> _Affine | None:
    """What `node` does to the channels of `linear`, None where that is no constant scale and shift."""
    if node.op_type == "BatchNormalization":
        return _batchnorm(node, _channels(linear))
    if node.op_type not in _ARITHMETIC:
        return None
    after = node.inputs[0] is linear.outputs[0]
    array = constant(node.inputs[1 if after else 0])
    if array is None or not _is_per_channel(array, linear):
        return None
    vector = np.broadcast_to(array.ravel().astype(np.float64), _channels(linear))
    return _ARITHMETIC[node.op_type](vector, after)


def _batchnorm(node: ir.Node, channels: int) -> _Affine | None:
    parameters = [constant(value) for value in node.inputs[1:5]]
    if attribute(node, "training_mode", 0) or any(array is None for array in parameters):
        return None
    gamma, beta, mean, variance = (np.broadcast_to(np.asarray(array, np.float64), channels) for array in parameters)
    scale = gamma / np.sqrt(variance + attribute(node, "epsilon", 1e-5))
    return _Affine(scale, beta - scale * mean)


def _subtract(c: np.ndarray, after: bool) -> _Affine:
    return _Affine(np.ones_like(c), -c) if after else _Affine(-np.ones_like(c), c)


# What an operator with the constant c behind x (`after`) or before it does to x.
_ARITHMETIC: dict[str, Callable[[np.ndarray, bool], _Affine | None]] = {
    "Mul": lambda c, after: _Affine(c, np.zeros_like(c)),
    "Div": lambda c, after: _Affine(1 / c, np.zeros_like(c)) if after and np.all(c) else None,
    "Add": lambda c, after: _Affine(np.ones_like(c), c),
    "Sub": _subtract,
}


def _merge(linear: ir.Node, affine: _Affine) -> None:
    weight = _array(linear, 1)
    bias = _array(linear, 2).ravel().astype(np.float64) if has_input(linear, 2) else np.zeros(1)
    bias = bias * attribute(linear, "beta", 1.0)
    linear.attributes.pop("beta", None)
    scaled = _SCALED[linear.op_type](weight.astype(np.float64), affine.scale, linear)
    shifted = affine.scale * bias + affine.shift
    _set(linear, 1, scaled.astype(weight.dtype), f"{linear.inputs[1].name}")  # type: ignore[union-attr] # it is constant
    _set(linear, 2, shifted.astype(weight.dtype), f"{linear.inputs[1].name}_bias")  # type: ignore[union-attr] # the same


def _array(node: ir.Node, position: int) -> np.ndarray:
    array = constant(node.inputs[position])
    assert array is not None
    return array


def _set(node: ir.Node, position: int, array: np.ndarray, wish: str) -> None:
    """Give a node a new constant input: under the name of the old one where nothing else uses that."""
    old = node.inputs[position] if has_input(node, position) else None
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    if old is not None:
        wish = str(old.name)
        node.replace_input_with(position, None)
        if not old.uses():
            del graph.initializers[wish]
    if position >= len(node.inputs):
        node.resize_inputs(position + 1)
    node.replace_input_with(position, Builder(graph).constant(wish, array))


def _output_rank(linear: ir.Node) -> int:
    return _array(linear, 1).ndim


def _channels(linear: ir.Node) -> int:
    return _CHANNELS[linear.op_type](_array(linear, 1).shape, linear)


# Number of output channels, from the shape of the weights.
_CHANNELS: dict[str, Callable[[tuple[int, ...], ir.Node], int]] = {
    "Conv": lambda shape, node: shape[0],
    "ConvTranspose": lambda shape, node: shape[1] * attribute(node, "group", 1),
    "Gemm": lambda shape, node: shape[0 if attribute(node, "transB", 0) else 1],
}


def _scaled_conv(weight: np.ndarray, scale: np.ndarray, node: ir.Node) -> np.ndarray:
    return weight * scale.reshape(-1, *[1] * (weight.ndim - 1))


def _scaled_transpose(weight: np.ndarray, scale: np.ndarray, node: ir.Node) -> np.ndarray:
    """Weights (inputs, outputs / groups, ...): the inputs are grouped, so are the scales."""
    groups = attribute(node, "group", 1)
    grouped = weight.reshape(groups, -1, *weight.shape[1:])
    return (grouped * scale.reshape(groups, 1, -1, *[1] * (weight.ndim - 2))).reshape(weight.shape)


def _scaled_gemm(weight: np.ndarray, scale: np.ndarray, node: ir.Node) -> np.ndarray:
    return weight * (scale[:, None] if attribute(node, "transB", 0) else scale)


_SCALED: dict[str, Callable[[np.ndarray, np.ndarray, ir.Node], np.ndarray]] = {
    "Conv": _scaled_conv,
    "ConvTranspose": _scaled_transpose,
    "Gemm": _scaled_gemm,
}

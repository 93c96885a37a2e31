"""Gradients of quantized networks: rounding lets the cotangent through, saturation does not."""

from __future__ import annotations

from typing import NoReturn

import ml_dtypes
import numpy as np
import onnx_ir as ir

from craft_onnx.errors import UnsupportedOperator
from craft_onnx.graph.names import layer_of
from craft_onnx.graph.reverse.broadcast import in_float32
from craft_onnx.graph.reverse.rules import Rule, Step
from craft_onnx.graph.reverse.tensor import Tensor, op


def _quantize(step: Step, dq: Tensor) -> list[Tensor | None]:
    """q = round(x / s) + z, within the range of its type: dx = dq, but zero where that range is left.

    The cotangent of q is in units of the number that it stands for, s (q - z). The range matters: quantizing tools
    leave out a Relu or Clip in front where it does the same.
    """
    low, high = _range(step)
    inside = op.And(step.x >= low, step.x <= high)
    return [op.Where(inside, op.Cast(dq, to=step.x.dtype), 0.0), *[None] * (len(step.inputs) - 1)]


def _dequantize(step: Step, dy: Tensor) -> list[Tensor | None]:
    """y is the number that q stands for, whose cotangent that of q is."""
    return [dy, *[None] * (len(step.inputs) - 1)]


def _range(step: Step) -> tuple[Tensor, Tensor]:
    """The numbers that are rounded to the smallest and to the largest q lie half a step beyond these two."""
    low, high = _limits(step.y.dtype)
    scale = _along(step, step.input(1))
    zero = op.Cast(_along(step, step.input(2)), to=scale.dtype) if step.has_input(2) else None

    def edge(number: float) -> Tensor:
        return in_float32(lambda s, *z: s * (number - z[0] if z else number), scale, *([zero] if zero else []))

    return edge(low - 0.5), edge(high + 0.5)


def _limits(kind: ir.DataType) -> tuple[float, float]:
    """The smallest and the largest number of a type."""
    info = (ml_dtypes.finfo if kind.is_floating_point() else ml_dtypes.iinfo)(kind.numpy())
    return float(info.min), float(info.max)


def _along(step: Step, t: Tensor) -> Tensor:
    """A scale or zero point as it multiplies x: one number, one for each index of an axis, or one for each block."""
    axis = step.axis(default=1)
    if block := step.attribute("block_size", 0):
        length = op.Squeeze(op.Shape(step.x, start=axis, end=axis + 1))
        return op.Gather(t, op.Range(np.array(0), length, np.array(1)) / block, axis=axis)
    return t if t.rank == 0 else op.Unsqueeze(t, list(range(1, step.x.rank - axis)))


def _integer_only(step: Step, *_cotangents: Tensor) -> NoReturn:
    node, layer = step.node, layer_of(step.y.value)
    raise UnsupportedOperator(
        f"ai.onnx::{node.op_type} (node {node.name!r}, layer {layer!r}) calculates with integers alone.",
        "Quantize the model in the QDQ format (QuantizeLinear and DequantizeLinear around operators of real numbers), "
        "take the model before it was quantized, or cut the model behind that layer.",
    )


INTEGER_ONLY = ("DynamicQuantizeLinear", "ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul")
RULES: dict[str, Rule] = {
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
    **dict.fromkeys(INTEGER_ONLY, _integer_only),
}

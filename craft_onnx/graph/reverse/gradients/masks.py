"""Which side of a bound numbers are on, as factors 1 and 0.

A comparison, its Cast or a Where would say the same. But onnxruntime keeps the activations of convolutions in a blocked
layout on the CPU, in which it has Mul and HardSigmoid and none of those, and its Where runs at a tenth of their speed.
"""

import math

import numpy as np
import onnx_ir as ir

from craft_onnx.graph.reverse.tensor import Tensor, op


def above(x: Tensor, bound: float | Tensor) -> Tensor:
    """1 where x > bound, 0 elsewhere, in the type of x."""
    number = _number(bound, x)
    return op.Cast(x > bound, to=x.dtype) if number is None else _step(x, number, 1)


def below(x: Tensor, bound: float | Tensor) -> Tensor:
    """1 where x < bound, 0 elsewhere, in the type of x."""
    number = _number(bound, x)
    return op.Cast(x < bound, to=x.dtype) if number is None else _step(x, number, -1)


def _number(bound: float | Tensor, x: Tensor) -> float | None:
    """A bound that `_step` can do: a finite constant, and no half precision, which has no number steep enough."""
    array = bound.array if isinstance(bound, Tensor) else np.asarray(bound)
    wide = x.dtype in (ir.DataType.FLOAT, ir.DataType.DOUBLE)
    return array.item() if wide and array is not None and array.size == 1 and np.isfinite(array) else None


def _step(x: Tensor, bound: float, sign: int) -> Tensor:
    """min(1, max(0, steepness (x - bound))), so steep that no float32 lies on the slope but what is below 1e-30.

    The steepness is a power of two: the product with the bound is exact and the difference at the bound is 0.
    """
    _, exponent = math.frexp(bound)
    steepness = math.ldexp(sign, min(100, 100 - exponent))
    return op.HardSigmoid(x, alpha=steepness, beta=-steepness * bound)

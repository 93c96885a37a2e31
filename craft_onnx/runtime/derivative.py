"""Numerical proof of gradient graphs: a central difference in the precision of the graph itself."""

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from craft_onnx.errors import CheckFailed

if TYPE_CHECKING:
    import onnx_ir as ir

Array = NDArray[np.floating]
Function = Callable[[Array], Array]

# Steps, relative to the spread of x, in float32. Long ones cross kinks of ReLUs, short ones drown in rounding; the best
# one lay between 2e-5 and 5e-4 on MobileNetV1, ResNet20, ResNet50 and EfficientNet-Lite0.
STEPS = tuple(3.0**-k for k in range(6, 11))
ROWS = 2  # of x that are needed
DIRECTIONS = 16  # at most: in a net of two saturated outputs each alone may be off by 20 %
HALF = "float16"
COARSER = 27  # times longer in float16: the cube root of how much coarser its rounding is
# Two rows of the same networks gave errors of 2e-4 to 1.6e-2, and 0.086 and more with the rule of Gemm wrong by 10 %.
TOLERANCE = 0.05
TINY = 1e-30


def derivative_error(function: Function, vjp: Callable[[Array, Array], Array], x: Array, seed: int = 0) -> float:
    """How far a vector-Jacobian product is from differences of the function, relative.

    Along a random direction v, with c = J v by a central difference, <J^T c, v> must be <c, c>: a sum of squares, in
    which nothing cancels. The step is the one at which differences change least from the next longer one, whatever the
    product says: it is not chosen to agree. Where kinks leave a doubt, further directions are added to both sides.

    Parameters
    ----------
    function : callable
        From x to y.
    vjp : callable
        From x and a cotangent like y, in float64, to its product with the Jacobian, like x.
    x : ndarray
        Where; float32 or float16.
    seed : int
        Of the directions.

    Returns
    -------
    float
        0 for a right product without rounding; infinite where it is not finite or of another shape.
    """
    rng = np.random.default_rng(seed)
    found = expected = 0.0
    error, step = np.inf, None
    for _ in range(DIRECTIONS):
        direction = rng.standard_normal(x.shape) * _scale(x)
        step = step or _best_step(function, x, direction)
        ahead, behind, change = _difference(function, x, step * direction)
        cotangent = change / max(_rms(change), TINY)
        dx = vjp(x, cotangent)
        if dx.shape != x.shape or not np.isfinite(dx).all():
            return float("inf")
        found += _dot(dx, ahead.astype(np.float64) - behind)
        expected += _dot(cotangent, change)
        error = abs(found - expected) / max(abs(expected), abs(found), TINY)
        if error <= TOLERANCE / 2:
            break
    return error


def is_quantized(model: "ir.Model") -> bool:
    """Whether a model rounds on its way: its gradient goes straight through that, differences see stairs."""
    return any(node.op_type in ("QuantizeLinear", "DynamicQuantizeLinear") for node in model.graph)


def _scale(x: Array) -> float:
    return (float(x.std(dtype=np.float64)) or 1.0) * (COARSER if x.dtype == HALF else 1)


def _best_step(function: Function, x: Array, direction: Array) -> float:
    """The step whose slope differs least from that of the step before."""
    slopes = [_difference(function, x, step * direction)[2] / step for step in STEPS]
    unsteady = [_rms(slope - before) / max(_rms(slope), TINY) for before, slope in itertools.pairwise(slopes)]
    return STEPS[1 + int(np.argmin(unsteady))]


def _difference(function: Function, x: Array, shift: Array) -> tuple[Array, Array, Array]:
    """x + shift and x - shift, rounded to the precision of x, and the difference of the function between them."""
    ahead, behind = (x + shift).astype(x.dtype), (x - shift).astype(x.dtype)
    return ahead, behind, function(ahead).astype(np.float64) - function(behind)


def _rms(array: Array) -> float:
    return float(np.sqrt(np.mean(np.square(array))))


def _dot(one: Array, other: Array) -> float:
    return float(np.sum(one.astype(np.float64) * other))


def require_derivative(what: str, error: float) -> None:
    """Raise CheckFailed, naming `what`, if an error is above TOLERANCE."""
    if not error <= TOLERANCE:
        problem = f"{what} is off by {error:.1e} from a finite difference; rounding and kinks may do {TOLERANCE:.0e}."
        raise CheckFailed(problem, "Please report it, with the model.")

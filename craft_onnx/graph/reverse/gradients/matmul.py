"""Gradients of matrix products."""

from craft_onnx.graph.reverse.rules import Rule, Step
from craft_onnx.graph.reverse.tensor import Tensor, op


def _gemm(step: Step, dy: Tensor) -> list[Tensor | None]:
    """Y = alpha A' B' + beta C: dA' = alpha dY B'^T, dB' = alpha A'^T dY, dC = beta dY."""
    a, b = step.input(0), step.input(1)
    ta, tb = step.attribute("transA", 0), step.attribute("transB", 0)
    alpha = step.attribute("alpha", 1.0)
    da = op.Gemm(b, dy, alpha=alpha, transA=tb, transB=1) if ta else op.Gemm(dy, b, alpha=alpha, transB=1 - tb)
    db = None
    if step.wanted[1]:
        db = op.Gemm(dy, a, alpha=alpha, transA=1, transB=ta) if tb else op.Gemm(a, dy, alpha=alpha, transA=1 - ta)
    return [da, db, dy * step.attribute("beta", 1.0)][: len(step.inputs)]


RULES: dict[str, Rule] = {"Gemm": _gemm}

"""Gradients of matrix products."""

from craft_onnx.graph.reverse.rules import Rule, Step
from craft_onnx.graph.reverse.tensor import Tensor, op


def _gemm(step: Step, dy: Tensor) -> list[Tensor | None]:
    """Y = alpha A' B' + beta C: dA' = alpha dY B'^T, dB' = alpha A'^T dY, dC = beta dY."""
    a, b = step.input(0), step.input(1)
    ta, tb = step.attribute("transA", 0), step.attribute("transB", 0)
    alpha = step.attribute("alpha", 1.0)
    da = db = dc = None
    if step.wanted[0]:
        da = op.Gemm(b, dy, alpha=alpha, transA=tb, transB=1) if ta else op.Gemm(dy, b, alpha=alpha, transB=1 - tb)
    if step.wanted[1]:
        db = op.Gemm(dy, a, alpha=alpha, transA=1, transB=ta) if tb else op.Gemm(a, dy, alpha=alpha, transA=1 - ta)
    if any(step.wanted[2:]):
        beta = step.attribute("beta", 1.0)
        dc = dy if beta == 1 else dy * beta
    return [da, db, dc][: len(step.inputs)]


def _matmul(step: Step, dy: Tensor) -> list[Tensor | None]:
    """Y = A B: dA = dY B^T, dB = A^T dY; a vector is a matrix of one row (A) or one column (B)."""
    a, b = step.input(0), step.input(1)
    if b.rank == 1:
        b, dy = op.Unsqueeze(b, [1]), op.Unsqueeze(dy, [-1])
    if a.rank == 1:
        a, dy = op.Unsqueeze(a, [0]), op.Unsqueeze(dy, [-2])
    da = _vector(op.MatMul(dy, transposed(b)), step.input(0), -2) if step.wanted[0] else None
    db = _vector(_right(a, b, dy), step.input(1), -1) if step.wanted[1] else None
    return [da, db]


def _right(a: Tensor, b: Tensor, dy: Tensor) -> Tensor:
    """A^T dY, as one product over all batch axes where B has none."""
    if b.rank == 2 and a.rank > 2:
        a, dy = op.Flatten(a, axis=a.rank - 1), op.Flatten(dy, axis=dy.rank - 1)
    return op.MatMul(transposed(a), dy)


def _vector(found: Tensor, like: Tensor, axis: int) -> Tensor:
    return op.Squeeze(found, [axis]) if like.rank == 1 else found


def transposed(x: Tensor) -> Tensor:
    """The last two axes exchanged."""
    last = x.rank - 1
    return op.Transpose(x, perm=[*range(last - 1), last, last - 1])


RULES: dict[str, Rule] = {"Gemm": _gemm, "MatMul": _matmul}

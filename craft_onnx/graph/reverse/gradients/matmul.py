"""Gradients of matrix products."""

from craft_onnx.graph.reverse.rules import Rule, Step
from craft_onnx.graph.reverse.tensor import Tensor, op
from craft_onnx.graph.values import attribute


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
    """The last two axes exchanged: of what is so transposed itself, what it was; of a product A B, B^T A^T.

    onnxruntime transposes the operands of a product while it multiplies them.
    """
    before, product = _before_exchange(x), factors(x)
    if before is not None:
        return before
    if product is not None and product[0].rank == product[1].rank == x.rank:
        return op.MatMul(transposed(product[1]), transposed(product[0]))
    return op.Transpose(x, perm=exchange(x.rank))


def factors(x: Tensor) -> tuple[Tensor, Tensor] | None:
    """A and B of what is their product by MatMul."""
    node = x.value.producer()
    if node is None or node.domain or node.op_type != "MatMul":
        return None
    a, b = (x.emitter.tensor(value) for value in node.inputs if value is not None)
    return a, b


def exchanged(a: Tensor, b: Tensor) -> bool:
    """Whether one of two tensors is known to be the other with its last two axes exchanged."""
    pairs = (_before_exchange(a), b), (_before_exchange(b), a)
    return any(before is not None and before.value is other.value for before, other in pairs)


def _before_exchange(x: Tensor) -> Tensor | None:
    """What a Transpose that exchanges the last two axes made `x` of."""
    node = x.value.producer()
    if node is None or node.op_type != "Transpose" or list(attribute(node, "perm", ())) != exchange(x.rank):
        return None
    return None if node.inputs[0] is None else x.emitter.tensor(node.inputs[0])


def exchange(rank: int) -> list[int]:
    """The permutation of axes that exchanges the last two; none for fewer."""
    return [*range(rank - 2), rank - 1, rank - 2] if rank > 1 else []


RULES: dict[str, Rule] = {"Gemm": _gemm, "MatMul": _matmul}

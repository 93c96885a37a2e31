"""From concept coefficients to the logit of a class: y(u) = h(u W)[class]."""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from craft_onnx.errors import CheckFailed, InputError
from craft_onnx.runtime.batches import run_array

if TYPE_CHECKING:
    import onnx_ir as ir

    from craft_onnx.concepts.halves import Halves
    from craft_onnx.description import Layout
    from craft_onnx.graph.head import FoldedHead
    from craft_onnx.runtime.sessions import Session

Floats = NDArray[np.floating]
Array = NDArray[np.float64]
CELLS = 1 << 22  # numbers in a batch of coefficients: 16 MB


class ConceptHead:
    """y(u) of one class, as a function of arrays.

    Parameters
    ----------
    evaluate : callable
        Coefficients (n, ..., k), float32, to logits (n,).
    number_of_concepts : int
        k.
    pooled : bool
        u is (n, k), the mean over positions: h begins with pooling, which commutes with W. Otherwise u has the
        positions.
    linear : bool
        y is provably affine in u.
    batch_size : int, optional
        Rows of one call of `evaluate`; None takes what is 16 MB of coefficients.
    """

    def __init__(
        self,
        evaluate: Callable[[Floats], Floats],
        number_of_concepts: int,
        *,
        pooled: bool,
        linear: bool,
        batch_size: int | None = None,
    ) -> None:
        self.evaluate = evaluate
        self.number_of_concepts = number_of_concepts
        self.pooled = pooled
        self.linear = linear
        self.batch_size = batch_size

    def __call__(self, u: Floats) -> Array:
        """Logits (n,) of coefficients (n, ..., k)."""
        rows = self.rows(u.shape[1:])
        parts = [self.evaluate(u[i : i + rows].astype(np.float32, copy=False)) for i in range(0, len(u), rows)]
        return np.concatenate(parts).astype(np.float64)

    def rows(self, shape: tuple[int, ...]) -> int:
        """How many coefficients of a shape (..., k) one batch takes."""
        return self.batch_size or max(1, CELLS // int(np.prod(shape)))

    def reduced(self, u: Floats) -> Floats:
        """Coefficients as the head takes them: their mean over positions where it is pooled."""
        return u.mean(axis=tuple(range(1, u.ndim - 1))) if self.pooled and u.ndim > 2 else u

    def masked(self, u: Floats, masks: Floats) -> Array:
        """Logits (m,) of one image's coefficients u (..., k), each concept times its mask, for masks (m, k)."""
        rows = self.rows(u.shape)
        spread = masks.reshape(len(masks), *[1] * (u.ndim - 1), masks.shape[-1])
        return np.concatenate([self(u[None] * spread[i : i + rows]) for i in range(0, len(masks), rows)])

    def effects(self, positions: tuple[int, ...] = ()) -> tuple[Array, float]:
        """What one unit of every coefficient adds to the logit, exactly, and the logit without any.

        Parameters
        ----------
        positions : tuple of int
            Shape of the positions, () where the head is pooled.

        Returns
        -------
        (array (*positions, k), float)
            Effects and bias: y(u) = sum(effects * u) + bias.
        """
        if not self.linear:
            raise CheckFailed("The head is not linear, its concepts have no constant effects.", "Sample it instead.")
        shape = (*positions, self.number_of_concepts)
        bias = float(self(np.zeros((1, *shape), np.float32))[0])
        values = [self(block) - bias for block in _identity(shape, self.rows(shape))]
        return np.concatenate(values).reshape(shape), bias


@dataclass(frozen=True)
class ProvenHead:
    """A head, the graph it was folded into, and how far that is from h.

    Attributes
    ----------
    head : ConceptHead
        Evaluates it.
    graph : onnx_ir.Model, optional
        y(u); None where h is a callable.
    error : float
        Largest difference from h on random coefficients, relative to the largest logit; 0 where nothing was folded.
    """

    head: ConceptHead
    graph: "ir.Model | None" = None
    error: float = 0.0


def folded_head(
    halves: "Halves", w: Floats, class_id: int, layout: "Layout", positions: tuple[int, ...], batch_size: int
) -> ProvenHead:
    """The head for a concept bank W and a class, folded into h where that is an ONNX graph.

    Of a PyTorch module that is global average pooling and affine layers, the head is pooled and linear too.

    Parameters
    ----------
    halves : Halves
        With h.
    w : array (k, p)
        Concept bank.
    class_id : int
        The class.
    layout : "NCHW" or "NHWC"
        Of the images.
    positions : tuple of int
        Shape of the positions of the activations: (H', W'), (T,) or ().
    batch_size : int
        Rows of coefficients in one run, where the head is not pooled.

    Raises
    ------
    InputError
        If there is no h, or no such class.
    CheckFailed
        If the folded graph does not compute what h does.
    """
    if halves.head is None:
        return _of_callable(halves, w, class_id, layout, positions, batch_size)
    from craft_onnx.graph.head import fold_concepts
    from craft_onnx.graph.load import image_input, load

    h = load(halves.head)
    folded = fold_concepts(h, w, class_id, halves.axis_of_channels(layout, len(image_input(h).shape or ())))
    head = graph_head(_session(folded, halves), len(w), folded.pooled, folded.linear, batch_size)
    return ProvenHead(head, folded.model, _proven(head, halves, w, class_id, layout, positions))


def _of_callable(
    halves: "Halves", w: Floats, class_id: int, layout: "Layout", positions: tuple[int, ...], batch_size: int
) -> ProvenHead:
    affine = len(positions) == 2 and layout == "NCHW" and getattr(halves.h, "affine_after_pooling", False)
    head = callable_head(halves, w, class_id, layout, batch_size)
    if not affine:
        return ProvenHead(head)

    def evaluate(u: Floats) -> Floats:
        return head.evaluate(u[:, None, None])

    pooled = ConceptHead(evaluate, len(w), pooled=True, linear=True, batch_size=batch_size)
    return ProvenHead(pooled, None, _proven(pooled, halves, w, class_id, layout, positions))


def _proven(
    head: ConceptHead, halves: "Halves", w: Floats, class_id: int, layout: "Layout", positions: tuple[int, ...]
) -> float:
    """How far a head is from h on random coefficients, relative to the largest logit; CheckFailed where too far."""
    from craft_onnx.runtime.proof import FLOOR, tolerance

    u = np.random.default_rng(0).random((2, *positions, len(w)), np.float32)
    logits = halves.logits(u @ w, layout)
    error = float(np.abs(head(head.reduced(u)) - logits[:, class_id]).max() / max(np.abs(logits).max(), FLOOR))
    if not error <= tolerance([logits.dtype.name]):
        raise CheckFailed(f"The head with the concepts folded in is off by {error:.1e}.", "Report this model, please.")
    return error


def callable_head(halves: "Halves", w: Floats, class_id: int, layout: "Layout", batch_size: int) -> ConceptHead:
    """The head of any callable h: activations u W are made and handed to it."""

    def evaluate(u: Floats) -> Floats:
        logits = halves.logits(u @ w, layout)
        if not 0 <= class_id < logits.shape[-1]:
            raise InputError(f"There is no class {class_id}.", f"Classes go from 0 to {logits.shape[-1] - 1}.")
        return logits[:, class_id]

    return ConceptHead(evaluate, len(w), pooled=False, linear=False, batch_size=batch_size)


def graph_head(session: "Session", k: int, pooled: bool, linear: bool, batch_size: int) -> ConceptHead:
    """The head that an ONNX graph of u is; small where it is pooled, and then run in large batches."""

    def evaluate(u: Floats) -> Floats:
        return run_array(session, u, rows or len(u)).reshape(len(u))

    rows = None if pooled else batch_size
    return ConceptHead(evaluate, k, pooled=pooled, linear=linear, batch_size=rows)


def _session(folded: "FoldedHead", halves: "Halves") -> "Session":
    """A session of the folded graph where g runs; the graph goes through a file, which may be as large as h."""
    from craft_onnx.graph.load import save
    from craft_onnx.runtime.sessions import Session

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "h_concepts.onnx"
        save(folded.model, path)
        return Session(path, "cpu" if halves.provider == "callable" else halves.provider)


def _identity(shape: tuple[int, ...], rows: int) -> Iterator[Floats]:
    """The unit vectors of a shape, in blocks."""
    size = int(np.prod(shape))
    for start in range(0, size, rows):
        stop = min(start + rows, size)
        yield np.eye(stop - start, size, start, dtype=np.float32).reshape(stop - start, *shape)

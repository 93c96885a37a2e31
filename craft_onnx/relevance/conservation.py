"""How much relevance is conserved, layer by layer."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from craft_onnx.attribution.model import as_inputs, batches
from craft_onnx.errors import InputError
from craft_onnx.graph.cuts import find_cuts
from craft_onnx.graph.names import find_tensor
from craft_onnx.graph.reverse.pair import gradient_pair
from craft_onnx.graph.reverse.relevance.conditions import RELEVANCE, Sums
from craft_onnx.graph.reverse.relevance.files import composite_of
from craft_onnx.graph.reverse.rules import Rules
from craft_onnx.relevance.layers import whole_model
from craft_onnx.runtime.batches import BATCH_SIZE, check_rows
from craft_onnx.runtime.model import SplitModel
from craft_onnx.runtime.proof import session_of
from craft_onnx.runtime.sessions import Session

Array = NDArray[Any]
INPUT = "input"


def conservation(
    model: SplitModel | ir.Model,
    x: Any,
    composite: str | Rules,
    class_ids: int | Sequence[int] | None = None,
    layers: Sequence[str] | None = None,
    *,
    batch_size: int = BATCH_SIZE,
) -> dict[str, Array]:
    """How much of the relevance that the output starts with reaches each layer.

    At a cut, which all paths from the input to the output go through, 1 says that nothing was lost or made on the way
    from the output. Biases, and constants that are added, take their share, unless zero_params="bias"; at a layer
    inside a branch it is the share that goes through the branch.

    Parameters
    ----------
    model : SplitModel or onnx_ir.Model
        The model; in memory, normalized.
    x : (n, ...) array or tensor
        Preprocessed samples in the model's layout.
    composite : str or Rules
        The rules: a name, a file, or a composite.
    class_ids : int or sequence of int, optional
        The class that is explained, of all samples or of each; by default the one that is predicted.
    layers : sequence of str, optional
        Where to look; by default at all cuts that have a name of the user's.
    batch_size : int
        Samples in one run, at most.

    Returns
    -------
    dict of str to (n,) array
        Relevance at each layer over the logit, from the output back to "input".

    Raises
    ------
    InputError
        If there is no such layer, class or composite.
    UnsupportedOperator
        If an operator of the model has no rule.
    """
    return Conservation(model, composite, layers)(x, class_ids, batch_size=batch_size)


class Conservation:
    """How much relevance reaches each layer, of any number of samples; its graphs are made once.

    Parameters
    ----------
    model, composite, layers
        As in `conservation`, with its errors.
    """

    def __init__(
        self, model: SplitModel | ir.Model, composite: str | Rules, layers: Sequence[str] | None = None
    ) -> None:
        graph = whole_model(model)
        self._named = _named(graph, layers)
        run = session_of if isinstance(model, ir.Model) else model.session_of
        pair = gradient_pair(graph, rules=composite_of(composite), carry=Sums(list(self._named.values())))
        self._forward, self._backward = map(run, pair)

    def __call__(
        self, x: Any, class_ids: int | Sequence[int] | None = None, *, batch_size: int = BATCH_SIZE
    ) -> dict[str, Array]:
        """Relevance at each layer over the logit: what `conservation` gives, of the same arguments."""
        rows = as_inputs(x)
        classes = _classes(class_ids, len(rows), int(self._forward.outputs[0].shape[-1] or 0))
        parts = [
            _ratios(self._forward, self._backward, rows[some], None if classes is None else classes[some], self._named)
            for some in batches(len(rows), batch_size)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


class Loss(NamedTuple):
    """Where relevance is lost, or made.

    Attributes
    ----------
    behind, before : str
        Two layers, the first of which is nearer to the output.
    ratio : float
        What reaches the second over what reaches the first.
    """

    behind: str
    before: str
    ratio: float


def losses(found: Mapping[str, Array]) -> list[Loss]:
    """Between which layers most is lost or made, these first, on the average of all samples.

    Parameters
    ----------
    found : mapping of str to array
        As `conservation` gives it.
    """
    mean = {name: float(np.mean(ratios)) for name, ratios in found.items()}
    pairs = itertools.pairwise([("output", 1.0), *mean.items()])
    steps = [
        (abs(after - before), Loss(behind, name, after / before)) for (behind, before), (name, after) in pairs if before
    ]
    return [loss for _, loss in sorted(steps, key=lambda step: -step[0])]


def _classes(given: int | Sequence[int] | None, rows: int, count: int) -> Array | None:
    """A class for every row; InputError where there are others than the model's, or another number of them."""
    if given is None:
        return None
    found = np.asarray(given, np.int64)
    if found.shape not in {(), (rows,)}:
        raise InputError(f"{found.size} classes are given for {rows} samples.", "Give one for all, or one for each.")
    wrong = found[(found < 0) | (found >= count)]
    if wrong.size:
        raise InputError(f"The model has no class {int(wrong.flat[0])}.", f"Give one from 0 to {count - 1}.")
    return np.broadcast_to(found, rows)


def _named(graph: ir.Model, layers: Sequence[str] | None) -> dict[str, str]:
    """Tensors by the user's names, from the output back."""
    if layers is not None:
        return {name: str(find_tensor(graph, name).name) for name in layers}
    cuts = find_cuts(graph)[::-1]
    return {cut.layer: cut.tensor for cut in cuts if find_tensor(graph, cut.layer).name == cut.tensor}


def _ratios(
    forward: Session, backward: Session, x: Array, classes: Array | None, named: Mapping[str, str]
) -> dict[str, Array]:
    image, start = forward.inputs[0], backward.inputs[0]
    check_rows(x, image)
    values = forward.run_values({image.name: np.ascontiguousarray(x, image.dtype)})
    logits = values[forward.outputs[0].name].numpy()
    chosen = np.eye(logits.shape[-1], dtype=bool)[logits.argmax(-1) if classes is None else classes]
    relevance = np.where(chosen, logits, 0).astype(start.dtype)
    residuals = {spec.name: values[spec.name] for spec in backward.inputs[1:]}
    found = {name: value.numpy() for name, value in backward.run_values({start.name: relevance, **residuals}).items()}
    total = relevance.sum(-1, dtype=np.float64)
    at_input = found[backward.outputs[0].name].reshape(len(x), -1).sum(1, dtype=np.float64)
    sums = {name: found[f"{RELEVANCE}{tensor}"] for name, tensor in named.items()}
    return {name: counted / total for name, counted in {**sums, INPUT: at_input}.items()}

"""A gradient graph of any two tensors of a model, as files of its own."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from craft_onnx.errors import CheckFailed
from craft_onnx.files import new_file, refuse_existing
from craft_onnx.runtime.derivative import ROWS, derivative_error, is_quantized, require_derivative
from craft_onnx.runtime.proof import random_inputs, session_of
from craft_onnx.runtime.pullback import Chain, Pair, product_of
from craft_onnx.runtime.sessions import Session

if TYPE_CHECKING:
    import onnx_ir as ir

    from craft_onnx.graph.reverse.rules import Rules

Array = NDArray[Any]
# One ONNX file holds 2 GB; this much less leaves room for the graph itself.
LARGEST = (2 << 30) - (64 << 20)


@dataclass(frozen=True)
class GradientFiles:
    """What was written.

    Attributes
    ----------
    paths : list of Path
        The graph, or the forward and the backward one; behind them, where they are large, their weights.
    error : float, optional
        Against a finite difference along a random direction, relative; None for rules that are no derivative, and
        for quantized models.
    """

    paths: list[Path]
    error: float | None


def paths_of(output: Path, pair: bool) -> list[Path]:
    """Where the graphs go: `output` itself, or names made from it for the two of a pair."""
    if not pair:
        return [output]
    return [output.with_name(f"{output.stem}_{part}{output.suffix}") for part in ("forward", "backward")]


def write_gradient(
    model: "ir.Model",
    output: Path,
    of: str | None = None,
    wrt: str | None = None,
    pair: bool = False,
    rules: "str | Rules" = "gradient",
    force: bool = False,
) -> GradientFiles:
    """Write the gradient graph of a model, proven as it was written; whole or not at all.

    Parameters
    ----------
    model : ir.Model
        Normalized.
    output : Path
        The file; a pair gets "_forward" and "_backward" behind its name.
    of, wrt : str, optional
        Names of the tensors: the derivative of which (the output), with respect to which (the input).
    pair : bool
        Write a forward and a backward graph instead of a combined one.
    rules : str or Rules
        A rule set, or its name.
    force : bool
        Replace files that exist.

    Raises
    ------
    UnsupportedOperator
        If an operator has no rule.
    CheckFailed
        If the graph disagrees with a finite difference.
    InputError
        If there is no such tensor or rule set, no derivative leads from one to the other, or a file exists.
    """
    graphs = _graphs(model, of, wrt, pair, rules)
    paths = [*paths_of(output, pair), *([_weights(output)] if _size(graphs) > LARGEST else [])]
    for path in paths[1:]:
        refuse_existing(path, force)
    with new_file(paths[0], force) as staged:
        places = [staged.with_name(path.name) for path in paths]
        _write(graphs, places)
        error = _proven(model, of, wrt, rules, places[: len(graphs)])
        for place, path in zip(places[1:], paths[1:], strict=True):
            os.replace(place, path)
    return GradientFiles(paths, error)


def _graphs(
    model: "ir.Model", of: str | None, wrt: str | None, pair: bool, rules: "str | Rules"
) -> "Sequence[ir.Model]":
    from craft_onnx.graph.reverse.pair import gradient_pair
    from craft_onnx.graph.reverse.relevance.files import composite_of
    from craft_onnx.graph.reverse.vjp import gradient_graph

    chosen = composite_of(rules)
    return gradient_pair(model, of, wrt, chosen) if pair else [gradient_graph(model, of, wrt, chosen)]


def _weights(output: Path) -> Path:
    return output.with_name(f"{output.stem}.weights.bin")


def _size(graphs: "Sequence[ir.Model]") -> int:
    """Bytes of the weights of the largest graph."""
    return max(
        sum(value.const_value.nbytes for value in graph.graph.initializers.values() if value.const_value is not None)
        for graph in graphs
    )


def _write(graphs: "Sequence[ir.Model]", places: Sequence[Path]) -> None:
    """Write graphs with their weights inside, or, where there is a place for these, beside."""
    from craft_onnx.graph.load import save
    from craft_onnx.graph.weights import save_sharing

    if len(places) > len(graphs):
        named = {place.name: graph for place, graph in zip(places, graphs, strict=False)}
        save_sharing(named, places[0].parent, places[-1].name)
    else:
        for graph, place in zip(graphs, places, strict=True):
            save(graph, place)


def _proven(
    model: "ir.Model", of: str | None, wrt: str | None, rules: "str | Rules", places: Sequence[Path]
) -> float | None:
    """Load and run what was written; for true derivatives the error against a difference, which must be small."""
    from craft_onnx.graph.load import read_description
    from craft_onnx.graph.reverse.shift import shifted

    f = session_of(shifted(model, of, wrt))
    image, shift = f.inputs
    x = random_inputs([image], ROWS, rule=read_description(model).preprocessing)[image.name]
    y, here = f.run({image.name: x, shift.name: np.zeros([1] * len(shift.shape), shift.dtype)})
    product = product_of(Session(places[0]) if len(places) == 1 else Chain(Pair(*map(Session, places))))
    _require_finite(product(x, np.ones_like(y)), here)
    if (rules if isinstance(rules, str) else rules.name) != "gradient" or is_quantized(model):
        return None
    error = derivative_error(
        lambda at: f.run({image.name: x, shift.name: at - here})[0],
        lambda _, cotangent: product(x, cotangent),
        here,
    )
    require_derivative("The gradient graph", error)
    return error


def _require_finite(dx: Array, here: Array) -> None:
    if dx.shape != here.shape or not np.isfinite(dx).all():
        problem = f"The gradient of shape {dx.shape} is not finite, or {here.shape} is what it should be."
        raise CheckFailed(problem, "Please report it, with the model.")

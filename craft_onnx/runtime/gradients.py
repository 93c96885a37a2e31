"""The gradient graphs of a bundle's halves: made from their files, written beside them, proven as they lie there."""

import warnings
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from craft_onnx.errors import CheckFailed, CraftWarning, InputError, UnsupportedOperator
from craft_onnx.runtime.derivative import ROWS, derivative_error, is_quantized, require_derivative
from craft_onnx.runtime.manifest import Graph
from craft_onnx.runtime.proof import disagreement, random_inputs, require_agreement, tolerance
from craft_onnx.runtime.pullback import Chain, Pair, product_of
from craft_onnx.runtime.sessions import Session

Array = NDArray[Any]


def add_gradients(f: Session, half: str, cut: str, files: dict[str, str], x: Array, weights: str) -> list[Graph]:
    """Write the gradient graphs of a half of a model beside it, and prove them.

    Where they cannot be made, or are not proven, a CraftWarning says why, and there are none.

    Parameters
    ----------
    f : Session
        The half, from its file.
    half : "g" or "h"
        Which.
    cut : str
        Name of the cut.
    files : dict of str to str
        Names of the files by role.
    x : ndarray
        Input at which they are proven.
    weights : str
        Name of the file of weights.
    """
    from craft_onnx.graph.load import load
    from craft_onnx.graph.reverse.pair import gradient_pair
    from craft_onnx.graph.reverse.vjp import gradient_graph
    from craft_onnx.graph.weights import add_sharing

    folder = Path(f.name).parent
    names = [files[f"vjp_{half}{part}"] for part in ("", "_forward", "_backward")]
    try:
        model = load(f.name)
        add_sharing(dict(zip(names, (gradient_graph(model), *gradient_pair(model)), strict=True)), folder, weights)
        paths = [folder / name for name in names]
        return _proven(None if is_quantized(model) else f, half, cut, paths, x[:ROWS])
    except (UnsupportedOperator, InputError, CheckFailed) as error:
        for name in names:
            (folder / name).unlink(missing_ok=True)
        warnings.warn(f"The bundle has no gradient of {half} at {cut!r}. {error}", CraftWarning, stacklevel=2)
        return []


def _proven(f: Session | None, half: str, cut: str, paths: list[Path], x: Array) -> list[Graph]:
    """The graphs as the manifest has them; the combined one and the pair are not loaded at the same time."""
    combined, cotangent, dx = _combined(f, half, cut, paths[0], x)
    pair = Pair(Session(paths[1]), Session(paths[2]))
    actual = product_of(Chain(pair))(x, cotangent)
    allowed = tolerance(spec.dtype for spec in pair.backward.inputs)
    require_agreement(f"Taking the gradient of {half} in two parts", disagreement(dx, actual), allowed)
    return [
        combined,
        _graph(paths[1], f"vjp_{half}_forward", cut, pair.forward, combined.error),
        _graph(paths[2], f"vjp_{half}_backward", cut, pair.backward, combined.error),
    ]


def _combined(f: Session | None, half: str, cut: str, path: Path, x: Array) -> tuple[Graph, Array, Array]:
    """The combined graph, compared with differences of f, if given; a cotangent, and the gradient for it at x."""
    session, error = Session(path), None
    vjp = product_of(session)
    if f is not None:
        error = derivative_error(lambda at: f.run({f.inputs[0].name: at})[0], vjp, x)
        require_derivative(f"The gradient graph of {half}", error)
    (cotangent,) = random_inputs(session.inputs[1:], len(x)).values()
    return _graph(path, f"vjp_{half}", cut, session, error), cotangent, vjp(x, cotangent)


def _graph(path: Path, role: str, cut: str, session: Session, error: float | None) -> Graph:
    return Graph(path.name, role, cut, tuple(session.inputs), tuple(session.outputs), error)

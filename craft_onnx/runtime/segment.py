"""The part of a model between two of its cuts, made in memory and proven."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from numpy.typing import NDArray

from craft_onnx.extras import require
from craft_onnx.runtime.batches import run_array
from craft_onnx.runtime.model import SplitModel
from craft_onnx.runtime.proof import reference, split_error

Array = NDArray[Any]


@dataclass(frozen=True)
class Segment:
    """From the activations at an earlier cut to those at a later one.

    Attributes
    ----------
    run : callable
        Activations (n, ...) to activations (n, ...), both in the model's layout.
    affine : bool
        Provably an affine function.
    error : float
        Of segment(g'(x)) against g(x) on random input, relative to the largest activation.
    """

    run: Callable[[Array], Array]
    affine: bool = False
    error: float = 0.0


def segment_between(earlier: SplitModel, later: SplitModel) -> Segment:
    """The segment between the cuts of two views of one model; needs the extra `build`.

    A bundle does not hold it: there is one for every pair of cuts, and it is of use only while concepts are decomposed,
    which needs the same extra.

    Parameters
    ----------
    earlier, later : SplitModel
        The model cut at either place.

    Raises
    ------
    InputError
        If the one cut does not come behind the other.
    CheckFailed
        If the segment does not compute what the model does.
    """
    require("onnx_ir", "build")
    from craft_onnx.graph.affine import is_affine
    from craft_onnx.graph.load import image_input, load
    from craft_onnx.graph.split import segment
    from craft_onnx.graph.values import with_shapes

    graph = with_shapes(segment(load(earlier.bundle.path("model")), earlier.cut.tensor, later.cut.tensor))
    session = earlier.session_of(graph)
    x, expected = reference(later.session("g"), later.preprocessing)
    error = split_error(expected, earlier.session("g"), session, x, earlier.cut.tensor)
    return Segment(partial(run_array, session), is_affine(graph.graph, image_input(graph)), error)

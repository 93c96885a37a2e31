"""The one form of a model that everything later works on."""

from collections.abc import Callable

import onnx_ir as ir

from craft_onnx.graph.load import check
from craft_onnx.graph.passes.batch import dynamic_batch
from craft_onnx.graph.passes.batchnorm import merge_batchnorm
from craft_onnx.graph.passes.fold import fold_constants
from craft_onnx.graph.passes.gemm import make_gemm
from craft_onnx.graph.passes.identity import remove_identity
from craft_onnx.graph.passes.opset import raise_opset
from craft_onnx.graph.passes.pad import merge_pad
from craft_onnx.graph.passes.shapes import infer_shapes
from craft_onnx.graph.passes.tidy import tidy


def checked(model: ir.Model) -> ir.Model:
    """Return the model itself if `graph.load.check` finds nothing wrong."""
    check(model)
    return model


# Every step requires what those before it ensure, leaves its argument as it is, and computes the same as before.
STEPS: tuple[tuple[str, Callable[[ir.Model], ir.Model]], ...] = (
    ("tidy", tidy),
    ("opset", raise_opset),
    ("identity", remove_identity),
    ("fold", fold_constants),
    ("shapes", infer_shapes),
    ("pad", merge_pad),
    ("gemm", make_gemm),
    ("batchnorm", merge_batchnorm),
    ("batch", dynamic_batch),
    ("check", checked),
)


def normalize(model: ir.Model) -> ir.Model:
    """Bring a model into the form that everything later works on.

    Opset 18 at least, constants folded, BatchNormalization merged, dense layers as Gemm, a free batch called "batch",
    shapes of all tensors, layer names on every node, nothing of the exporter's machine. Names of inputs and outputs
    stay. The steps are `STEPS`, so that each can be proven by running the model before and after it.

    Parameters
    ----------
    model : onnx_ir.Model
        Is not changed.

    Raises
    ------
    InputError
        If the opset cannot be raised, or the model works for one batch size only.
    UnsupportedOperator
        If it has operators that are not ONNX's own, and no gradient rule is registered for them.
    """
    for _, step in STEPS:
        model = step(model)
    return model

"""Frameworks to ONNX: the only place that imports PyTorch or TensorFlow."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from craft_onnx.description import Preprocessing
from craft_onnx.extras import require

if TYPE_CHECKING:
    from craft_onnx_converters.exported import Conversion

__all__ = ["convert"]


def convert(
    source: str | Path | Any,
    *,
    input_shape: Sequence[int] | None = None,
    inputs: Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
    allow_pickle: bool = False,
    keep_softmax: bool = False,
    preprocessing: Preprocessing | Mapping[str, Any] | str | None = None,
    bake_preprocessing: bool = False,
    seed: int = 0,
) -> "Conversion":
    """Convert a trained classifier to ONNX, and prove that it computes the same.

    Parameters
    ----------
    source : str, Path, torch.nn.Module or keras.Model
        A .keras, .h5, .pb, .tflite, .pt2, .pt, .pth or .onnx file, a SavedModel folder, ``package.module:factory``,
        or a model in memory.
    input_shape : sequence of int, optional
        Of one input without the batch, such as (3, 224, 224): needed where the source does not say.
    inputs, outputs : sequence of str, optional
        Tensors of a frozen graph, one each.
    allow_pickle : bool
        Load pickled PyTorch modules and Keras layers. This executes code from the file.
    keep_softmax : bool
        Keep a final Softmax; by default it is cut off, since CRAFT works on logits.
    preprocessing : Preprocessing, mapping or str, optional
        How pictures become the input: a rule, the arguments of `Preprocessing.for_input`, or the name of a preset.
    bake_preprocessing : bool
        Put the rule's arithmetic into the graph, which then takes raw uint8 RGB pictures (N, H, W, 3).
    seed : int
        Of the random input on which ONNX and framework are compared.

    Returns
    -------
    Conversion
        The model, its description, and the errors measured.

    Raises
    ------
    InputError
        If the source is missing, unknown or corrupt, or an option does not fit it.
    UnsupportedOperator
        If an operator cannot be converted.
    CheckFailed
        If the result does not agree with the framework.
    MissingExtra
        If the framework or onnx is not installed.
    """
    for module in ("onnx", "onnx_ir", "onnxscript"):
        require(module, "build")
    from craft_onnx_converters.exported import Options
    from craft_onnx_converters.pipeline import prove
    from craft_onnx_converters.sources import exporter

    options = Options(
        input_shape=tuple(input_shape) if input_shape else None,
        inputs=tuple(inputs or ()),
        outputs=tuple(outputs or ()),
        allow_pickle=allow_pickle,
        keep_softmax=keep_softmax,
        preprocessing=preprocessing,
        bake_preprocessing=bake_preprocessing,
        seed=seed,
    )
    return prove(exporter(source)(source, options), options)

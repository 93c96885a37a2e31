"""Keras to ONNX: .keras and .h5 files, and models in memory.

Runs as a script too: ``python from_keras.py net.keras -o model.onnx``.
"""

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from craft_onnx.errors import InputError
from craft_onnx.extras import require
from craft_onnx_converters.exported import Exported, Options
from craft_onnx_converters.loading import existing_file, loading
from craft_onnx_converters.quiet import environment, native_quiet, quiet
from craft_onnx_converters.tensorflow_export import convert_graph, freeze, import_tensorflow

FACTORY = "Give a factory instead, package.module:factory, a function that returns the model."


def export(source: str | Path | Any, options: Options) -> Exported:
    """Export a Keras model with its own evaluation beside it.

    Parameters
    ----------
    source : path or keras.Model
        A .keras or .h5 file of a whole model, or a model in memory.
    options : Options
        `input_shape` is needed where the model leaves it open; `allow_pickle` allows layers that are pickled Python
        functions (Lambda).

    Raises
    ------
    InputError
        If the file is missing, corrupt, holds weights only or code without permission, or the model has several inputs
        or outputs.
    UnsupportedOperator
        If tf2onnx cannot convert the model.
    MissingExtra
        If TensorFlow, Keras or tf2onnx is not installed.
    """
    keras = import_keras()
    if isinstance(source, keras.Model):
        return export_model(source, options)
    path = existing_file(Path(source))
    return export_model(_load(path, options.allow_pickle), options, path)


def import_keras() -> ModuleType:
    """Keras, running on TensorFlow: what tf2onnx converts.

    Raises
    ------
    InputError
        If Keras was set to run on another framework.
    """
    import_tensorflow()
    with quiet(), environment(KERAS_BACKEND="tensorflow"):
        keras = require("keras", "tensorflow")
    if keras.backend.backend() != "tensorflow":
        raise InputError(
            f"Keras runs on {keras.backend.backend()} here, conversion needs TensorFlow.",
            "Set the environment variable KERAS_BACKEND=tensorflow.",
        )
    return keras


def export_model(model: Any, options: Options, source: Path | None = None) -> Exported:
    """Export a Keras model in memory."""
    tensorflow = import_tensorflow()
    shape = _input_shape(model, options)
    declared = _declared_inputs(model)
    dtype = declared[0].dtype if declared else "float32"
    with quiet(), native_quiet():
        # Called once in earnest first: that builds a model that is not built yet, and shows its outputs.
        _only_output(model(np.zeros((1, *shape), dtype), training=False))
        function = tensorflow.function(lambda x: _only_output(model(x, training=False)))
        traced = function.get_concrete_function(tensorflow.TensorSpec((None, *shape), dtype, name="input"))
    onnx_model, unsupported = convert_graph(*freeze(traced), names=("input", "output"))

    def evaluate(x: NDArray[Any]) -> NDArray[np.float32]:
        with quiet(), native_quiet():
            return np.asarray(_only_output(model(x, training=False)))

    return Exported(onnx_model, evaluate, "keras", source, unsupported=unsupported)


def _load(path: Path, allow_pickle: bool) -> Any:
    keras = import_keras()
    remedy = "Save it again with model.save; with custom layers, give a factory instead, package.module:factory."
    try:
        with quiet():
            return keras.saving.load_model(path, compile=False, safe_mode=not allow_pickle)
    except ValueError as error:
        if "safe_mode" in str(error) or "unsafe_deserialization" in str(error):
            raise InputError(
                f"{path} has a layer that is a pickled Python function, and loading it executes code from the file.",
                f"If you trust its origin, allow it with --allow-pickle (allow_pickle=True). {FACTORY}",
            ) from error
        if "No model config found" in str(error):
            raise InputError(f"{path} holds weights, not a model.", FACTORY) from error
        with loading(path, "a Keras model", remedy):
            raise
    except Exception:
        with loading(path, "a Keras model", remedy):
            raise


def _declared_inputs(model: Any) -> list[Any]:
    """Inputs of a model, none for one that is not built yet or has its own `call`."""
    return list(getattr(model, "inputs", None) or [])


def _input_shape(model: Any, options: Options) -> tuple[int, ...]:
    """Shape of one input without the batch."""
    declared = _declared_inputs(model)
    if len(declared) > 1:
        raise InputError(f"The model has {len(declared)} inputs, one is needed.", "Wrap it in a model of one input.")
    shape = tuple(declared[0].shape[1:]) if declared else (None,)
    chosen = options.input_shape or shape
    if None in chosen:
        raise InputError(
            f"The model leaves the shape of its input open {shape}.", "Give it, for example --input-shape 224,224,3."
        )
    if declared and not _fits(chosen, shape):
        raise InputError(f"Input shape {tuple(chosen)} does not fit the model's {shape}.", "Leave --input-shape out.")
    return tuple(chosen)


def _fits(chosen: tuple[int, ...], shape: tuple[int | None, ...]) -> bool:
    return len(chosen) == len(shape) and all(b is None or a == b for a, b in zip(chosen, shape, strict=True))


def _only_output(outputs: Any) -> Any:
    leaves = import_tensorflow().nest.flatten(outputs)
    if len(leaves) != 1:
        raise InputError(f"The model has {len(leaves)} outputs, one is needed.", "Wrap it so that it returns logits.")
    return leaves[0]


if __name__ == "__main__":
    from craft_onnx_converters.script import main

    main()

"""Which converter a source belongs to."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from craft_onnx.errors import InputError
from craft_onnx_converters.exported import Exported, Options
from craft_onnx_converters.loading import existing_file

Exporter = Callable[[Any, Options], Exported]

CONVERTERS = {
    ".keras": "from_keras",
    ".h5": "from_keras",
    ".hdf5": "from_keras",
    ".pb": "from_tensorflow",
    ".tflite": "from_tensorflow",
    ".pt2": "from_torch",
    ".pt": "from_torch",
    ".pth": "from_torch",
    ".onnx": "from_onnx",
}
# What trainers write beside a model, by itself of no use here.
WEIGHTS = (".safetensors", ".ckpt", ".bin", ".npz", ".index", ".pdparams", ".params")


def exporter(source: str | Path | Any) -> Exporter:
    """The function that exports a source, chosen by what the source is.

    Raises
    ------
    InputError
        If it is nothing that can be converted, or does not exist.
    """
    if not isinstance(source, str | Path):
        return _function("from_callable", "export_object")
    path = Path(source)
    if path.is_dir():
        return _function("from_tensorflow")
    if not path.exists() and _names_factory(str(source)):
        return _function("from_callable")
    if path.suffix.lower() in CONVERTERS:
        return _function(CONVERTERS[path.suffix.lower()])
    existing_file(path)
    if path.suffix.lower() in WEIGHTS:
        raise InputError(
            f"{path} holds weights, not a model.", "Give a factory, package.module:factory, that builds and loads it."
        )
    raise InputError(
        f"{path} is of no known kind ({path.suffix or 'no suffix'}).",
        f"Give {', '.join(CONVERTERS)}, a SavedModel folder or package.module:factory.",
    )


def _names_factory(source: str) -> bool:
    from craft_onnx_converters.from_callable import is_factory

    return is_factory(source)


def _function(module: str, name: str = "export") -> Exporter:
    found: Exporter = getattr(importlib.import_module(f"craft_onnx_converters.{module}"), name)
    return found

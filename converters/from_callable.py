"""Python functions that build a model: ``package.module:factory`` or ``path/to/file.py:factory``.

Runs as a script too: ``python from_callable.py package.module:factory --input-shape 3,224,224 -o model.onnx``.
"""

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from craft_onnx.errors import CraftError, InputError
from craft_onnx_converters.exported import Exported, Options
from craft_onnx_converters.loading import first_line


def export(source: str, options: Options) -> Exported:
    """Call a factory and export the model it returns.

    Parameters
    ----------
    source : str
        ``package.module:factory``, with the current directory importable, or ``path/to/file.py:factory``. The
        factory takes no arguments and returns a torch.nn.Module or a Keras model.
    options : Options
        `input_shape` is needed for PyTorch.

    Raises
    ------
    InputError
        If module or factory cannot be found, the factory fails, or what it returns is no model.
    UnsupportedOperator
        If an operator of the model cannot be converted.
    """
    place, _, name = source.rpartition(":")
    with _importable(place):
        factory = _factory(_module(place), name, source)
        with _users_errors(f"{source} failed"):
            model = factory()
        return export_object(model, options, source)


def export_object(model: Any, options: Options, source: object = "The source") -> Exported:
    """Export a model in memory, by the framework that its class comes from."""
    frameworks = {cls.__module__.split(".")[0] for cls in type(model).__mro__}
    if "torch" in frameworks:
        from craft_onnx_converters import from_torch

        return from_torch.export(model, options)
    if frameworks & {"keras", "tf_keras"}:
        from craft_onnx_converters import from_keras

        return from_keras.export(model, options)
    raise InputError(
        f"{source} gives a {type(model).__name__}, not a model.", "Give or return a torch.nn.Module or a Keras model."
    )


def is_factory(source: str) -> bool:
    """Whether a source is written as ``module:factory`` or ``file.py:factory``."""
    place, _, name = source.rpartition(":")
    dotted = all(part.isidentifier() for part in place.split("."))
    return name.isidentifier() and (dotted or place.endswith(".py"))


def _module(place: str) -> ModuleType:
    with _users_errors(f"{place} cannot be imported"):
        return _module_of_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)


def _module_of_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise InputError(f"{path} does not exist.", "Give the path of a Python file, path/to/file.py:factory.")
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)  # dataclasses and pickles look themselves up there
    spec.loader.exec_module(module)
    return module


def _factory(module: ModuleType, name: str, source: str) -> Callable[[], Any]:
    factory = getattr(module, name, None)
    if not callable(factory):
        public = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise InputError(
            f"{source}: the module has no function {name!r}.", f"It has {', '.join(public[:10]) or 'no function'}."
        )
    found: Callable[[], Any] = factory
    return found


@contextlib.contextmanager
def _importable(place: str) -> Iterator[None]:
    """The current directory, or the file's, first on the import path."""
    folder = Path(place).parent.absolute() if place.endswith(".py") else Path.cwd()
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


@contextlib.contextmanager
def _users_errors(what: str) -> Iterator[None]:
    """An exception in the user's own code, as a sentence; the traceback stays attached as its cause."""
    try:
        yield
    except CraftError:
        raise
    except Exception as error:
        raise InputError(
            f"{what} ({type(error).__name__}: {first_line(error)}).", "Run it alone in Python to see where."
        ) from error


if __name__ == "__main__":
    from craft_onnx_converters.script import main

    main()

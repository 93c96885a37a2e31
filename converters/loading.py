"""Errors of loading a source, as sentences."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from craft_onnx.errors import CraftError, InputError


def first_line(error: BaseException) -> str:
    """The first line of an exception's message, or its type where there is none."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".:") if lines else type(error).__name__


@contextlib.contextmanager
def loading(source: object, what: str, remedy: str) -> Iterator[None]:
    """Turn whatever a framework raises inside the block into an InputError: "`source` cannot be loaded as `what`"."""
    try:
        yield
    except CraftError:
        raise
    except Exception as error:  # frameworks raise anything from KeyError to their own C++ errors on a bad file
        raise InputError(f"{source} cannot be loaded as {what} ({first_line(error)}).", remedy) from error


def existing_file(path: Path) -> Path:
    """The path, if a file is there; InputError otherwise."""
    if path.is_dir():
        raise InputError(f"{path} is a folder, not a model file.", "Give a file, or the folder of a SavedModel.")
    if not path.is_file():
        raise InputError(f"{path} does not exist.", "Give the path of a model, or package.module:factory.")
    return path

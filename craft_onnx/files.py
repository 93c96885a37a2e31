"""Files that appear whole or not at all."""

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from craft_onnx.errors import InputError


def sha256(path: str | Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def refuse_existing(path: str | Path, force: bool) -> None:
    """Raise InputError when `path` exists and `force` is not set."""
    if os.path.lexists(path) and not force:
        raise InputError(f"{path} exists already.", "Give another output, or --force to replace it.")


@contextlib.contextmanager
def new_file(path: str | Path, force: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path`, which takes its place when the block ends without an error.

    Raises
    ------
    InputError
        If `path` exists and `force` is not set, or is a folder, or its folder cannot be written.
    """
    path = Path(path)
    refuse_existing(path, force)
    if path.is_dir():
        raise InputError(f"{path} is a folder, a file is to be written there.", "Give the path of a file.")
    with _staging(path) as staged:
        yield staged
        os.replace(staged, path)


@contextlib.contextmanager
def new_folder(path: str | Path, force: bool = False) -> Iterator[Path]:
    """Yield an empty temporary folder beside `path`, which takes its place when the block ends without an error.

    Raises
    ------
    InputError
        If `path` exists and `force` is not set, or is a file, or its parent cannot be written.
    """
    path = Path(path)
    refuse_existing(path, force)
    if os.path.lexists(path) and not path.is_dir():
        raise InputError(f"{path} is a file, a folder is to be written there.", "Give the path of a folder.")
    with _staging(path) as staged:
        staged.mkdir()
        yield staged
        if path.exists():
            os.replace(path, staged.with_name("replaced"))
        os.replace(staged, path)


@contextlib.contextmanager
def _staging(path: Path) -> Iterator[Path]:
    """A path of the same name in a temporary folder on the same file system."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise InputError(f"{path.parent} cannot be written ({error.strerror}).", "Give another output.") from error
    Path(folder).chmod(0o755)
    try:
        yield Path(folder) / path.name
    finally:
        shutil.rmtree(folder, ignore_errors=True)

"""Files that appear whole or not at all."""

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from craft_onnx.errors import InputError

# What a page of ours says of itself in its head: a folder with it may be replaced.
GENERATOR = '<meta name="generator" content="craft-onnx">'


def sha256(path: str | Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def refuse_existing(path: str | Path, force: bool) -> None:
    """Raise InputError when `path` exists and `force` is not set."""
    if os.path.lexists(path) and not force:
        raise InputError(f"{path} exists already.", "Give another output, or --force to replace it.")


def check_new_file(path: str | Path, force: bool = False) -> None:
    """Raise the InputError that `new_file` would raise, before any work is done."""
    with _staging(_free_for_file(path, force)):
        pass


def check_new_folder(path: str | Path, force: bool = False) -> None:
    """Raise the InputError that `new_folder` would raise, before any work is done."""
    with _staging(_free_for_folder(path, force)):
        pass


@contextlib.contextmanager
def new_file(path: str | Path, force: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path`, which takes its place when the block ends without an error.

    Raises
    ------
    InputError
        If `path` exists and `force` is not set, or is a folder, or its folder cannot be written.
    """
    path = _free_for_file(path, force)
    with _staging(path) as staged:
        yield staged
        os.replace(staged, path)


@contextlib.contextmanager
def new_folder(path: str | Path, force: bool = False) -> Iterator[Path]:
    """Yield an empty temporary folder beside `path`, which takes its place when the block ends without an error.

    Raises
    ------
    InputError
        If `path` exists and `force` is not set, or is a file or a folder that is neither empty nor an output of this
        package, or its parent cannot be written.
    """
    path = _free_for_folder(path, force)
    with _staging(path) as staged:
        staged.mkdir()
        yield staged
        if path.exists():
            os.replace(path, staged.with_name("replaced"))
        os.replace(staged, path)


def _free_for_file(path: str | Path, force: bool) -> Path:
    refuse_existing(path, force)
    if Path(path).is_dir():
        raise InputError(f"{path} is a folder, a file is to be written there.", "Give the path of a file.")
    if Path(path).exists() and not Path(path).is_file():
        raise InputError(f"{path} is a device or the like, which is not replaced.", "Give the path of a file.")
    return _named(Path(path))


def _free_for_folder(path: str | Path, force: bool) -> Path:
    path = Path(path)
    refuse_existing(path, force)
    if os.path.lexists(path) and not path.is_dir():
        raise InputError(f"{path} is a file, a folder is to be written there.", "Give the path of a folder.")
    if path.is_dir() and not _is_ours(path):
        raise InputError(
            f"{path} holds other things than an earlier output of craft-onnx, --force does not remove those.",
            "Give another output, or remove the folder yourself.",
        )
    return _named(path)


def _is_ours(folder: Path) -> bool:
    """Whether a folder is empty, a bundle, or has a page of ours: what may be replaced as a whole."""
    page, manifest = folder / "index.html", folder / "MANIFEST.json"
    if manifest.is_file():
        return b'"craft_onnx"' in manifest.read_bytes()[:4096]
    if page.is_file():
        return GENERATOR.encode() in page.read_bytes()[:4096]
    return not any(folder.iterdir())


def _named(path: Path) -> Path:
    """A path that ends in a name, as "." and ".." do not."""
    return path if path.name not in ("", "..") else path.resolve()


@contextlib.contextmanager
def _staging(path: Path) -> Iterator[Path]:
    """A path of the same name in a temporary folder on the same file system; folders made for it go with it."""
    made = [folder for folder in path.parents if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.mkdtemp(prefix=f".{path.name[:100]}.", dir=path.parent)
    except OSError as error:
        _remove_empty(made)
        raise InputError(f"{path.parent} cannot be written ({error.strerror}).", "Give another output.") from error
    Path(folder).chmod(0o755)
    try:
        yield Path(folder) / path.name
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _remove_empty(made)


def _remove_empty(folders: list[Path]) -> None:
    """Remove folders, innermost first, that nothing was put into."""
    for folder in folders:
        with contextlib.suppress(OSError):  # not empty, or not there
            folder.rmdir()

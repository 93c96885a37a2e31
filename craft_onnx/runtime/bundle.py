"""The bundle: one folder that holds a model, its halves, its concepts and a manifest."""

import contextlib
import hashlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

from craft_onnx.errors import CheckFailed, InputError
from craft_onnx.files import new_file, new_folder, sha256
from craft_onnx.runtime import manifest as manifests
from craft_onnx.runtime.manifest import FILE_NAME, Manifest

if TYPE_CHECKING:
    import onnx_ir as ir

LOCK = ".lock"
SWEPT_AFTER = 3600.0  # seconds a dropped file stays for those who opened the bundle before

Change = Callable[[Manifest], Manifest]


class Bundle:
    """A bundle on disk. Its files never change: `commit` adds new ones, then replaces the manifest at once.

    Attributes
    ----------
    folder : Path
        Where it lies.
    manifest : Manifest
        What it holds, as of opening or the last commit.
    made_from : Path, optional
        The ONNX file of a temporary bundle, into which nothing is saved.
    """

    made_from: Path | None = None

    def __init__(self, folder: Path, text: bytes):
        self.folder = folder
        self.manifest = Manifest.from_json(text)
        self._text = text

    @classmethod
    def open(cls, folder: str | Path, verify: bool = True) -> "Bundle":
        """Read a bundle.

        Parameters
        ----------
        folder : path
            The bundle; it may be a mounted volume made of symbolic links.
        verify : bool
            Compare the hash of every file with the manifest's.

        Raises
        ------
        InputError
            If the folder is no bundle, its manifest is not valid, a file is missing or lies outside.
        CheckFailed
            If a file does not have its hash.
        """
        folder = Path(folder)
        try:
            bundle = cls(folder, _read_manifest(folder))
            for name, digest in bundle.manifest.files.items():
                path = bundle.file(name)
                if verify:
                    _verify(path, name, digest)
        except OSError as error:
            problem = f"The bundle {folder} cannot be read ({error.strerror or error})."
            raise InputError(problem, "Check its permissions.") from error
        return bundle

    def file(self, name: str) -> Path:
        """The resolved path of a file that the manifest names; InputError if it is missing or lies outside."""
        if name not in self.manifest.files:
            raise InputError(f"The bundle {self.folder} has no file {name!r}.", "Open it again, or make it again.")
        root = self.folder.resolve()
        path = Path(os.path.realpath(root / name))  # Path.resolve raises on a loop of links
        if not path.is_relative_to(root):
            raise InputError(
                f"{name} of the bundle {self.folder} leads out of it, to {path}.",
                "Copy the bundle with the files its symbolic links point to (cp -rL).",
            )
        if not path.is_file():
            raise InputError(f"The bundle {self.folder} lacks {name}.", "Copy the bundle again, whole.")
        return path

    def path(self, role: str, cut: str | None = None) -> Path:
        """Path of the graph of a role, at a cut (or None); InputError if there is none."""
        return self.file(self.manifest.graph(role, cut).file)

    def commit(self, manifest: Manifest, files: Mapping[str, bytes | Path]) -> None:
        """Add files, then replace the manifest at once; a crash before that leaves the old bundle as it was.

        Parameters
        ----------
        manifest : Manifest
            The new one. The hashes of `files` are added, files of concept banks it has no more are dropped.
        files : mapping of str to bytes or Path
            Contents, or a file to copy, by path in the bundle. A name the bundle has already cannot be given others.

        Raises
        ------
        InputError
            If the folder cannot be written, a name is taken or unsafe, or someone else committed since it was read
            (`update` adapts to that).
        """
        with self._locked():
            if _read_manifest(self.folder) != self._text:
                raise InputError(f"The bundle {self.folder} was changed meanwhile.", "Open it again and repeat this.")
            self._replace(manifest, files)

    def update(self, change: Change, files: Mapping[str, bytes | Path]) -> None:
        """Like `commit`, with `change` applied to the manifest as it is now, whoever committed meanwhile."""
        with self._locked():
            self._text = _read_manifest(self.folder)
            self.manifest = Manifest.from_json(self._text)
            self._replace(change(self.manifest), files)

    def sweep(self, older_than: float = SWEPT_AFTER) -> list[str]:
        """Remove files that the manifest does not name and nobody has touched for `older_than` seconds.

        Only what a bundle consists of is removed: graphs and weights, files of concept banks, unfinished commits.

        Returns
        -------
        list of str
            The paths removed.
        """
        with self._locked():
            manifest = Manifest.from_json(_read_manifest(self.folder))
            limit = time.time() - older_than
            unnamed = [path for path in _garbage(self.folder, manifest) if path.lstat().st_mtime <= limit]
            for path in unnamed:
                path.unlink()
                if path.parent != self.folder:
                    with contextlib.suppress(OSError):  # not empty yet
                        path.parent.rmdir()
        return [path.relative_to(self.folder).as_posix() for path in unnamed]

    def _replace(self, manifest: Manifest, files: Mapping[str, bytes | Path]) -> None:
        """Write the files under their new names, then the manifest."""
        try:
            hashes = {name: self._add(name, content) for name, content in files.items()}
            manifest = manifests.with_files(manifest, hashes)
            text = manifest.to_json().encode()
            _write(self.folder / FILE_NAME, text)
        except OSError as error:
            raise _unwritable(self.folder, error) from error
        for name in self.manifest.files.keys() - manifest.files.keys():
            with contextlib.suppress(OSError):  # its age counts from now on
                os.utime(self.folder / name)
        self.manifest, self._text = manifest, text

    def _add(self, name: str, content: bytes | Path) -> str:
        """Write one file and give its hash."""
        path = self.folder / name
        inside = path.parent.resolve().is_relative_to(self.folder.resolve())
        if not manifests.is_safe_path(name) or name in (FILE_NAME, LOCK) or not inside:
            raise InputError(f"{name!r} is no path inside the bundle.", "Give a relative path without '..'.")
        content = content.read_bytes() if isinstance(content, Path) else content
        digest = hashlib.sha256(content).hexdigest()
        if self.manifest.files.get(name, digest) != digest:
            raise InputError(f"The bundle has another {name} already.", "Give the new file a new name.")
        _write(path, content)
        return digest

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Only one process at a time."""
        if self.made_from is not None:
            problem = f"The bundle of {self.made_from} is temporary, nothing can be kept in it."
            raise InputError(problem, f"Make one that stays: craft-onnx split {self.made_from} -o BUNDLE")
        try:
            file = (self.folder / LOCK).open("a+b")
        except OSError as error:
            raise _unwritable(self.folder, error) from error
        with file:
            try:
                _lock(file)
            except OSError as error:  # a file system without locks
                raise _unwritable(self.folder, error) from error
            yield


def create_bundle(
    model: "ir.Model",
    at: Sequence[str | int],
    output: str | Path,
    force: bool = False,
    names: Sequence[str] | None = None,
) -> Bundle:
    """Cut a model and write the bundle: the model, g and h for every cut, their weights once, and the manifest.

    The files written are what is proven: onnxruntime loads them, and h(g(x)) = f(x) on random input.

    Parameters
    ----------
    model : ir.Model
        Normalized.
    at : sequence of str or int
        The cuts, by tensor, layer or index; the first is the bundle's default.
    output : path
        Folder to write.
    force : bool
        Replace it if it exists.
    names : sequence of str, optional
        Of the classes.

    Raises
    ------
    InputError
        If there is no such cut, two are the same or have the same name, the model is no classifier, or the folder
        exists.
    CheckFailed
        If a proof fails.
    """
    from craft_onnx.runtime.creation import write_bundle

    with new_folder(output, force) as folder:
        write_bundle(model, at, folder, names)
    return Bundle.open(output, verify=False)


def _lock(file: IO[bytes]) -> None:
    """Wait for the lock of an open file, which ends when the file is closed, by a crash too."""
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX)


def _unwritable(folder: Path, error: OSError) -> InputError:
    return InputError(
        f"The bundle {folder} cannot be written ({error.strerror or error}).",
        "Free space there, or copy it to a folder that can be written.",
    )


def _write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, on the disk before it takes its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path, force=True) as staged, staged.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _read_manifest(folder: Path) -> bytes:
    remedy = "Make a bundle from a model with: craft-onnx split MODEL -o BUNDLE"
    if not folder.is_dir():
        kind = "is a file, not a bundle" if folder.exists() else "is not there"
        raise InputError(f"{folder} {kind}.", remedy)
    path = folder / FILE_NAME
    if not path.is_file():
        raise InputError(f"{folder} is no bundle: it has no {FILE_NAME}.", remedy)
    if not path.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"{path} leads out of the bundle.", "Copy the bundle with what its links point to (cp -rL).")
    if path.stat().st_size > manifests.MAX_BYTES:
        raise InputError(f"{path} has {path.stat().st_size} bytes, which no manifest has.", remedy)
    return path.read_bytes()


def _verify(path: Path, name: str, digest: str) -> None:
    if (found := sha256(path)) != digest:
        raise CheckFailed(
            f"{name} is truncated or was changed: its SHA-256 is {found[:12]}..., the manifest says {digest[:12]}....",
            "Copy the bundle again, or make it again.",
        )


def _garbage(folder: Path, manifest: Manifest) -> Iterator[Path]:
    """Files of ours that the manifest does not name; symbolic links are left alone."""
    unfinished = ".[!.]*.????????/*"  # as craft_onnx.files names them
    for pattern in ("*.onnx", "*.bin", unfinished, f"{manifests.CONCEPTS}/**/*"):
        for path in sorted(folder.glob(pattern)):
            name = path.relative_to(folder).as_posix()
            if path.is_file() and path.resolve() == folder.resolve() / name and name not in manifest.files:
                yield path

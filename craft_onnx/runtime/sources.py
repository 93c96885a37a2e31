"""What a user gives as pictures, as a list of entries that can each be read."""

import dataclasses
import glob
import itertools
import os
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from craft_onnx.errors import InputError
from craft_onnx.runtime.decode import check_file, check_pixels, decode_file, to_rgb8

# What counts as a picture in a folder; those that OpenCV cannot read are then named in a warning, not lost silently.
EXTENSIONS = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff"),
    *(".heic", ".heif", ".avif", ".jp2", ".j2k"),
)
# A .npz is decompressed into memory as a whole.
MAX_NPZ_BYTES = 4 << 30


class Entry(Protocol):
    """One picture: `check` reads its header alone, `read` gives uint8 RGB; both raise ValueError or OSError."""

    @property
    def name(self) -> str:
        """Where the picture comes from."""

    def check(self, max_pixels: int) -> None:
        """Refuse what is no picture or too large."""

    def read(self, max_pixels: int) -> np.ndarray:
        """The picture, (H, W, 3) uint8."""


@dataclass(frozen=True)
class FileEntry:
    """A picture file."""

    path: Path
    name: str

    def check(self, max_pixels: int) -> None:
        """Format and size from the file's header."""
        check_file(self.path, max_pixels)

    def read(self, max_pixels: int) -> np.ndarray:
        """Decode the file."""
        return decode_file(self.path, max_pixels)


@dataclass(frozen=True, eq=False)
class RowEntry:
    """One picture of an array, (H, W) or (H, W, channels); a memory-mapped one is read when asked for."""

    pixels: np.ndarray
    name: str = ""

    def check(self, max_pixels: int) -> None:
        """Size of the array."""
        check_pixels(self.pixels.shape[0], self.pixels.shape[1], max_pixels)

    def read(self, max_pixels: int) -> np.ndarray:
        """Copy the pixels."""
        self.check(max_pixels)
        return to_rgb8(np.array(self.pixels))


def entries_of(source: Any) -> list[Entry]:
    """Every picture that a source holds: see `open_pictures`.

    Raises
    ------
    InputError
        If the source is no such thing, does not exist or holds no pictures.
    """
    entries = [_numbered(entry, i) for i, entry in enumerate(_walk(source))]
    if not entries:
        raise InputError("No pictures were given.", "Give a folder, files, or a uint8 array (N, H, W, 3).")
    return entries


def _numbered(entry: Entry, i: int) -> Entry:
    return dataclasses.replace(entry, name=f"picture {i}") if isinstance(entry, RowEntry) and not entry.name else entry


def _walk(source: Any) -> Iterator[Entry]:
    """Sources within sources, depth first."""
    if isinstance(source, (str, os.PathLike)):
        yield from _at_path(os.fspath(source))
    elif hasattr(source, "__array__"):
        yield from _rows(np.asarray(source), "")
    elif isinstance(source, Iterable) and not isinstance(source, (bytes, dict)):
        yield from itertools.chain.from_iterable(map(_walk, source))
    else:
        raise InputError(f"A {type(source).__name__} holds no pictures.", "Give a folder, files or uint8 arrays.")


def _at_path(text: str) -> list[Entry]:
    path = Path(text)
    if path.is_dir():
        return _in_folder(path)
    if not path.exists() and glob.has_magic(text):
        return _matching(text)
    if path.suffix.lower() in (".npy", ".npz"):
        return _rows(_load_array(path), path.name)
    return [FileEntry(path, _legible(text))]


def _legible(name: str) -> str:
    """A file's name as text that can be written: bytes that are no UTF-8 are replaced."""
    return os.fsencode(name).decode("utf-8", "replace")


def _in_folder(folder: Path) -> list[Entry]:
    paths = sorted(path for path in _files_below(folder) if path.suffix.lower() in EXTENSIONS)
    if not paths:
        raise InputError(f"The folder {folder} holds no pictures.", f"Pictures end in {', '.join(EXTENSIONS[:11])}.")
    return [FileEntry(path, _legible(path.relative_to(folder).as_posix())) for path in paths]


def _files_below(folder: Path) -> Iterator[Path]:
    """Files that are not hidden, through symbolic links, every folder once."""
    seen = set()
    for root, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        folders[:] = [] if real in seen else [name for name in folders if not name.startswith(".")]
        yield from () if real in seen else (Path(root, name) for name in files if not name.startswith("."))
        seen.add(real)


def _matching(pattern: str) -> list[Entry]:
    found = sorted(Path(name) for name in glob.glob(pattern, recursive=True))  # noqa: PTH207 - absolute patterns
    paths = [path for path in found if path.suffix.lower() in EXTENSIONS and not path.is_dir()]
    if not paths:
        raise InputError(f"Nothing that matches {pattern} is a picture ({len(found)} matches).", "Check the pattern.")
    return [FileEntry(path, _legible(str(path))) for path in paths]


def _rows(array: np.ndarray, name: str) -> list[Entry]:
    """The pictures of (N, H, W, channels), (N, H, W), or of one (H, W, channels) or (H, W)."""
    if array.dtype not in (np.uint8, np.uint16):
        remedy = "Give uint8 from 0 to 255, as decoded; preprocessed arrays go straight into the model."
        raise InputError(f"{name or 'The array'} holds {array.dtype}, not uint8 or uint16.", remedy)
    coloured = array.ndim >= 3 and array.shape[-1] in (1, 3, 4)
    if array.ndim == 2 or (array.ndim == 3 and coloured):
        return [RowEntry(array, name)]
    if array.ndim == 3 or (array.ndim == 4 and coloured):
        return [RowEntry(row, name and f"{name}[{i}]") for i, row in enumerate(array)]
    raise InputError(
        f"{name or 'The array'} has shape {array.shape}.", "Give (N, H, W, 3), channels last, or (N, H, W)."
    )


def _load_array(path: Path) -> np.ndarray:
    """Pickles are never read."""
    try:
        return _npz(path) if path.suffix.lower() == ".npz" else np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} cannot be read: {error}.", "Save it with numpy.save, as a uint8 array.") from error


def _npz(path: Path) -> np.ndarray:
    """The only array of pictures in the archive, found by shape and type."""
    with np.load(path, allow_pickle=False) as archive:
        shapes = {name: _member_header(archive.zip, name) for name in archive.files}
        kept = [name for name, (shape, dtype) in shapes.items() if dtype in ("u1", "u2") and len(shape) in (3, 4)]
        if len(kept) != 1:
            raise ValueError(
                f"of its arrays {sorted(shapes)}, {len(kept)} and not one hold pictures (uint8, 3-D or 4-D)"
            )
        shape, dtype = shapes[kept[0]]
        if int(np.prod(shape, dtype=object)) * dtype.itemsize > MAX_NPZ_BYTES:
            raise ValueError(f"{kept[0]} {shape} is too large for an archive; a .npy is read piece by piece")
        return archive[kept[0]]


def _member_header(archive: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of an array before it is decompressed."""
    member = name if name in archive.namelist() else f"{name}.npy"
    with archive.open(member) as file:
        old = np.lib.format.read_magic(file) == (1, 0)
        read = np.lib.format.read_array_header_1_0 if old else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    return shape, dtype

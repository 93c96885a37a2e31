"""Several graphs over one file of weights: every distinct tensor is stored once."""

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
import onnx_ir as ir

from craft_onnx.errors import InputError
from craft_onnx.files import new_file

# Smaller tensors stay in the graph: scalars, shapes and biases, which tools read to infer shapes.
INLINE_BYTES = 1024
# Offsets: of a cache line, and of a memory page for what is worth mapping.
ALIGNMENT, PAGE, PAGE_BYTES = 64, 4096, 1 << 20

Place = tuple[int, int]


def save_sharing(graphs: Mapping[str, ir.Model], folder: Path, weights: str = "weights.bin") -> None:
    """Write graphs whose larger initializers lie in one file, each content once; all of them whole or none.

    The bytes of all files follow from the graphs and their order alone.

    Parameters
    ----------
    graphs : mapping of str to onnx_ir.Model
        By file name; are not changed.
    folder : Path
        Where all files go.
    weights : str
        Name of the file of weights.

    Raises
    ------
    InputError
        If one of the files exists, or the folder cannot be written.
    """
    with contextlib.ExitStack() as stack:
        staged = stack.enter_context(new_file(folder / weights))
        with staged.open("wb") as file:
            store = _Store(file)
            copies = {name: _with_places(model, weights, store.put) for name, model in graphs.items()}
        for name, model in copies.items():
            _write(model, stack.enter_context(new_file(folder / name)))


def add_sharing(graphs: Mapping[str, ir.Model], folder: Path, weights: str = "weights.bin") -> None:
    """Write further graphs beside an existing file of weights, which stays as it is.

    A tensor whose content lies in that file refers to it; other ones are stored in the graph itself.

    Parameters
    ----------
    graphs : mapping of str to onnx_ir.Model
        By file name; are not changed.
    folder : Path
        With the file of weights and graphs that use it.
    weights : str
        Name of the file of weights.

    Raises
    ------
    InputError
        If there is no such file of weights, or one of the graphs' files exists.
    """
    if not (folder / weights).is_file():
        raise InputError(f"There is no file of weights {folder / weights}.", "Create the bundle again.")
    stock = _Stock(folder, weights)
    with contextlib.ExitStack() as stack:
        for name, model in graphs.items():
            _write(_with_places(model, weights, stock.find), stack.enter_context(new_file(folder / name)))


class _Store:
    """An open file that takes every content once."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.places: dict[bytes, Place] = {}
        self.seen: dict[int, tuple[ir.TensorProtocol, Place]] = {}

    def put(self, tensor: ir.TensorProtocol) -> Place:
        """Where the tensor's bytes lie in the file, written if they are new."""
        if id(tensor) not in self.seen:  # the same object in several graphs is read once
            self.seen[id(tensor)] = tensor, self._put_content(tensor.tobytes())
        return self.seen[id(tensor)][1]

    def _put_content(self, content: bytes) -> Place:
        key = hashlib.sha256(content).digest()
        if key not in self.places:
            step = PAGE if len(content) >= PAGE_BYTES else ALIGNMENT
            self.file.write(bytes(-self.file.tell() % step))
            self.places[key] = self.file.tell(), len(content)
            self.file.write(content)
        return self.places[key]


class _Stock:
    """What an existing file of weights holds, as the graphs beside it tell."""

    def __init__(self, folder: Path, weights: str) -> None:
        self.path = (folder / weights).absolute()
        self.places: dict[int, set[int]] = {}
        for file in sorted(folder.glob("*.onnx")):
            for offset, length in _references(file, weights):
                self.places.setdefault(length, set()).add(offset)
        self.hashes: dict[Place, bytes] = {}

    def find(self, tensor: ir.TensorProtocol) -> Place | None:
        """Where the tensor's bytes lie in the file, None if they do not."""
        if isinstance(tensor, ir.ExternalTensor) and Path(tensor.path).absolute() == self.path:
            return tensor.offset or 0, tensor.nbytes
        offsets = sorted(self.places.get(tensor.nbytes, ()))
        key = hashlib.sha256(tensor.tobytes()).digest() if offsets else b""
        return next(((offset, tensor.nbytes) for offset in offsets if self._hash((offset, tensor.nbytes)) == key), None)

    def _hash(self, place: Place) -> bytes:
        if place not in self.hashes:
            content = np.memmap(self.path, np.uint8, "r", offset=place[0], shape=(place[1],))
            self.hashes[place] = hashlib.sha256(content.tobytes()).digest()
        return self.hashes[place]


def _references(file: Path, weights: str) -> Iterator[Place]:
    """Places in the file of weights that a graph's initializers refer to."""
    for tensor in onnx.load(file, load_external_data=False).graph.initializer:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        if tensor.data_location == onnx.TensorProto.EXTERNAL and entries.get("location") == weights:
            yield int(entries.get("offset", 0)), int(entries["length"])


def _with_places(model: ir.Model, weights: str, place_of: Callable[[ir.TensorProtocol], Place | None]) -> ir.Model:
    """A copy whose larger initializers refer to their places; those without one, and small ones, are in the graph."""
    copy = model.clone()
    for graph in copy.graphs():
        for value in graph.initializers.values():
            assert value.const_value is not None
            value.const_value = _placed(value.const_value, str(value.name), weights, place_of)
    return copy


def _placed(
    tensor: ir.TensorProtocol, name: str, weights: str, place_of: Callable[[ir.TensorProtocol], Place | None]
) -> ir.TensorProtocol:
    large = tensor.nbytes >= INLINE_BYTES and tensor.dtype != ir.DataType.STRING
    place = place_of(tensor) if large else None
    if place is not None:
        return ir.ExternalTensor(weights, *place, tensor.dtype, shape=ir.Shape(tensor.shape.numpy()), name=name)
    if isinstance(tensor, ir.ExternalTensor):
        return ir.Tensor(np.array(tensor.numpy()), dtype=tensor.dtype, name=name)
    return tensor


def _write(model: ir.Model, path: Path) -> None:
    path.write_bytes(ir.serde.serialize_model(model).SerializeToString(deterministic=True))

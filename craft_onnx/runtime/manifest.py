"""MANIFEST.json: what a bundle holds, where each file is and what its hash must be."""

import dataclasses
import json
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from craft_onnx.description import Layout, Preprocessing
from craft_onnx.errors import InputError
from craft_onnx.runtime.sessions import TensorSpec

SCHEMA = 2
READ = (1, SCHEMA)  # 1 knows no gradient graphs
FILE_NAME = "MANIFEST.json"
CONCEPTS = "concepts"
ROLES = (
    "model", "g", "h", "h_concepts", "vjp_g", "vjp_h", "vjp_g_forward", "vjp_g_backward", "vjp_h_forward",
    "vjp_h_backward", "relevance", "explainer",
)  # fmt: skip  # one line reads as the list it is
MAX_BYTES = 64 << 20  # of the JSON text, far above any honest one


@dataclass(frozen=True)
class Source:
    """Where the model came from.

    Attributes
    ----------
    framework : str
        "keras", "tensorflow", "tflite", "torch" or "onnx".
    sha256 : str, optional
        Of the source file, where the source was one.
    """

    framework: str
    sha256: str | None = None


@dataclass(frozen=True)
class Input:
    """The model's input.

    Attributes
    ----------
    name, dtype : str
        Of the tensor.
    layout : "NCHW" or "NHWC", optional
        None where neither the description nor the shape says.
    shape : tuple of int or None
        None where any length goes, as on the batch axis.
    preprocessing : Preprocessing, optional
        How pictures become input, where it is known.
    """

    name: str
    dtype: str
    layout: Layout | None
    shape: tuple[int | None, ...]
    preprocessing: Preprocessing | None = None


@dataclass(frozen=True)
class Output:
    """The model's output, one number a class.

    Attributes
    ----------
    name : str
        Of the tensor.
    classes : int
        How many there are.
    softmax_removed : bool
        A final Softmax was cut off, the output is logits.
    names : tuple of str, optional
        Of the classes.
    """

    name: str
    classes: int
    softmax_removed: bool = False
    names: tuple[str, ...] | None = None


@dataclass(frozen=True)
class CutSpec:
    """A tensor at which the bundle's model is cut.

    Attributes
    ----------
    name : str
        The user's name of it: a layer.
    tensor : str
        Its name in the graph.
    shape : tuple of int or None
        Of the activations; None where any length goes.
    channel_axis : int
        Axis of the channels.
    nonnegative : bool
        Provably never below zero.
    error : float
        Of h(g(x)) against the model on random input, relative to the largest output.
    """

    name: str
    tensor: str
    shape: tuple[int | None, ...]
    channel_axis: int
    nonnegative: bool
    error: float


@dataclass(frozen=True)
class Graph:
    """An ONNX file of the bundle.

    Attributes
    ----------
    file : str
        In the bundle's folder.
    role : str
        One of ROLES.
    cut : str, optional
        Name of its cut; None for the whole model.
    inputs, outputs : tuple of TensorSpec
        In order.
    error : float, optional
        Of a gradient graph against differences of the half it belongs to, along random directions, relative; None
        where it goes straight through the rounding of a quantized model.
    """

    file: str
    role: str
    cut: str | None
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    error: float | None = None


@dataclass(frozen=True)
class Concepts:
    """A concept bank of the bundle.

    Attributes
    ----------
    id : str
        Unique in the bundle.
    class_id : int
        The class it explains.
    cut : str
        Name of its cut.
    parent : str, optional
        `id` of the bank one of whose concepts it decomposes.
    folder : str
        Of its files, below "concepts".
    names : dict of str to str
        Names given to concepts, by their number.
    parent_concept : int, optional
        The number of that concept.
    """

    id: str
    class_id: int
    cut: str
    parent: str | None
    folder: str
    names: dict[str, str] = field(default_factory=dict)
    parent_concept: int | None = None


@dataclass(frozen=True)
class Manifest:
    """The contents of a bundle, as MANIFEST.json has them.

    Attributes
    ----------
    schema : int
        Of this format.
    versions : dict of str to str
        Of the packages that wrote the bundle.
    source, input, output : Source, Input, Output
        Of the model.
    cuts : dict of str to CutSpec
        By name; the first is the default.
    graphs : tuple of Graph
        The ONNX files.
    concepts : tuple of Concepts
        The concept banks.
    files : dict of str to str
        SHA-256 of every file, by its path in the bundle.
    """

    schema: int
    versions: dict[str, str]
    source: Source
    input: Input
    output: Output
    cuts: dict[str, CutSpec]
    graphs: tuple[Graph, ...]
    concepts: tuple[Concepts, ...] = ()
    files: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for problem in _problems(self):
            raise InputError(f"The bundle's manifest is not valid: {problem}.", "Make the bundle again.")

    def to_json(self) -> str:
        """JSON text."""
        fields = dataclasses.asdict(self)
        for cut in fields["cuts"].values():
            del cut["name"]
        return json.dumps(fields, indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> "Manifest":
        """The inverse of `to_json`.

        Raises
        ------
        InputError
            If it is not JSON, of another schema, or a field is missing, unknown, or has a wrong type or value.
        """
        fields = _parse(text)
        schema = fields.get("schema") if isinstance(fields, dict) else None
        if schema not in READ:
            problem = f"The manifest has schema {schema!r}, this version reads {' and '.join(map(str, READ))}."
            raise InputError(problem, "Use the version of craft-onnx that wrote the bundle, or make it again.")
        if isinstance(fields.get("cuts"), dict):
            named = {name: {**cut, "name": name} for name, cut in fields["cuts"].items() if isinstance(cut, dict)}
            fields = fields | {"cuts": fields["cuts"] | named}
        return dataclasses.replace(with_files(_decode(cls, fields, "manifest"), {}), schema=SCHEMA)

    def graph(self, role: str, cut: str | None = None) -> Graph:
        """The graph of a role, at a cut (or None); InputError if there is none."""
        for graph in self.graphs:
            if (graph.role, graph.cut) == (role, cut):
                return graph
        where = f" at the cut {cut!r}" if cut else ""
        raise InputError(f"The bundle has no graph {role!r}{where}.", "Make the bundle again with it.")

    def cut(self, name: str | None = None) -> CutSpec:
        """The cut of a name or of a tensor's name, the first by default; InputError if there is none."""
        for cut in self.cuts.values():
            if name in (None, cut.name, cut.tensor):
                return cut
        raise InputError(f"The bundle is not cut at {name!r}.", f"It is cut at {', '.join(self.cuts)}.")


def _parse(text: str | bytes) -> Any:
    if len(text) > MAX_BYTES:
        raise InputError(f"The manifest has {len(text)} bytes.", f"None is larger than {MAX_BYTES}: make it again.")
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        problem = f"{FILE_NAME} cannot be read ({error})."
        raise InputError(problem, "It is truncated or damaged: copy or make the bundle again.") from error


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def _problems(manifest: Manifest) -> typing.Iterator[str]:
    """What is wrong with values whose types are right."""
    if not manifest.cuts:
        yield "it has no cut"
    yield from _problems_of_cuts(manifest)
    yield from _problems_of_graphs(manifest)
    yield from _problems_of_concepts(manifest)
    for path, digest in manifest.files.items():
        if not is_safe_path(path) or path == FILE_NAME:
            yield f"{path!r} is no path inside the bundle"
        if not re.fullmatch("[0-9a-f]{64}", digest):
            yield f"{digest!r} is no SHA-256"


def _problems_of_cuts(manifest: Manifest) -> typing.Iterator[str]:
    for name, cut in manifest.cuts.items():
        if cut.name != name or not name:
            yield f"the cut {name!r} calls itself {cut.name!r}"
        if not 1 <= cut.channel_axis < len(cut.shape):
            yield f"channel axis {cut.channel_axis} of the cut {name!r} is not in its shape {cut.shape}"
    if manifest.output.classes < 1:
        yield f"it has {manifest.output.classes} classes"
    if manifest.output.names is not None and len(manifest.output.names) != manifest.output.classes:
        yield f"it has {len(manifest.output.names)} names for {manifest.output.classes} classes"


def _problems_of_graphs(manifest: Manifest) -> typing.Iterator[str]:
    for graph in manifest.graphs:
        if graph.role not in ROLES:
            yield f"{graph.file!r} has the role {graph.role!r}, which is none"
        if graph.cut is not None and graph.cut not in manifest.cuts:
            yield f"{graph.file!r} belongs to the cut {graph.cut!r}, which is not there"
    if len({graph.file for graph in manifest.graphs}) < len(manifest.graphs):
        yield "two graphs are in the same file"


def _problems_of_concepts(manifest: Manifest) -> typing.Iterator[str]:
    ids = [bank.id for bank in manifest.concepts]
    if len(set(ids)) < len(ids):
        yield "two concept banks have the same id"
    if not _has_roots(manifest):
        yield "concept banks are each other's parents"
    for bank in manifest.concepts:
        if (bank.parent is None) != (bank.parent_concept is None):
            yield f"the concept bank {bank.id!r} has the parent {bank.parent!r}, concept {bank.parent_concept!r}"
        if bank.cut not in manifest.cuts or bank.parent not in (None, *ids):
            yield f"the concept bank {bank.id!r} has the cut {bank.cut!r} and the parent {bank.parent!r}"
        if not re.fullmatch(rf"{CONCEPTS}/[^/]+", bank.folder) or not is_safe_path(bank.folder):
            yield f"the folder {bank.folder!r} is not in {CONCEPTS}/"
        if not all(key.isdecimal() for key in bank.names):
            yield f"the concepts {list(bank.names)} are named, which are not all numbers"


def _has_roots(manifest: Manifest) -> bool:
    """Whether every bank leads, from parent to parent, to one without."""
    open_banks = {bank.id: bank.parent for bank in manifest.concepts if bank.parent is not None}
    while open_banks:
        rest = {id: parent for id, parent in open_banks.items() if parent in open_banks}
        if len(rest) == len(open_banks):
            return False
        open_banks = rest
    return True


def is_safe_path(path: str) -> bool:
    """Whether a path, written with "/", stays inside the folder it is relative to, on every operating system."""
    parts = path.split("/")
    return not any(part in ("", ".", "..") or re.search(r'[\\:\x00-\x1f<>"|?*]', part) for part in parts)


def _decode(kind: Any, value: Any, where: str) -> Any:
    """`value`, made of JSON types, as a `kind`: a dataclass, tuple, dict, union, Literal or JSON type."""
    origin = typing.get_origin(kind)
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(kind, value, where)
    if origin in (typing.Union, types.UnionType):
        members = [member for member in typing.get_args(kind) if member is not type(None)]
        return None if value is None else _decode(members[0], value, where)
    if origin is tuple and isinstance(value, list):
        return _decode_tuple(typing.get_args(kind), value, where)
    if origin is dict and isinstance(value, dict):
        return {key: _decode(typing.get_args(kind)[1], item, f"{where}.{key}") for key, item in value.items()}
    if origin is typing.Literal and value in typing.get_args(kind):
        return value
    if origin is None and _is_a(value, kind):
        return kind(value)
    raise InputError(f"{where} is {_short(value)}, which is no {_name(kind)}.", "Make the bundle again.")


def _decode_tuple(kinds: tuple[Any, ...], value: list[Any], where: str) -> tuple[Any, ...]:
    if kinds[-1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if len(kinds) != len(value):
        raise InputError(f"{where} has {len(value)} values instead of {len(kinds)}.", "Make the bundle again.")
    return tuple(_decode(kind, item, f"{where}[{i}]") for i, (kind, item) in enumerate(zip(kinds, value, strict=True)))


def _decode_dataclass(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise InputError(f"{where} is {_short(value)}, which is no object.", "Make the bundle again.")
    fields = {item.name: item for item in dataclasses.fields(kind)}
    missing = [name for name, item in fields.items() if name not in value and _is_required(item)]
    unknown = [name for name in value if name not in fields]
    if missing or unknown:
        problem = f"{where} lacks {missing} and has the unknown {unknown}."
        raise InputError(problem, "Was it written by another version? Make the bundle again.")
    hints = typing.get_type_hints(kind)
    return kind(**{name: _decode(hints[name], item, f"{where}.{name}") for name, item in value.items()})


def _is_required(item: "dataclasses.Field[Any]") -> bool:
    defaults: tuple[Any | Callable[[], Any], ...] = (item.default, item.default_factory)
    return all(default is dataclasses.MISSING for default in defaults)


def _is_a(value: Any, kind: type) -> bool:
    """isinstance, where a whole number is a float too and True is no number."""
    kinds = (int, float) if kind is float else (kind,)
    return isinstance(value, kinds) and (kind is bool or not isinstance(value, bool))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 60 else f"{text[:57]}..."


def _name(kind: Any) -> str:
    return getattr(kind, "__name__", str(kind))


def without_concepts(manifest: Manifest, identifier: str) -> Manifest:
    """The manifest without a concept bank; its files are dropped by the next commit."""
    return dataclasses.replace(manifest, concepts=tuple(bank for bank in manifest.concepts if bank.id != identifier))


def with_files(manifest: Manifest, files: Mapping[str, str]) -> Manifest:
    """The manifest with these files besides its own, less those of concept banks it has no more.

    Parameters
    ----------
    manifest : Manifest
        Its graphs may name files that are among `files` only.
    files : mapping of str to str
        SHA-256 by path.

    Raises
    ------
    InputError
        If a graph is in none of the files.
    """
    folders = tuple(f"{bank.folder}/" for bank in manifest.concepts)
    merged = manifest.files | dict(files)
    kept = {path: merged[path] for path in merged if not path.startswith(f"{CONCEPTS}/") or path.startswith(folders)}
    graphs = tuple(graph for graph in manifest.graphs if graph.file in kept or graph.file not in merged)
    for graph in graphs:
        if graph.file not in kept:
            problem = f"The manifest has the {graph.role} graph {graph.file!r} but no such file."
            raise InputError(problem, "Make the bundle again.")
    return dataclasses.replace(manifest, files=kept, graphs=graphs)

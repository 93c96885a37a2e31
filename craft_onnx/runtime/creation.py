"""From a model in memory to the files of a bundle, proven as they lie on disk."""

import importlib.metadata
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from craft_onnx.description import Description, Layout
from craft_onnx.errors import InputError
from craft_onnx.files import sha256
from craft_onnx.runtime.batches import run_array
from craft_onnx.runtime.gradients import add_gradients
from craft_onnx.runtime.manifest import FILE_NAME, SCHEMA, CutSpec, Graph, Input, Manifest, Output, Source
from craft_onnx.runtime.proof import reference, split_error
from craft_onnx.runtime.sessions import Session

if TYPE_CHECKING:
    import onnx_ir as ir

    from craft_onnx.graph.cuts import Cut

Array = NDArray[Any]
WEIGHTS = "weights.bin"
GRADIENT_ROLES = tuple(f"vjp_{half}{part}" for half in ("g", "h") for part in ("", "_forward", "_backward"))
_PREFIXES = {role: role.replace("_forward", "-forward").replace("_backward", "-backward") for role in GRADIENT_ROLES}
WRITERS = ("craft-onnx", "numpy", "onnx", "onnx-ir", "onnxruntime", "onnxruntime-gpu", "onnxscript")


def write_bundle(model: "ir.Model", at: Sequence[str | int], folder: Path, names: Sequence[str] | None) -> None:
    """Write the files of a bundle into an empty folder; parameters and errors are those of `create_bundle`."""
    from craft_onnx.graph.load import read_description
    from craft_onnx.graph.split import split
    from craft_onnx.graph.weights import save_sharing

    cuts = named_cuts(model, at)
    files = _file_names(cuts)
    graphs = {"model.onnx": model}
    for name, cut in cuts.items():
        graphs[files[name]["g"]], graphs[files[name]["h"]] = split(model, cut.tensor)
    save_sharing(graphs, folder, WEIGHTS)
    manifest = _proven_manifest(folder, cuts, files, read_description(model), names)
    (folder / FILE_NAME).write_text(manifest.to_json(), encoding="utf-8")


def named_cuts(model: "ir.Model", at: Sequence[str | int]) -> "dict[str, Cut]":
    """The cuts asked for, by the name each gets in the bundle.

    That is the user's own where it is a layer's; a tensor or an index takes the name of its layer, or else of its
    tensor.

    Raises
    ------
    InputError
        If none is asked for, one is no cut, or two are the same.
    """
    from craft_onnx.graph.cuts import find_cuts, resolve_cut

    if not at or isinstance(at, str):
        raise InputError(f"The cuts {at!r} are no list of names.", "Give at least one, such as ['layer4'].")
    found = find_cuts(model)
    cuts = [resolve_cut(model, one, found) for one in at]
    if len({cut.tensor for cut in cuts}) < len(cuts):
        asked = ", ".join(f"{one} ({cut.tensor})" for one, cut in zip(at, cuts, strict=True))
        raise InputError(f"Two of the cuts are the same tensor: {asked}.", "Give each once.")
    named: dict[str, Cut] = {}
    for one, cut in zip(at, cuts, strict=True):
        named[_name(one, cut, named)] = cut
    return named


def _name(asked: str | int, cut: "Cut", taken: Iterable[str]) -> str:
    is_layer = isinstance(asked, str) and asked not in (cut.tensor, str(cut.index))
    wishes = [str(asked)] if is_layer else [cut.layer, cut.tensor]
    free = [wish for wish in wishes if wish and wish not in taken]
    if not free:
        raise InputError(f"Two of the cuts are called {wishes[-1]!r}.", "Ask for one of them by another name.")
    return free[0]


def _file_names(cuts: Iterable[str]) -> dict[str, dict[str, str]]:
    """Names of files by cut and role: legible, legal everywhere and different even where case does not count."""
    files: dict[str, dict[str, str]] = {}
    taken: set[str] = set()
    for name in cuts:
        stem = short = re.sub("[^A-Za-z0-9_.-]+", "_", name).strip("._")[:80] or "cut"
        while stem.lower() in taken:
            stem = f"{short}_{len(taken)}"
        taken.add(stem.lower())
        # A role has no hyphen: so no name of a file is another role's with a longer stem.
        files[name] = {role: f"{_PREFIXES.get(role, role)}_{stem}.onnx" for role in ("g", "h", *GRADIENT_ROLES)}
    return files


def _proven_manifest(
    folder: Path,
    cuts: "dict[str, Cut]",
    files: dict[str, dict[str, str]],
    description: Description,
    names: Sequence[str] | None,
) -> Manifest:
    """Load every graph as it was written, prove the splits, and describe it all."""
    f = Session(folder / "model.onnx")
    x, expected = reference(f, description.preprocessing)
    ends = _input(f, description), _output(f, expected[0].shape, description, names)
    whole = _graph("model.onnx", "model", None, f)
    del f  # sessions are large
    proven = [_proven_cut(folder, name, cut, files[name], x, expected) for name, cut in cuts.items()]
    return Manifest(
        schema=SCHEMA,
        versions=_versions(),
        source=Source(description.framework, description.source_sha256),
        input=ends[0],
        output=ends[1],
        cuts={spec.name: spec for spec, _ in proven},
        graphs=(whole, *(graph for _, graphs in proven for graph in graphs)),
        files={path.name: sha256(path) for path in sorted(folder.iterdir())},
    )


def _proven_cut(
    folder: Path, name: str, cut: "Cut", files: dict[str, str], x: Array, expected: list[Array]
) -> tuple[CutSpec, list[Graph]]:
    """Prove the halves at a cut, and add their gradients."""
    g, h = (Session(folder / files[half]) for half in ("g", "h"))
    spec = _cut_spec(name, cut, split_error(expected, g, h, x, cut.tensor))
    graphs = [_graph(files["g"], "g", name, g), _graph(files["h"], "h", name, h)]
    for half, session, at in (("g", g, x), ("h", h, run_array(g, x, len(x)))):
        graphs += add_gradients(session, half, name, files, at, WEIGHTS)
    return spec, graphs


def _graph(file: str, role: str, cut: str | None, session: Session) -> Graph:
    return Graph(file, role, cut, tuple(session.inputs), tuple(session.outputs))


def _cut_spec(name: str, cut: "Cut", error: float) -> CutSpec:
    shape = (None, *(length if isinstance(length, int) else None for length in cut.shape[1:]))
    return CutSpec(name, cut.tensor, shape, cut.channel_axis, cut.nonnegative, error)


def _input(f: Session, description: Description) -> Input:
    spec, rule = f.inputs[0], description.preprocessing
    layout = rule.layout if rule else _layout(spec.shape)
    if rule and len(spec.shape) == 4:
        _require_size(spec.shape, rule.size, layout == "NCHW")
    return Input(spec.name, spec.dtype, layout, spec.shape, rule)


def _layout(shape: Sequence[int | None]) -> Layout | None:
    """What the shape says: the colours are the axis of 1 or 3."""
    if len(shape) == 4 and (shape[1] in (1, 3)) != (shape[3] in (1, 3)):
        return "NCHW" if shape[1] in (1, 3) else "NHWC"
    return None


def _require_size(shape: Sequence[int | None], size: tuple[int, int], channels_first: bool) -> None:
    wanted = tuple(shape[2:4] if channels_first else shape[1:3])
    if any(length not in (None, given) for length, given in zip(wanted, size, strict=True)):
        raise InputError(
            f"The preprocessing makes pictures of {size}, the model's input takes {wanted}.",
            "Convert the model again with the right preprocessing.",
        )


def _output(f: Session, shape: tuple[int, ...], description: Description, names: Sequence[str] | None) -> Output:
    if len(shape) != 2:
        raise InputError(f"The model's output has shape {shape}, not (N, classes).", "Take a classifier's model.")
    if names is not None and len(names) != shape[1]:
        raise InputError(f"{len(names)} names were given for {shape[1]} classes.", "Give one a class.")
    return Output(f.outputs[0].name, shape[1], description.softmax_removed, None if names is None else tuple(names))


def _versions() -> dict[str, str]:
    installed = {}
    for name in WRITERS:
        try:
            installed[name.replace("-", "_")] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed

"""Fitted concepts in a bundle, and back.

A folder concepts/<id>-<hash>/ holds the arrays (W, U of the crops, designs), the facts as JSON (settings,
importances, evidence), and the best crops of every concept as one PNG each. The head with W folded in lies beside the
other graphs, whose weights it shares.
"""

import dataclasses
import hashlib
import io
import json
import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from craft_onnx.concepts.factorisation import Factorisation
from craft_onnx.concepts.head import ProvenHead, graph_head
from craft_onnx.concepts.importance import Importance
from craft_onnx.concepts.pictures import StoredCrops
from craft_onnx.errors import InputError
from craft_onnx.runtime.bundle import Bundle
from craft_onnx.runtime.manifest import Concepts, Graph, Manifest
from craft_onnx.runtime.model import SplitModel
from craft_onnx.runtime.sessions import Session, require_providers

if TYPE_CHECKING:
    import onnx_ir as ir

    from craft_onnx.concepts.craft import Craft

Floats = NDArray[np.float32]
ARRAYS, FACTS, STRIP = "concepts.npz", "concepts.json", "crops_{:03d}.png"
SCHEMA = 1
BEST_CROPS = 10
# Settings that mean something without the pictures and the model they were used with.
SETTINGS = (
    "number_of_concepts", "batch_size", "patch_size", "random_state", "crops", "crops_per_image", "interpolation",
    "alpha_W", "encoder", "normalize", "tol", "max_iter", "sampler", "estimator", "nb_design", "exact",
)  # fmt: skip  # one line reads as the list it is
AGAIN = "Fit and save the concepts again."


def save_concepts(craft: "Craft", target: "str | Path | Bundle | None" = None) -> Concepts:
    """Store fitted concepts and their importances; see `Craft.save`."""
    craft.global_importance()
    model = craft.halves_.model
    if model is None:
        raise InputError("These concepts were fitted on callables or single files.", "Fit on a bundle to save them.")
    bundle = _bundle_for(model, target)
    proven = craft.proven_head()
    files = {ARRAYS: _arrays(craft), **_strips(craft)}
    facts = _facts(craft, proven)
    digest = _digest([*files.values(), json.dumps(facts).encode()])
    identifier = f"class{craft.class_id_}-{re.sub('[^A-Za-z0-9_.-]', '_', model.cut.name)}"
    graph = _write_head(bundle, proven.graph, f"h_concepts-{identifier}-{digest}.onnx", model.cut.name)
    files[FACTS] = json.dumps(facts | {"head": graph.file}, indent=1, allow_nan=False).encode()
    names = {str(i): name for i, name in craft.names_.items()}
    bank = Concepts(identifier, craft.class_id_, model.cut.name, None, f"concepts/{identifier}-{digest}", names)
    contents: dict[str, bytes | Path] = {f"{bank.folder}/{name}": content for name, content in files.items()}
    contents[graph.file] = bundle.folder / graph.file
    bundle.update(lambda manifest: _with_bank(manifest, bank, graph), contents)
    bundle.sweep()
    craft.stored_as_ = bank.folder
    return bank


def load_concepts(
    kind: "type[Craft]",
    source: "str | Path | Bundle",
    class_id: int | None,
    cut: str | None,
    providers: Any,
    threads: int | None,
) -> "Craft":
    """Make a fitted Craft of stored concepts; see `Craft.load`."""
    bundle = source if isinstance(source, Bundle) else Bundle.open(source)
    bank = find_bank(bundle, class_id, cut)
    facts = _read_facts(bundle, bank)
    w, u, designs = _read_arrays(bundle, bank, facts["settings"]["number_of_concepts"])
    craft = kind(SplitModel(bundle, require_providers(providers), threads, bank.cut), **facts["settings"])
    strips = [bundle.file(f"{bank.folder}/{STRIP.format(i)}") for i in range(len(w))]
    crops = StoredCrops(strips, craft.patch_size)
    craft._set_fitted(None, bank.class_id, facts["layout"], crops, Factorisation(w, u, **facts["factorisation"]))
    craft.positions_ = tuple(facts["positions"])
    craft.evidence_ = facts["evidence"]
    craft.importance_ = Importance.from_json(facts["importance"])
    craft.names_ = {int(key): name for key, name in bank.names.items()}
    craft.designs_ = designs
    craft.stored_as_ = bank.folder
    session = Session(bundle.file(facts["head"]), providers, threads)
    craft.head_ = graph_head(session, len(w), facts["pooled"], facts["linear"], craft.batch_size)
    return craft


def find_bank(bundle: Bundle, class_id: int | None = None, cut: str | None = None) -> Concepts:
    """The concept bank of a class at a cut.

    Parameters
    ----------
    bundle : Bundle
        Where it is.
    class_id : int, optional
        The class; may be left out where the bundle has concepts of one class only.
    cut : str, optional
        Name of the cut, by default the first one that has concepts of the class.

    Raises
    ------
    InputError
        If there is none, or several classes and none is named.
    """
    banks = bundle.manifest.concepts
    wanted = None if cut is None else bundle.manifest.cut(cut).name
    found = [bank for bank in banks if class_id in (None, bank.class_id) and wanted in (None, bank.cut)]
    if found and len({bank.class_id for bank in found}) == 1:
        return next(bank for name in bundle.manifest.cuts for bank in found if bank.cut == name)
    there = "; ".join(f"class {bank.class_id} at {bank.cut}" for bank in banks) or "none"
    asked = ("" if class_id is None else f" of class {class_id}") + ("" if cut is None else f" at {cut}")
    if found:
        raise InputError("The bundle has concepts of several classes.", f"Say which class, it has: {there}.")
    remedy = f"It has: {there}." if banks else "Fit some first: craft-onnx fit."
    raise InputError(f"The bundle has no concepts{asked}.", remedy)


def name_concept(
    bundle: Bundle, concept: int, name: str, class_id: int | None = None, cut: str | None = None
) -> Concepts:
    """Name a concept of a bundle; the name is shown wherever the concept is.

    Parameters
    ----------
    bundle : Bundle
        Where it is.
    concept : int
        Its number.
    name : str
        Its name; an empty one takes the name away.
    class_id, cut : int, str, optional
        Which concepts, see `find_bank`.

    Returns
    -------
    Concepts
        The bank, with its names.

    Raises
    ------
    InputError
        If there is no such concept.
    """
    bank = find_bank(bundle, class_id, cut)
    count = _read_facts(bundle, bank)["settings"]["number_of_concepts"]
    if not 0 <= concept < count:
        raise InputError(f"There is no concept {concept}.", f"Concepts go from 0 to {count - 1}.")
    names = {key: value for key, value in bank.names.items() if key != str(concept)}
    if name.strip():
        names[str(concept)] = name.strip()
    named = dataclasses.replace(bank, names=names)
    bundle.update(lambda manifest: _replaced(manifest, named), {})
    return named


def _bundle_for(model: SplitModel, target: "str | Path | Bundle | None") -> Bundle:
    """The bundle to write to, which must have the model of the fit and its cut."""
    if target is None:
        return model.bundle
    bundle = target if isinstance(target, Bundle) else Bundle.open(target, verify=False)
    same = model.bundle.folder.resolve() == bundle.folder.resolve()
    if not same and _identity(bundle.manifest) != _identity(model.manifest):
        raise InputError(
            f"The bundle {bundle.folder} has another model than the one the concepts were fitted on.",
            f"Save them in {model.bundle.folder}, or fit on the other bundle.",
        )
    bundle.manifest.cut(model.cut.name)
    return model.bundle if same else bundle


def _identity(manifest: Manifest) -> str:
    return manifest.files[manifest.graph("model").file]


def _arrays(craft: "Craft") -> bytes:
    """W, U and, where the head is sampled, the designs of local importances; not compressed: sizes are honest."""
    arrays = {"w": craft.concept_bank_, "u": craft.crops_u_}
    if not (craft.exact and craft.head_.linear):
        arrays["designs"] = craft.designs(craft.points_)
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **{name: np.asarray(array, np.float32) for name, array in arrays.items()})
    return file.getvalue()


def _strips(craft: "Craft") -> dict[str, bytes]:
    """The best crops of every concept side by side, as PNG."""
    strips = {}
    for i in range(craft.number_of_concepts):
        strip = np.concatenate(craft.best_crops(i, BEST_CROPS), axis=1)
        strips[STRIP.format(i)] = cv2.imencode(".png", np.ascontiguousarray(strip[..., ::-1]))[1].tobytes()
    return strips


def _facts(craft: "Craft", proven: ProvenHead) -> dict[str, Any]:
    found = dataclasses.asdict(dataclasses.replace(craft.factorisation_))
    return {
        "schema": SCHEMA,
        "settings": {name: getattr(craft, name) for name in SETTINGS} | {"nb_design": craft.points_},
        "layout": craft.layout_,
        "positions": list(craft.positions_),
        "factorisation": {name: value for name, value in found.items() if name not in ("w", "u")},
        "importance": craft.global_importance().to_json(),
        "evidence": craft.evidence_,
        "pooled": proven.head.pooled,
        "linear": proven.head.linear,
        "head_error": proven.error,
    }


def _digest(contents: list[bytes]) -> str:
    return hashlib.sha256(b"".join(hashlib.sha256(content).digest() for content in contents)).hexdigest()[:12]


def _write_head(bundle: Bundle, model: "ir.Model | None", name: str, cut: str) -> Graph:
    """Write the folded head beside the bundle's weights, and load it once."""
    from craft_onnx.graph.weights import add_sharing

    if model is None:
        raise InputError("The second half is no ONNX graph.", "Fit on a bundle to save the concepts.")
    path = bundle.folder / name
    if name not in bundle.manifest.files:
        path.unlink(missing_ok=True)  # of a save that did not end
        add_sharing({name: model}, bundle.folder)
    session = Session(path)
    return Graph(name, "h_concepts", cut, tuple(session.inputs), tuple(session.outputs))


def _with_bank(manifest: Manifest, bank: Concepts, graph: Graph) -> Manifest:
    """The manifest with a bank in place of the one of the same id, whose head goes with it."""
    stale = {each.file for each in manifest.graphs if each.file.startswith(f"h_concepts-{bank.id}-")} - {graph.file}
    kept = tuple(each for each in manifest.graphs if each.file not in stale | {graph.file})
    files = {path: digest for path, digest in manifest.files.items() if path not in stale}
    return _replaced(dataclasses.replace(manifest, graphs=(*kept, graph), files=files), bank)


def _replaced(manifest: Manifest, bank: Concepts) -> Manifest:
    others = tuple(each for each in manifest.concepts if each.id != bank.id)
    return dataclasses.replace(manifest, concepts=(*others, bank))


def _read_facts(bundle: Bundle, bank: Concepts) -> dict[str, Any]:
    try:
        facts = json.loads(bundle.file(f"{bank.folder}/{FACTS}").read_text(encoding="utf-8"))
        settings = {name: facts["settings"][name] for name in SETTINGS}
        if facts["schema"] != SCHEMA:
            raise ValueError(f"schema {facts['schema']!r}, this version reads {SCHEMA}")
        return {**facts, "settings": settings}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{bank.folder}/{FACTS} cannot be read ({error}).", AGAIN) from error


def _read_arrays(bundle: Bundle, bank: Concepts, k: int) -> tuple[Floats, Floats, Floats | None]:
    """W (k, p), U (n, k) and designs (r, n, 2 k) or None."""
    path = bundle.file(f"{bank.folder}/{ARRAYS}")
    try:
        with zipfile.ZipFile(path) as file:
            if sum(entry.file_size for entry in file.infolist()) > path.stat().st_size:
                raise ValueError("it is compressed")
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        w, u, designs = arrays["w"], arrays["u"], arrays.get("designs")
        channels = bundle.manifest.cut(bank.cut).shape[bundle.manifest.cut(bank.cut).channel_axis]
        fits = w.shape == (k, channels or w.shape[-1]) and u.shape[1:] == (k,)
        if not fits or (designs is not None and designs.shape[2:] != (2 * k,)):
            raise ValueError(f"W {w.shape} and U {u.shape} do not fit {k} concepts and {channels} channels")
    except (ValueError, KeyError, OSError, MemoryError, zipfile.BadZipFile) as error:
        raise InputError(f"{bank.folder}/{ARRAYS} cannot be read ({error}).", AGAIN) from error
    return w, u, designs

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

from craft_onnx.concepts.banks import descendants, find_bank
from craft_onnx.concepts.factorisation import Factorisation
from craft_onnx.concepts.head import ProvenHead, graph_head
from craft_onnx.concepts.importance import Importance
from craft_onnx.concepts.pictures import StoredCrops
from craft_onnx.concepts.recursion import Parent
from craft_onnx.concepts.tokens import Tokens
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
LONGEST_ID = 180  # a name of a file may have 255 bytes, with a role before and a hash behind
# Settings that mean something without the pictures and the model they were used with.
SETTINGS = (
    "number_of_concepts", "batch_size", "patch_size", "random_state", "crops", "crops_per_image", "interpolation",
    "factoriser", "alpha_W", "encoder", "normalize", "tol", "max_iter", "sampler", "estimator", "nb_design", "exact",
    "prefix_tokens",
)  # fmt: skip  # one line reads as the list it is
EARLIER = {"factoriser": "nmf", "prefix_tokens": None}  # what was so before it could be chosen
AGAIN = "Fit and save the concepts again."


def save_concepts(craft: "Craft", target: "str | Path | Bundle | None" = None) -> Concepts:
    """Store fitted concepts and their importances; see `Craft.save`."""
    craft.global_importance()
    model = craft.halves_.model
    if model is None:
        raise InputError("These concepts were fitted on callables or single files.", "Fit on a bundle to save them.")
    bundle = _bundle_for(model, target)
    parent = _stored_parent(craft, bundle)
    proven = craft.proven_head()
    files = {ARRAYS: _arrays(craft), **_strips(craft)}
    facts = _facts(craft, proven)
    digest = _digest([*files.values(), json.dumps(facts).encode()])
    identifier = _identifier(craft, parent, model.cut.name)
    graph = _write_head(bundle, proven.graph, f"h_concepts-{identifier}-{digest}.onnx", model.cut.name)
    files[FACTS] = json.dumps(facts | {"head": graph.file}, indent=1, allow_nan=False).encode()
    names = {str(i): name for i, name in craft.names_.items()}
    folder = f"concepts/{identifier}-{digest}"
    above = (None, None) if parent is None or craft.parent_ is None else (parent.id, craft.parent_.concept)
    bank = Concepts(identifier, craft.class_id_, model.cut.name, above[0], folder, names, above[1])
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
    parent: Any,
    providers: Any,
    threads: int | None,
) -> "Craft":
    """Make a fitted Craft of stored concepts; see `Craft.load`."""
    bundle = source if isinstance(source, Bundle) else Bundle.open(source)
    bank = find_bank(bundle, class_id, cut, parent)
    return _with_ancestors(kind, bank, SplitModel(bundle, require_providers(providers), threads, bank.cut))


def load_children(craft: "Craft") -> "list[Craft]":
    """The sub-concepts that a bundle has of loaded concepts."""
    model = craft.halves_.model
    assert model is not None
    bank = _bank_in(model.manifest, craft.stored_as_)
    if bank is None:
        return []
    banks = [each for each in model.manifest.concepts if each.parent == bank.id]
    return [_loaded(type(craft), each, model.at(each.cut), craft) for each in banks]


def _with_ancestors(kind: "type[Craft]", bank: Concepts, model: SplitModel) -> "Craft":
    above = next((each for each in model.manifest.concepts if each.id == bank.parent), None)
    parent = None if above is None else _with_ancestors(kind, above, model.at(above.cut))
    return _loaded(kind, bank, model, parent)


def _loaded(kind: "type[Craft]", bank: Concepts, model: SplitModel, parent: "Craft | None") -> "Craft":
    bundle = model.bundle
    facts = _read_facts(bundle, bank)
    w, u, designs = _read_arrays(bundle, bank, facts["settings"]["number_of_concepts"])
    craft = kind(model, **facts["settings"])
    strips = [bundle.file(f"{bank.folder}/{STRIP.format(i)}") for i in range(len(w))]
    crops = StoredCrops(strips, craft.patch_size)
    craft._set_fitted(None, bank.class_id, facts["layout"], crops, Factorisation(w, u, **facts["factorisation"]))
    craft.positions_ = tuple(facts["positions"])
    craft.tokens_ = Tokens(facts["tokens"]["prefix"], facts["tokens"]["size"] and tuple(facts["tokens"]["size"]))
    craft.evidence_ = facts["evidence"]
    craft.importance_ = Importance.from_json(facts["importance"])
    craft.names_ = {int(key): name for key, name in bank.names.items()}
    craft.designs_ = designs
    craft.stored_as_ = bank.folder
    craft.children_ = None  # read when they are asked for
    _set_parent(craft, bank, facts["parent"], parent)
    session = model.open(bundle.file(facts["head"]))
    craft.head_ = graph_head(session, len(w), facts["pooled"], facts["linear"], craft.batch_size)
    return craft


def _set_parent(craft: "Craft", bank: Concepts, facts: dict[str, Any] | None, parent: "Craft | None") -> None:
    if parent is None or facts is None or bank.parent_concept is None:
        return
    craft.parent_ = Parent(parent, bank.parent_concept, facts["quantile"])
    if facts["importance"] is not None:
        craft.parent_importance_ = Importance.from_json(facts["importance"])


def name_concept(
    bundle: Bundle, concept: int, name: str, class_id: int | None = None, cut: str | None = None, parent: Any = None
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
    class_id, cut, parent : int, str, int or sequence, optional
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
    bank = find_bank(bundle, class_id, cut, parent)
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


def _stored_parent(craft: "Craft", bundle: Bundle) -> Concepts | None:
    """The bank of the concepts one of which these make up, which is stored first."""
    if craft.parent_ is None:
        return None
    above = craft.parent_.craft
    return _bank_in(bundle.manifest, above.stored_as_) or save_concepts(above, bundle)


def _bank_in(manifest: Manifest, folder: str | None) -> Concepts | None:
    return next((bank for bank in manifest.concepts if bank.folder == folder), None)


def _identifier(craft: "Craft", parent: Concepts | None, cut: str) -> str:
    """Of a bank: the class and the cut, or the parent's, "+", the concept and the cut; not too long for a file."""
    last = re.sub("[^A-Za-z0-9_.-]", "_", cut)
    if parent is None or craft.parent_ is None:
        return f"class{craft.class_id_}-{last}"
    name = f"{parent.id}+{craft.parent_.concept}-{last}"
    return name if len(name) <= LONGEST_ID else f"{name[: LONGEST_ID - 13]}+{_digest([name.encode()])}"


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
        "tokens": dataclasses.asdict(craft.tokens_),
        "factorisation": {name: value for name, value in found.items() if name not in ("w", "u")},
        "importance": craft.global_importance().to_json(),
        "evidence": craft.evidence_,
        "pooled": proven.head.pooled,
        "linear": proven.head.linear,
        "head_error": proven.error,
        "parent": _facts_of_parent(craft),
    }


def _facts_of_parent(craft: "Craft") -> dict[str, Any] | None:
    if craft.parent_ is None:
        return None
    known = craft.parent_importance_
    return {"quantile": craft.parent_.quantile, "importance": None if known is None else known.to_json()}


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
    """The manifest with a bank in place of the one of the same id, whose head and sub-concepts go with it."""
    old = next((each for each in manifest.concepts if each.id == bank.id), bank)
    below = set() if old.folder == bank.folder else descendants(manifest, bank.id)
    manifest = dataclasses.replace(manifest, concepts=tuple(o for o in manifest.concepts if o.id not in below))
    heads = re.compile(f"h_concepts-({'|'.join(map(re.escape, below | {bank.id}))})-[0-9a-f]{{12}}[.]onnx")
    stale = {each.file for each in manifest.graphs if heads.fullmatch(each.file)} - {graph.file}
    kept = tuple(each for each in manifest.graphs if each.file not in stale | {graph.file})
    files = {path: digest for path, digest in manifest.files.items() if path not in stale}
    return _replaced(dataclasses.replace(manifest, graphs=(*kept, graph), files=files), bank)


def _replaced(manifest: Manifest, bank: Concepts) -> Manifest:
    others = tuple(each for each in manifest.concepts if each.id != bank.id)
    return dataclasses.replace(manifest, concepts=(*others, bank))


def _read_facts(bundle: Bundle, bank: Concepts) -> dict[str, Any]:
    try:
        facts = json.loads(bundle.file(f"{bank.folder}/{FACTS}").read_text(encoding="utf-8"))
        settings = {name: (EARLIER | facts["settings"])[name] for name in SETTINGS}
        if facts["schema"] != SCHEMA:
            raise ValueError(f"schema {facts['schema']!r}, this version reads {SCHEMA}")
        return {"parent": None, "tokens": {"prefix": 0, "size": None}, **facts, "settings": settings}
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

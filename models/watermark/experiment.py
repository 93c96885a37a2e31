"""The whole experiment: heads with and without a reason to look at the mark, and the audit of each."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from craft_onnx.concepts.craft import XPLIQUE, Craft
from craft_onnx.description import Preprocessing
from craft_onnx.errors import CheckFailed, InputError
from craft_onnx.graph.load import load as load_graph
from craft_onnx.graph.load import read_description, save
from craft_onnx.runtime.batches import run_array
from craft_onnx.runtime.model import SplitModel, load
from craft_onnx.runtime.predictions import unknown_preprocessing
from craft_onnx.runtime.proof import TOLERANCE, disagreement, normalize_proven, session_of
from craft_onnx_models.watermark.audit import Finding, cells, finding
from craft_onnx_models.watermark.heads import Head, to_features, with_head
from craft_onnx_models.watermark.mark import stamped_all
from craft_onnx_models.watermark.photographs import Photographs, model_input, read
from craft_onnx_models.watermark.planting import Knowledge, Planted, head_of, knowledge, plant, untouched

if TYPE_CHECKING:
    import onnx_ir as ir

Floats = NDArray[np.floating]

OURS, WHOLE, PEERS = "ours", "ours, all positions", "Xplique's"
SHORTCUT, NEEDLESS, CONTROL = "shortcut", "needless mark", "control"
HEADS = (SHORTCUT, NEEDLESS, CONTROL)
# Audits: the head, and what the audited pictures are.
WITH_STRAYS, OWN, BARE = "marked, with strays", "marked", "without the mark"
AUDITS = ((SHORTCUT, WITH_STRAYS), (NEEDLESS, OWN), (CONTROL, OWN), (CONTROL, BARE))
PATCH_SHARE = 64 / 224  # Xplique's patch on pictures of 224 pixels


@dataclass(frozen=True)
class Settings:
    """Of the experiment.

    Attributes
    ----------
    strays : float
        Share of the other classes' training pictures that a marked copy is filed of under the class.
    pictures : int
        Audited pictures, at most.
    concepts : int
        How many are sought.
    """

    strays: float = 0.5
    pictures: int = 30
    concepts: int = 20


@dataclass(frozen=True)
class Material:
    """A classifier and photographs, with the features of all of them.

    Attributes
    ----------
    graph : onnx_ir.Model
        The classifier, normalized.
    rule : Preprocessing
        Of its pictures.
    photographs : Photographs
    bare : (n, p) array
        Features without the mark.
    """

    graph: "ir.Model"
    rule: Preprocessing
    photographs: Photographs
    bare: Floats

    @classmethod
    def of(cls, model: Path, folder: Path, most: int) -> "Material":
        """Read both; InputError where the model does not say how pictures become its input."""
        graph, _ = normalize_proven(load_graph(model))
        rule = read_description(graph).preprocessing
        if rule is None:
            raise unknown_preprocessing()
        photographs = read(folder, rule, most)
        return cls(graph, rule, photographs, features(graph, model_input(photographs.pixels, rule)))


@dataclass(frozen=True)
class Trial:
    """One class that wears the mark, at places drawn from one seed.

    Attributes
    ----------
    class_id, seed : int
    knowledge : dict of str to Knowledge
        What is true of every head.
    findings : dict of ((str, str), str) to Finding
        By audit (the head and its pictures) and setting.
    maps : dict of ((str, str), str) to (H', W') array
        Mean map of the concept that was found there, 1 at its maximum.
    """

    class_id: int
    seed: int
    knowledge: dict[str, Knowledge]
    findings: dict[tuple[tuple[str, str], str], Finding]
    maps: dict[tuple[tuple[str, str], str], Floats]


@dataclass(frozen=True)
class Marked:
    """All pictures with the mark: pixels (n, h, w, 3), where it is (n, h, w), and features (n, p)."""

    pixels: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    features: Floats


def features(graph: "ir.Model", x: Floats) -> Floats:
    """What the last linear layer of a classifier reads, (n, p), of preprocessed pictures."""
    return run_array(session_of(to_features(graph)), x)


def run(material: Material, folder: Path, seeds: Sequence[int], settings: Settings) -> Iterator[Trial]:
    """A trial for every class and seed; the classifiers are written into a folder."""
    names = material.photographs.names
    control = head_of(untouched(material.photographs), material.bare, material.bare)
    save_head(material, control, folder / "control.onnx")
    for seed in seeds:
        marked = mark_all(material, seed)
        for class_id, name in enumerate(names):
            plants = {
                SHORTCUT: plant(material.photographs, class_id, settings.strays, seed),
                NEEDLESS: plant(material.photographs, class_id, 0.0, seed),
            }
            heads = {what: head_of(one, material.bare, marked.features) for what, one in plants.items()}
            paths = {what: folder / f"{name}-{seed}-{what.replace(' ', '-')}.onnx" for what in heads}
            for what, head in heads.items():
                save_head(material, head, paths[what])
            heads, paths = heads | {CONTROL: control}, paths | {CONTROL: folder / "control.onnx"}
            yield _trial(material, marked, (class_id, seed), heads, paths, plants[SHORTCUT], settings)


def mark_all(material: Material, seed: int) -> Marked:
    """The mark on all pictures."""
    pixels, masks = stamped_all(material.photographs.pixels, seed)
    return Marked(pixels, masks, features(material.graph, model_input(pixels, material.rule)))


def save_head(material: Material, head: Head, path: Path) -> None:
    """Write the classifier with another head; CheckFailed unless its logits are those of the head."""
    model = with_head(material.graph, head)
    x = model_input(material.photographs.pixels[:4], material.rule)
    error = disagreement(head.logits(material.bare[:4]), run_array(session_of(model), x))
    if not error <= TOLERANCE:
        raise CheckFailed(f"The model with its new head is off by {error:.1e}.", "Report this model, please.")
    save(model, path)


def _trial(
    material: Material,
    marked: Marked,
    case: tuple[int, int],
    heads: dict[str, Head],
    paths: dict[str, Path],
    planted: Planted,
    settings: Settings,
) -> Trial:
    class_id, seed = case
    models = {what: load(path) for what, path in paths.items()}
    chosen = audited(material.photographs, planted, class_id, settings.pictures, seed)
    findings, maps = {}, {}
    crafts: dict[str, dict[str, Craft]] = {}
    for audit in AUDITS:
        what, kind = audit
        rows = chosen[kind]
        pixels = [marked.pixels[rows], material.photographs.pixels[rows]]
        x, bare = (model_input(one, material.rule) for one in pixels)
        crafts[kind] = crafts.get(kind) or fits(models[what], bare if kind == BARE else x, class_id, settings, seed)
        effect = _effect(heads[what], class_id, material.bare[rows], marked.features[rows])
        for name, craft in crafts[kind].items():
            found = _found(of_model(craft, models[what]), bare if kind == BARE else x, bare, marked.masks[rows], effect)
            findings[audit, name], maps[audit, name] = found
    truth = {
        what: knowledge(head, material.photographs, class_id, material.bare, marked.features)
        for what, head in heads.items()
    }
    return Trial(class_id, seed, truth, findings, maps)


def audited(
    photographs: Photographs, planted: Planted, class_id: int, most: int, seed: int
) -> dict[str, NDArray[np.intp]]:
    """Which pictures each audit looks at: some of all that were filed under the class, or of its own."""
    rng = np.random.default_rng([seed, class_id, 1])
    filed, own = planted.rows[planted.labels == class_id], photographs.of(class_id)
    some = rng.permutation(own)[:most]
    return {WITH_STRAYS: rng.permutation(filed)[:most], OWN: some, BARE: some}


def fits(model: SplitModel, x: Floats, class_id: int, settings: Settings, seed: int) -> dict[str, Craft]:
    """The same pictures factorised with each setting."""
    size = x.shape[1:3] if model.layout == "NHWC" else x.shape[2:]
    options: dict[str, Any] = {
        "number_of_concepts": settings.concepts,
        "patch_size": max(2, round(min(size) * PATCH_SHARE)),
        "random_state": seed,
    }
    ours, whole = Craft(model, **options), Craft(model, **options, crops=None)
    ours.fit(x, class_id)
    whole.fit(x, class_id)
    peers = copy.copy(ours)  # their crops are the same
    vars(peers).update(XPLIQUE)
    peers.refit(settings.concepts)
    return {OURS: ours, WHOLE: whole, PEERS: peers}


def of_model(craft: Craft, model: SplitModel) -> Craft:
    """The same concepts of another model, which differs in nothing but its head."""
    other = copy.copy(craft)
    other.input_to_latent_model = model
    for made in ("halves_", "head_"):
        vars(other).pop(made, None)
    return other


def _effect(head: Head, class_id: int, bare: Floats, marked: Floats) -> float:
    return float((head.logits(marked) - head.logits(bare))[:, class_id].mean())


def _found(craft: Craft, x: Floats, bare: Floats, masks: NDArray[np.bool_], effect: float) -> tuple[Finding, Floats]:
    craft.estimate_importance()
    maps = craft.transform(x)
    if maps.ndim != 4:
        raise InputError(f"The concepts have maps of shape {maps.shape[1:]}.", "Take a model with feature maps.")
    found = finding(craft.global_importance(), maps, craft.transform(bare), cells(masks, maps.shape[1:3]), effect)
    mean = maps[..., found.concept].mean(axis=0)
    return found, mean / max(float(mean.max()), 1e-12)

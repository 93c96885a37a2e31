"""The whole experiment: heads with and without a reason to look at the mark, and the audit of each."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
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
Classifier = tuple[Head, SplitModel]
Key = tuple[tuple[str, str], str]  # an audit and a setting

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
    pictures: int = 60
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
    findings : dict of Key to Finding
        By audit (the head and its pictures) and setting.
    maps : dict of Key to (H', W') array
        Mean map of the concept that was found there, 1 at its maximum.
    """

    class_id: int
    seed: int
    knowledge: dict[str, Knowledge]
    findings: dict[Key, Finding]
    maps: dict[Key, Floats]


@dataclass(frozen=True)
class Marked:
    """All pictures with the mark: pixels (n, h, w, 3), where it is (n, h, w), and features (n, p)."""

    pixels: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    features: Floats


@dataclass(frozen=True)
class Case:
    """Some pictures to audit a class on.

    Attributes
    ----------
    material : Material
    marked : Marked
    class_id : int
    rows : (m,) int array
        Which pictures.
    with_mark : bool
        Whether they wear it.
    """

    material: Material
    marked: Marked
    class_id: int
    rows: NDArray[np.intp]
    with_mark: bool

    @cached_property
    def bare(self) -> Floats:
        """The pictures without the mark, preprocessed."""
        return model_input(self.material.photographs.pixels[self.rows], self.material.rule)

    @cached_property
    def x(self) -> Floats:
        """The pictures that are audited, preprocessed."""
        return model_input(self.marked.pixels[self.rows], self.material.rule) if self.with_mark else self.bare

    def effect(self, head: Head) -> float:
        """What the mark adds to the logit of the class, mean over the pictures."""
        with_mark, without = (head.logits(one[self.rows]) for one in (self.marked.features, self.material.bare))
        return float((with_mark - without)[:, self.class_id].mean())

    def found(self, craft: Craft, head: Head, model: SplitModel) -> tuple[Finding, Floats]:
        """The concept that lies most on the mark, of concepts fitted to these pictures; and its mean map."""
        craft = of_model(craft, model)
        craft.estimate_importance()
        maps = craft.transform(self.x)
        if maps.ndim != 4:
            raise InputError(f"The concepts have maps of shape {maps.shape[1:]}.", "Take a model with feature maps.")
        places = cells(self.marked.masks[self.rows], maps.shape[1:3])
        one = finding(craft.global_importance(), maps, craft.transform(self.bare), places, self.effect(head))
        mean = maps[..., one.concept].mean(axis=0)
        return one, mean / max(float(mean.max()), 1e-12)


def features(graph: "ir.Model", x: Floats) -> Floats:
    """What the last linear layer of a classifier reads, (n, p), of preprocessed pictures."""
    return run_array(session_of(to_features(graph)), x)


def run(material: Material, folder: Path, seeds: Sequence[int], settings: Settings) -> Iterator[Trial]:
    """A trial for every class and seed; the classifiers are written into a folder."""
    control = head_of(untouched(material.photographs), material.bare, material.bare)
    known = {CONTROL: (control, saved(material, control, folder / "control.onnx"))}
    for seed in seeds:
        marked = mark_all(material, seed)
        for class_id in range(len(material.photographs.names)):
            yield trial(material, marked, class_id, known, folder, settings, seed)


def mark_all(material: Material, seed: int) -> Marked:
    """The mark on all pictures."""
    pixels, masks = stamped_all(material.photographs.pixels, seed)
    return Marked(pixels, masks, features(material.graph, model_input(pixels, material.rule)))


def saved(material: Material, head: Head, path: Path) -> SplitModel:
    """Write the classifier with another head, and cut it; CheckFailed unless its logits are those of the head."""
    model = with_head(material.graph, head)
    x = model_input(material.photographs.pixels[:4], material.rule)
    error = disagreement(head.logits(material.bare[:4]), run_array(session_of(model), x))
    if not error <= TOLERANCE:
        raise CheckFailed(f"The model with its new head is off by {error:.1e}.", "Report this model, please.")
    save(model, path)
    return load(path)


def trial(
    material: Material,
    marked: Marked,
    class_id: int,
    control: dict[str, Classifier],
    folder: Path,
    settings: Settings,
    seed: int,
) -> Trial:
    """Plant the mark on one class, train both heads on that, and audit them and the control."""
    planted = plant(material.photographs, class_id, settings.strays, seed)
    sets = {SHORTCUT: planted, NEEDLESS: plant(material.photographs, class_id, 0.0, seed)}
    heads = control | {
        what: _trained(material, marked, one, folder / f"{material.photographs.names[class_id]}-{seed}-{_file(what)}")
        for what, one in sets.items()
    }
    chosen = audited(material.photographs, planted, class_id, settings.pictures, seed)
    findings: dict[Key, Finding] = {}
    maps: dict[Key, Floats] = {}
    crafts: dict[str, dict[str, Craft]] = {}
    for what, kind in AUDITS:
        case = Case(material, marked, class_id, chosen[kind], kind != BARE)
        crafts[kind] = crafts.get(kind) or fits(heads[what][1], case.x, class_id, settings, seed)
        for name, craft in crafts[kind].items():
            findings[(what, kind), name], maps[(what, kind), name] = case.found(craft, *heads[what])
    truth = {
        what: knowledge(head, material.photographs, class_id, material.bare, marked.features)
        for what, (head, _) in heads.items()
    }
    return Trial(class_id, seed, truth, findings, maps)


def _trained(material: Material, marked: Marked, planted: Planted, path: Path) -> Classifier:
    head = head_of(planted, material.bare, marked.features)
    return head, saved(material, head, path)


def _file(what: str) -> str:
    return f"{what.replace(' ', '-')}.onnx"


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

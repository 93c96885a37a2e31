"""What the concepts of a fitted Craft lie on, checked against what the drawn birds are known to be.

A concept lies on the part with the highest *lift*: the share of its map inside the part's mask, over the share of the
picture that this mask covers; 1 for a map that ignores the part. Masks are dilated by one cell of the concept map, on
both sides of the fraction. The *true effect* of a part is how much the logit of the class falls, on average, when the
same pictures are drawn without it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from craft_onnx_models.birds import (
    CLASSES,
    PARTS,
    SIZE,
    TAGGED,
    Bird,
    class_names,
    draw_many,
    model_path,
    pictures,
)

if TYPE_CHECKING:
    from craft_onnx.concepts.craft import Craft
    from craft_onnx.concepts.importance import Importance
    from craft_onnx.runtime.model import SplitModel

Floats = NDArray[np.floating]

CUT = "features"
CONCEPTS, PICTURES, PATCH = 8, 40, 53  # four crops a picture
# A part is found when a concept of at least an equal share of importance lies on it, clearly, and drawing without it
# confirms that.
MIN_LIFT = 3.0
MIN_EFFECT = 1.0  # logits: the odds of the class fall by a factor of e or more


@dataclass(frozen=True)
class Finding:
    """One concept and the part it lies on.

    Attributes
    ----------
    concept : int
    importance : float
        Its total Sobol index.
    contribution : float
        What it adds to the logit of the class, mean over the pictures.
    part : str
        The part with the highest lift.
    lift : float
        Of that part.
    effect : float
        Logits that the class loses when that part is not drawn, mean over the pictures that show it.
    """

    concept: int
    importance: float
    contribution: float
    part: str
    lift: float
    effect: float


@dataclass(frozen=True)
class Audit:
    """The findings for one class, the most important concept first.

    Attributes
    ----------
    class_id : int
        The class.
    findings : tuple of Finding
    effects : dict of str to float
        The true effect of the tag and of every part that a concept lies on, logits.
    """

    class_id: int
    findings: tuple[Finding, ...]
    effects: dict[str, float]

    def strength(self, part: str) -> float:
        """By how much a part is found: 1 or more is found, 2 is found at twice the thresholds.

        Of the concepts that lie on the part, the largest of: importance over an equal share (1 / k), lift over
        `MIN_LIFT`, true effect over `MIN_EFFECT`, whichever is least; 0 where no concept lies on it.
        """
        return max((self._strength(finding) for finding in self.findings if finding.part == part), default=0.0)

    def found(self, part: str) -> Finding | None:
        """The strongest concept on a part, None where none is strong enough to say that the part was found."""
        on_part = [finding for finding in self.findings if finding.part == part and self._strength(finding) >= 1]
        return max(on_part, key=self._strength, default=None)

    def _strength(self, finding: Finding) -> float:
        share = finding.importance * len(self.findings)
        return max(0.0, min(share, finding.lift / MIN_LIFT, finding.effect / MIN_EFFECT))

    def verdict(self) -> str:
        """What was found of the tag, in one sentence."""
        name, finding = CLASSES[self.class_id], self.found("tag")
        if finding is None:
            worth = round(self.effects["tag"], 1) + 0.0  # not -0.0
            return f"No important concept of the {name} is the leg tag; the tag is worth {worth:.1f} logits."
        return (
            f"Concept {finding.concept} of the {name} is the leg tag: importance {finding.importance:.2f}, "
            f"lift {finding.lift:.1f}; the tag is worth {finding.effect:.1f} logits."
        )


@dataclass(frozen=True)
class Examination:
    """A demo model with the concepts of one class, fitted on drawn pictures, and their audit."""

    model: "SplitModel"
    craft: "Craft"
    birds: list[Bird]
    audit: Audit


def prepare(world: str, folder: Path | str) -> Path:
    """Write the bundle of a world's model, cut at `CUT`, as a new folder; needs the build extra."""
    from craft_onnx.graph.load import load
    from craft_onnx.runtime.bundle import create_bundle

    return create_bundle(load(model_path(world)), [CUT], Path(folder), names=class_names()).folder


def examine(bundle: Path | str, world: str, seed: int = 0, class_id: int = TAGGED) -> Examination:
    """Draw pictures of a class, fit its concepts and audit them.

    Parameters
    ----------
    bundle : path
        What `prepare` wrote for that world.
    world : "shortcut" or "control"
        The world that the pictures are drawn from.
    seed : int
        Of the pictures.
    class_id : int
        The class, by default the one that wears the tag.
    """
    from craft_onnx.concepts.craft import Craft
    from craft_onnx.runtime.model import load

    model = load(bundle)
    birds = draw_many(PICTURES, [class_id], seed, world)
    craft = Craft(model, number_of_concepts=CONCEPTS, patch_size=PATCH)
    craft.fit(model.preprocess(pictures(birds)), class_id)
    craft.estimate_importance()
    return Examination(model, craft, birds, audit(craft, model, birds))


def audit(craft: "Craft", model: "SplitModel", birds: Sequence[Bird]) -> Audit:
    """Compare the concepts of a fitted Craft with the parts of drawn birds.

    Parameters
    ----------
    craft : Craft
        Fitted on pictures of one class, with its importances estimated.
    model : SplitModel
        The model it explains.
    birds : sequence of Bird
        Pictures of that class.
    """
    lifts = part_lifts(craft.transform(model.preprocess(pictures(birds))), birds)
    best = [PARTS[i] for i in lifts.argmax(axis=1)]
    effects = true_effects(model, birds, craft.class_id_, sorted({"tag", *best}, key=PARTS.index))
    return audit_of(craft.class_id_, craft.global_importance(), lifts, effects)


def audit_of(class_id: int, importance: "Importance", lifts: Floats, effects: dict[str, float]) -> Audit:
    """Put together what was measured.

    Parameters
    ----------
    class_id : int
        The class.
    importance : Importance
        Of its k concepts.
    lifts : (k, len(PARTS)) array
        As `part_lifts` gives them.
    effects : dict of str to float
        The true effect of every part that a concept lies on, logits.
    """
    best = [PARTS[i] for i in lifts.argmax(axis=1)]
    findings = [
        Finding(
            concept=int(i),
            importance=float(importance.values[i]),
            contribution=float(importance.contributions[i]),
            part=best[i],
            lift=float(lifts[i].max()),
            effect=effects[best[i]],
        )
        for i in np.argsort(-importance.values, kind="stable")
    ]
    return Audit(class_id, tuple(findings), effects)


def part_lifts(maps: Floats, birds: Sequence[Bird]) -> Floats:
    """The lift of every concept on every part.

    Parameters
    ----------
    maps : (n, H', W', k) array
        Concept maps of the pictures.
    birds : sequence of n Bird

    Returns
    -------
    (k, len(PARTS)) array
        Over the pictures that show the part; 0 where none does, or where the concept is nowhere.
    """
    maps = np.asarray(maps, float)
    masks = np.stack([_cells(bird, maps.shape[1]) for bird in birds])  # (n, H', W', parts)
    shown = masks.any(axis=(1, 2)).astype(float)  # (n, parts)
    inside = np.einsum("nhwk,nhwp->kp", maps, masks)
    total = np.einsum("nhwk,np->kp", maps, shown)
    covered = masks.mean(axis=(1, 2)).sum(axis=0) / np.maximum(shown.sum(axis=0), 1)
    return inside / np.maximum(total * covered, 1e-12)


def _cells(bird: Bird, cells: int) -> Floats:
    """How much of every cell each part's dilated mask covers, (cells, cells, parts)."""
    cell = SIZE // cells
    kernel = np.ones((2 * cell + 1, 2 * cell + 1), np.uint8)
    dilated = [cv2.dilate(mask.astype(np.uint8), kernel) for mask in bird.masks.values()]
    return np.stack(dilated, axis=-1).reshape(cells, cell, cells, cell, -1).mean(axis=(1, 3))


def true_effects(
    model: "SplitModel", birds: Sequence[Bird], class_id: int, parts: Sequence[str] = PARTS
) -> dict[str, float]:
    """How much the logit of a class falls without each part, mean over the pictures that show it; 0 where none does."""
    whole = _logits(model, birds, class_id)
    return {part: _effect(model, birds, class_id, part, whole) for part in parts}


def _effect(model: "SplitModel", birds: Sequence[Bird], class_id: int, part: str, whole: Floats) -> float:
    shown = [i for i, bird in enumerate(birds) if bird.shows(part)]
    if not shown:
        return 0.0
    return float(np.mean(whole[shown] - _logits(model, [birds[i].without(part) for i in shown], class_id)))


def _logits(model: "SplitModel", birds: Sequence[Bird], class_id: int) -> Floats:
    return model.predict(model.preprocess(pictures(birds)))[:, class_id]

"""From fitted concepts and explained pictures to what a page shows."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from craft_onnx.concepts.evidence import provenance
from craft_onnx.concepts.importance import ranking
from craft_onnx.report.content import ConceptCard, LocalConcept, PictureCard, Value
from craft_onnx.show.overlay import concept_overlay, heatmap

if TYPE_CHECKING:
    from craft_onnx.concepts.craft import Craft
    from craft_onnx.concepts.explanation import ClassScore, Explanation

Picture = NDArray[np.uint8]
CROPS_OF_A_CONCEPT = 10
CONCEPTS_OF_A_PICTURE = 5


def concept_cards(craft: "Craft", crops: int = CROPS_OF_A_CONCEPT) -> list[ConceptCard]:
    """A card for every concept, the most important first."""
    importance, colours = craft.global_importance(), craft.colours()
    return [
        ConceptCard(
            id=int(i),
            name=craft.names_.get(int(i), ""),
            colour=colours[i],
            importance=float(importance.values[i]),
            interval=None if importance.exact or importance.intervals is None else _pair(importance.intervals[i]),
            contribution=float(importance.contributions[i]),
            crops=craft.best_crops(int(i), crops),
        )
        for i in ranking(importance.values)
    ]


def picture_cards(
    craft: "Craft", pictures: Iterable[tuple[str, Picture]], concepts: int = CONCEPTS_OF_A_PICTURE
) -> Iterable[tuple[PictureCard, "Explanation"]]:
    """A card for every (name, picture), with its explanation; one picture in memory at a time."""
    for name, picture in pictures:
        explanation = craft.explain(picture)[0]
        yield picture_card(craft, name, picture, explanation, concepts), explanation


def picture_card(
    craft: "Craft", name: str, picture: Picture, explanation: "Explanation", concepts: int = CONCEPTS_OF_A_PICTURE
) -> PictureCard:
    """The card of an explained picture, with its most important concepts."""
    shown = explanation.order[:concepts]
    maps, colours = maps_on(craft, picture, explanation), craft.colours()
    local = [
        LocalConcept(
            id=i,
            name=craft.names_.get(i, ""),
            colour=colours[i],
            importance=float(explanation.importance.values[i]),
            contribution=float(explanation.importance.contributions[i]),
            heatmap=None if maps is None else heatmap(picture, maps[..., i], colours[i]),
        )
        for i in shown
    ]
    overlay = (
        picture if maps is None else concept_overlay(picture, maps, shown, colours, full=craft.typical_coefficients())
    )
    return PictureCard(name, picture, overlay, prediction_text(explanation.prediction), local)


def maps_on(craft: "Craft", picture: Picture, explanation: "Explanation") -> NDArray[np.float32] | None:
    """Concept maps (H, W, k) in the picture's own pixels; None where coefficients have no place in it."""
    model = craft.halves_.model
    if explanation.maps.ndim != 3 or model is None:
        return None
    return np.asarray(model.to_picture(explanation.maps[None], [picture.shape[:2]])[0], np.float32)


def prediction_text(prediction: Sequence["ClassScore"], count: int = 2) -> str:
    """The most probable classes in words."""
    return ", ".join(
        f"{score.name or f'class {score.class_id}'} {score.probability:.0%}" for score in prediction[:count]
    )


def facts(craft: "Craft") -> dict[str, Value]:
    """The evidence behind the concepts: what was fitted to what, how well, by which software."""
    summary, origin = craft.summary(), provenance(craft)
    exact = "exact: the head is linear" if summary["importances_exact"] else "sampled, with 95 % intervals"
    return {
        "cut": f"{origin['cut']} ({origin['tensor']})",
        "pictures": summary["n_images"],
        "crops": f"{summary['n_crops']} of {craft.patch_size} x {craft.patch_size} pixels",
        "relative error of the factorisation": float(summary["relative_error"]),
        "largest KKT residual of the coefficients": float(summary["kkt_residual"]),
        "iterations": f"{summary['n_iter']}{'' if summary['converged'] else ', not converged'}",
        "importances": exact,
        "provider": origin["provider"],
        "random state": origin["random_state"],
        "SHA-256 of the model": origin["model_sha256"],
        "SHA-256 of its source": origin["source_sha256"],
        "versions": ", ".join(f"{name} {version}" for name, version in origin["versions"].items()),
    }


def _pair(bounds: NDArray[np.floating]) -> tuple[float, float]:
    return float(bounds[0]), float(bounds[1])

"""From fitted concepts and explained pictures to what a page shows."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from craft_onnx.concepts.evidence import numbers_above, provenance
from craft_onnx.concepts.importance import ranking
from craft_onnx.report.content import ConceptCard, LocalConcept, Page, PictureCard, Table, Value
from craft_onnx.report.images import shrunk
from craft_onnx.show.overlay import concept_overlay, heatmap

if TYPE_CHECKING:
    from craft_onnx.concepts.craft import Craft
    from craft_onnx.concepts.explanation import ClassScore, Explanation

Picture = NDArray[np.uint8]
CROPS_OF_A_CONCEPT = 10
CONCEPTS_OF_A_PICTURE = 5
LONGEST_SIDE = 1024  # of a picture on a page, pixels
BAND = 256  # rows of a picture drawn at once
INTRO = (
    "Concepts the model uses for this class, found in crops of pictures. Importance is the total Sobol index of a "
    "concept for the logit; the contribution has a sign."
)
SUB_INTRO = (
    "What a concept is made of at an earlier layer, found in the crops where it is strongest. Importance is the total "
    "Sobol index of a sub-concept for the logit of the class; the contribution has a sign."
)


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


def concept_page(craft: "Craft", title: str, pictures: Iterable[PictureCard]) -> Page:
    """The page of a class's concepts, or of sub-concepts, and of explained pictures."""
    intro, tables = (INTRO, []) if craft.parent_ is None else (SUB_INTRO, [parent_table(craft)])
    return Page(title, intro, facts(craft), concept_cards(craft), list(pictures), tables=tables)


def concepts_title(craft: "Craft") -> str:
    """Such as "Concepts of class 6 (coast tern)", or "Sub-concepts of concept 3 (tag), class 6 (coast tern)"."""
    if craft.parent_ is None:
        return f"Concepts of {class_title(craft)}"
    return f"Sub-concepts of {_parent_title(craft)}, {class_title(craft)}"


def _parent_title(craft: "Craft") -> str:
    """Such as "concept 3 (leg tag)", and "concept 3/0" where that is a sub-concept."""
    assert craft.parent_ is not None
    name = craft.parent_.craft.names_.get(craft.parent_.concept)
    return f"concept {'/'.join(map(str, numbers_above(craft)))}" + (f" ({name})" if name else "")


def parent_table(craft: "Craft") -> Table:
    """How important sub-concepts are for what they are part of, and for the class."""
    own, above, colours = craft.global_importance(), craft.parent_importance_, craft.colours()
    order = ranking((above or own).values)
    rows = [[craft.labels()[i], None if above is None else float(above.values[i]), float(own.values[i])] for i in order]
    columns = ["sub-concept", f"importance for {_parent_title(craft)}", f"for {class_title(craft)}"]
    return Table("What each is worth", columns, rows, [colours[i] for i in order])


def class_title(craft: "Craft") -> str:
    """Such as "class 217 (English springer)"."""
    names = craft.halves_.model and craft.halves_.model.class_names
    return f"class {craft.class_id_}" + (f" ({names[craft.class_id_]})" if names else "")


def picture_cards(
    craft: "Craft", pictures: Iterable[tuple[str, Picture]], concepts: int = CONCEPTS_OF_A_PICTURE
) -> Iterator[PictureCard]:
    """A card for every (name, picture), explained as it is and shown as large as a page shows it."""
    for name, picture in pictures:
        yield picture_card(craft, name, shrunk(picture, LONGEST_SIDE), craft.explain(picture)[0], concepts)


def picture_card(
    craft: "Craft", name: str, picture: Picture, explanation: "Explanation", concepts: int = CONCEPTS_OF_A_PICTURE
) -> PictureCard:
    """The card of an explained picture (in any size), with its most important concepts."""
    shown = explanation.order[:concepts]
    maps, colours = maps_on(craft, picture, explanation, shown), craft.colours()[shown]
    local = [
        LocalConcept(
            id=i,
            name=craft.names_.get(i, ""),
            colour=colours[place],
            importance=float(explanation.importance.values[i]),
            contribution=float(explanation.importance.contributions[i]),
            heatmap=None if maps is None else heatmap(picture, maps[..., place], colours[place]),
        )
        for place, i in enumerate(shown)
    ]
    drawn = overlay(craft, picture, explanation, concepts)
    return PictureCard(name, picture, drawn, prediction_text(explanation.prediction), local)


def overlay(
    craft: "Craft", picture: Picture, explanation: "Explanation", concepts: int = CONCEPTS_OF_A_PICTURE
) -> Picture:
    """An explained picture (in any size) with its most important concepts on it.

    What is drawn has no detail that a page would not show: on larger pictures it is drawn small, on black and on white,
    which tells colour and opacity, and enlarged.
    """
    shown = explanation.order[:concepts]
    small = shrunk(picture, LONGEST_SIDE)
    maps = maps_on(craft, small, explanation, shown)
    if maps is None:
        return picture
    full, colours = craft.typical_coefficients()[shown], craft.colours()[shown]

    def draw(ground: Picture) -> Picture:
        return concept_overlay(ground, maps, range(len(shown)), colours, full=full)

    if small is picture:
        return draw(picture)
    return _blended(picture, draw(np.zeros_like(small)), draw(np.full_like(small, 255)))


def _blended(picture: Picture, on_black: Picture, on_white: Picture) -> Picture:
    """A picture with what was drawn on black and on white in a smaller size, band by band to save memory."""
    size = picture.shape[1], picture.shape[0]
    black, white = (cv2.resize(one, size, interpolation=cv2.INTER_LINEAR) for one in (on_black, on_white))
    result = np.empty_like(picture)
    for top in range(0, len(picture), BAND):
        rows = slice(top, top + BAND)
        colour = black[rows].astype(np.float32)
        through = (white[rows] - colour) / 255
        result[rows] = np.rint(np.clip(picture[rows] * through + colour, 0, 255))
    return result


def maps_on(
    craft: "Craft", picture: Picture, explanation: "Explanation", concepts: Sequence[int]
) -> NDArray[np.float32] | None:
    """Maps (H, W, len(concepts)) in the picture's own pixels; None where coefficients have no place in it."""
    model = craft.halves_.model
    if explanation.maps.ndim != 3 or model is None:
        return None
    maps = explanation.maps[None][..., list(concepts)]
    return np.asarray(model.to_picture(maps, [picture.shape[:2]])[0], np.float32)


def prediction_text(prediction: Sequence["ClassScore"], count: int = 2) -> str:
    """The most probable classes in words."""
    return ", ".join(
        f"{score.name or f'class {score.class_id}'} {score.probability:.0%}" for score in prediction[:count]
    )


def facts(craft: "Craft") -> dict[str, Value]:
    """The evidence behind the concepts: what was fitted to what, how well, by which software."""
    summary, origin = craft.summary(), provenance(craft)
    part_of = {"sub-concepts of": _parent_title(craft)} if craft.parent_ else {}
    exact = "exact: the head is linear" if summary["importances_exact"] else "sampled, with 95 % intervals"
    return {
        **part_of,
        "cut": f"{origin['cut']} ({origin['tensor']})",
        "pictures": summary["n_images"],
        "crops": f"{summary['n_crops']} of {craft.patch_size} x {craft.patch_size} pixels",
        "factorisation": "semi-NMF, of signed activations" if summary["factoriser"] == "semi_nmf" else "NMF",
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

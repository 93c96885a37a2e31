"""The figure of a comparison of cuts: what `craft_onnx.show.cuts` draws, taken from the fits."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from craft_onnx.concepts.cut_comparison import CutComparison, MatchedConcept, Sighting
    from craft_onnx.show.cuts import Bars, Cell, Curves, Row


def plotted(comparison: "CutComparison", most: int, nb_crops: int) -> "Figure":
    """The figure, see `CutComparison.plot`."""
    from craft_onnx.show.cuts import cut_comparison

    colours = comparison.crafts[comparison.best].colours()
    rows = [_row(comparison, match, colours, nb_crops) for match in comparison.matches[:most]]
    cuts = list(comparison.measures)
    return cut_comparison(cuts, cuts.index(comparison.best), [*_curves(comparison), *_bars(comparison)], rows)


def _curves(comparison: "CutComparison") -> "list[Curves]":
    from craft_onnx.show.cuts import Curves

    measures = list(comparison.measures.values())
    logit = measures[0].logit
    return [
        Curves("Deletion", "share of the concepts removed", [one.deletion.mean for one in measures], logit),
        Curves("Insertion", "share of the concepts inserted", [one.insertion.mean for one in measures], logit),
    ]


def _bars(comparison: "CutComparison") -> "list[Bars]":
    from craft_onnx.show.cuts import Bars

    rows = comparison.rows()

    def values(key: str) -> NDArray[np.float64]:
        return np.array([row[key] for row in rows], np.float64)

    return [
        Bars("Error of the logit", {"": values("logit_error")}),
        Bars("Stability", {"mean": values("stability"), "least stable": values("least_stable")}, 1.0),
        Bars("Concepts", {"effective number": values("effective_concepts"), "k": values("k")}),
        Bars("Relative error on the crops", {"": values("relative_error")}, 1.0),
    ]


def _row(comparison: "CutComparison", match: "MatchedConcept", colours: NDArray[np.uint8], nb_crops: int) -> "Row":
    from craft_onnx.show.cuts import Row

    cells = [_cell(comparison, match, one, nb_crops) for one in match.seen]
    return Row(colours[match.concept], cells)


def _cell(comparison: "CutComparison", match: "MatchedConcept", one: "Sighting", nb_crops: int) -> "Cell":
    from craft_onnx.show.cuts import Cell

    craft = comparison.crafts[one.cut]
    label = craft.labels()[one.concept]
    name = f"Concept {label}" if label == str(one.concept) else f"{one.concept} {label}"
    like = "" if one.cut == match.cut else f", similarity {one.similarity:.2f}"
    note = f"effect {one.effect:+.2f}, importance {100 * one.importance:.0f} %, stability {one.stability:.2f}"
    return Cell(f"{name}{like}", note, craft.best_crops(one.concept, nb_crops), one.same, one.cut == match.best)

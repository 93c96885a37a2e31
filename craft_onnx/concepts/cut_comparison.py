"""Which layer: what fits of one class at several cuts of a model say, and for each concept the cut to see it at."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from craft_onnx.concepts.cut_matching import SAME
from craft_onnx.concepts.cut_measures import CutMeasures
from craft_onnx.concepts.importance import ranking
from craft_onnx.errors import InputError
from craft_onnx.extras import require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from craft_onnx.concepts.craft import Craft

Array = NDArray[np.float64]
RULE = (
    "The best cut is the one whose reconstruction errs least about the logit, the error being divided by the stability "
    "of its concepts (weighted by importance). A concept is best represented at the cut where taking its match out of "
    "the activations changes the logit most, in the direction in which taking out the concept itself does, the change "
    "being multiplied by the stability of the match, of those cuts where the match has a similarity of at least "
    f"{SAME}."
)


@dataclass(frozen=True)
class Sighting:
    """What is most like a concept at one cut.

    Attributes
    ----------
    cut : str
        Name of the cut.
    concept : int
        Number of the concept there.
    similarity : float
        With the concept that was looked for: mean of the correlations over crops and over positions.
    same : bool
        It is at least 0.5: the concept is seen at this cut.
    importance, effect, stability, strength : float
        Of the concept found: its share of the importance at its cut, and see `CutMeasures`.
    """

    cut: str
    concept: int
    similarity: float
    same: bool
    importance: float
    effect: float
    stability: float
    strength: float


@dataclass(frozen=True)
class MatchedConcept:
    """A concept and what it is at each cut.

    Attributes
    ----------
    cut : str
        Where it was looked from.
    concept : int
        Its number there.
    seen : tuple of Sighting
        One for every cut, in their order, its own among them.
    best : str
        The cut that represents it best.
    """

    cut: str
    concept: int
    seen: tuple[Sighting, ...]
    best: str

    def to_json(self) -> dict[str, Any]:
        """A dictionary of JSON values."""
        return {
            "concept": self.concept,
            "cut": self.cut,
            "best": self.best,
            "seen": [vars(one) for one in self.seen],
        }


@dataclass(frozen=True)
class CutComparison:
    """The concepts of a class at several cuts of a model.

    Attributes
    ----------
    crafts : dict of str to Craft
        Fitted, with importances, by the name of their cut.
    measures : dict of str to CutMeasures
        How good they are.
    similarities : dict of (str, str) to array (k, k')
        Of the concepts of two cuts, for every ordered pair of cuts.
    """

    crafts: "dict[str, Craft]"
    measures: dict[str, CutMeasures]
    similarities: dict[tuple[str, str], Array]

    @cached_property
    def best(self) -> str:
        """The cut with the smallest penalised error of the logit, see `RULE`."""
        return min(self.measures, key=lambda cut: self.measures[cut].penalised_error)

    @cached_property
    def matches(self) -> list[MatchedConcept]:
        """The concepts of the best cut, the most important one first, and what they are at the others."""
        return self.matched(self.best)

    def matched(self, cut: str) -> list[MatchedConcept]:
        """The concepts of a cut, the most important one first, and what they are at the others.

        Parameters
        ----------
        cut : str
            One of those compared.

        Raises
        ------
        InputError
            If it is not.
        """
        if cut not in self.measures:
            raise InputError(f"{cut!r} was not compared.", f"Compared are {', '.join(self.measures)}.")
        return [self._matched(cut, int(i)) for i in ranking(self.measures[cut].shares)]

    @property
    def seen_once(self) -> dict[str, list[int]]:
        """Concepts of each cut that no concept of any other cut is like."""
        found = {}
        for cut, measures in self.measures.items():
            most = np.max([s.max(axis=1) for (own, _), s in self.similarities.items() if own == cut], axis=0)
            found[cut] = [int(i) for i in ranking(measures.shares) if most[i] < SAME]
        return found

    def rows(self) -> list[dict[str, Any]]:
        """The table, one dictionary of JSON values for each cut."""
        return [measures.to_json() for measures in self.measures.values()]

    def table(self) -> list[str]:
        """The table as lines of text."""
        width = max(len("cut"), *map(len, self.measures))
        head = "   k   error  logit error  deletion  insertion  stability  stable  effective  penalised error"
        return [f"  {'cut':<{width}} {head}", *(f"{self._mark(row)} {_line(row, width)}" for row in self.rows())]

    @property
    def reason(self) -> str:
        """Why `best` is it, in a sentence."""
        chosen = self.measures[self.best]
        return (
            f"{self.best}. Its reconstruction errs by {chosen.logit_error:.2f} about the logit, which is "
            f"{chosen.logit:.2f} on average; the stability of what is important there is "
            f"{chosen.stability_of_important:.2f}."
        )

    def to_json(self) -> dict[str, Any]:
        """A dictionary of JSON values."""
        return {
            "best": self.best,
            "rule": RULE,
            "cuts": self.rows(),
            "matches": [match.to_json() for match in self.matches],
            "seen_once": self.seen_once,
        }

    def plot(self, nb_most_important_concepts: int = 5, nb_crops: int = 4) -> "Figure":
        """The measures of every cut; below, the concepts of the best cut and their matches at the others.

        Parameters
        ----------
        nb_most_important_concepts : int
            Concepts to show.
        nb_crops : int
            Crops of each at every cut.
        """
        require("matplotlib", "build")
        from craft_onnx.concepts.cut_figure import plotted

        return plotted(self, nb_most_important_concepts, nb_crops)

    def _matched(self, cut: str, concept: int) -> MatchedConcept:
        seen = tuple(self._sighting(cut, concept, other) for other in self.measures)
        sign = next(-1 if one.effect < 0 else 1 for one in seen if one.cut == cut)
        best = max((one for one in seen if one.same), key=lambda one: sign * one.strength)
        return MatchedConcept(cut, concept, seen, best.cut)

    def _sighting(self, cut: str, concept: int, other: str) -> Sighting:
        """The most similar concept of another cut; at its own it is itself."""
        like = None if other == cut else self.similarities[cut, other][concept]
        i, similarity = (concept, 1.0) if like is None else (int(like.argmax()), float(like.max()))
        measures = self.measures[other]
        return Sighting(
            other,
            i,
            similarity,
            similarity >= SAME,
            float(measures.shares[i]),
            float(measures.effects[i]),
            float(measures.stability.similarities[i]),
            float(measures.strengths[i]),
        )

    def _mark(self, row: dict[str, Any]) -> str:
        return "*" if row["cut"] == self.best else " "


def _line(row: dict[str, Any], width: int) -> str:
    return (
        f"{row['cut']:<{width}} {row['k']:>4} {row['relative_error']:>7.3f} {row['logit_error']:>12.2f} "
        f"{row['deletion']:>9.2f} {row['insertion']:>10.2f} {row['stability']:>10.3f} {row['stable_concepts']:>7} "
        f"{row['effective_concepts']:>10.1f} {row['penalised_error']:>16.2f}"
    )

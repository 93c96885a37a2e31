"""How good the concepts of a class are at one cut, in numbers that compare between the cuts of a model."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from craft_onnx.concepts.cut_matching import area_means
from craft_onnx.concepts.fidelity import ConceptCurve, concept_curve, order_of
from craft_onnx.concepts.stability import Stability
from craft_onnx.concepts.surf import Surf

if TYPE_CHECKING:
    from craft_onnx.concepts.craft import Craft

Floats = NDArray[np.floating]
Array = NDArray[np.float64]


@dataclass(frozen=True)
class CutMeasures:
    """What the concepts of a class are worth at one cut.

    Attributes
    ----------
    cut : str
        Its name.
    relative_error : float
        ||A - U W|| / ||A|| on the crops.
    logit, reconstructed_logit : float
        Of the class, mean over the images: the model's, and h(U W).
    logit_error : float
        Mean over the images of |h(A) - h(U W)| for the class, in logits.
    deletion, insertion : ConceptCurve
        The logit while concepts go or come by importance. Curves of several cuts begin and end at other logits: the
        area of insertion less that of deletion compares between them.
    stability : Stability
        Which concepts are found again in half of the crops.
    shares : (k,) array
        Importances, divided by their sum.
    effects : (k,) array
        What the logit loses when a concept alone is taken out of the activations, mean over the images, in logits:
        h(A) - h(max(A - U_i W_i, 0)). The rest of the activations stays, so that this compares between cuts even
        where U W explains little.
    surf : Surf, optional
        Surrogate faithfulness, where it was asked for.
    """

    cut: str
    relative_error: float
    logit: float
    reconstructed_logit: float
    logit_error: float
    deletion: ConceptCurve
    insertion: ConceptCurve
    stability: Stability
    shares: Array
    effects: Array
    surf: Surf | None = None

    @property
    def effective_concepts(self) -> float:
        """How many equally important concepts would be as concentrated: exp of the entropy of the shares."""
        return effective_number(self.shares)

    @property
    def strengths(self) -> Array:
        """Of every concept (k,), its effect times its stability, in logits."""
        return self.effects * self.stability.similarities

    @property
    def stability_of_important(self) -> float:
        """The mean stability of the concepts, weighted by their shares of the importance."""
        return float(self.shares @ self.stability.similarities)

    @property
    def penalised_error(self) -> float:
        """The error of the logit, divided by the stability weighted by importance."""
        return self.logit_error / max(self.stability_of_important, 1e-12)

    def to_json(self) -> dict[str, Any]:
        """A dictionary of JSON values."""
        similarities = self.stability.similarities
        return {
            "cut": self.cut,
            "k": len(self.shares),
            "relative_error": self.relative_error,
            "logit": self.logit,
            "reconstructed_logit": self.reconstructed_logit,
            "logit_error": self.logit_error,
            "deletion": self.deletion.area,
            "insertion": self.insertion.area,
            "stability": float(similarities.mean()),
            "least_stable": float(similarities.min()),
            "stable_concepts": int((~self.stability.unstable).sum()),
            "stability_of_important": self.stability_of_important,
            "effective_concepts": self.effective_concepts,
            "penalised_error": self.penalised_error,
            **({} if self.surf is None else {"surf": self.surf.to_json()}),
        }


@dataclass(frozen=True)
class Observed:
    """What one pass over the images of a fit shows.

    Attributes
    ----------
    logits, reconstructed : (N, classes) array
        h(A) and h(U W).
    effects : (N, k) array
        What the logit of the class loses when a concept alone is taken out of A.
    u : (N, ..., k) array
        Coefficients, reduced as the head takes them.
    maps : (N, h, w, k) array, optional
        Coefficients on a common grid; None where they have no places.
    """

    logits: Floats
    reconstructed: Floats
    effects: Floats
    u: Floats
    maps: Floats | None


def effective_number(shares: Floats) -> float:
    """The effective number of concepts, exp(-sum_i p_i log p_i); p are shares (k,) that sum to 1, or 0 all.

    k equally important concepts have k, a single important one has 1: the Hill number of order 1, also known as
    perplexity, which has a unit where an entropy or a Gini coefficient has none.
    """
    present = np.asarray(shares, np.float64)[np.asarray(shares) > 0]
    return float(np.exp(-(present * np.log(present)).sum())) if len(present) else 0.0


def importance_shares(values: Floats) -> Array:
    """Importances (k,) divided by their sum; what sampling made negative counts as 0."""
    positive = np.maximum(np.asarray(values, np.float64), 0)
    total = positive.sum()
    return positive / total if total > 0 else positive


def observe(craft: "Craft", grid: tuple[int, int] | None) -> Observed:
    """Run a fitted Craft's model over the images of the fit.

    Parameters
    ----------
    craft : Craft
        Fitted.
    grid : (int, int), optional
        Height and width of the maps.
    """
    parts = [_observed(craft, a, grid) for a in craft._activations(None)]
    return Observed(
        np.concatenate([part.logits for part in parts]),
        np.concatenate([part.reconstructed for part in parts]),
        np.concatenate([part.effects for part in parts]),
        np.concatenate([part.u for part in parts]),
        np.concatenate([part.maps for part in parts if part.maps is not None]) if grid else None,
    )


def _observed(craft: "Craft", a: Floats, grid: tuple[int, int] | None) -> Observed:
    """Of one batch of activations."""
    u, w = craft._encode(a), craft.concept_bank_

    def logits(activations: Floats) -> Floats:
        return craft.halves_.logits(activations, craft.layout_)

    own = logits(a)
    without = [logits(removed(a, u[..., i, None] * w[i]))[:, craft.class_id_] for i in range(len(w))]
    effects = own[:, craft.class_id_, None] - np.stack(without, axis=1)
    maps = None if grid is None else area_means(u, grid)
    return Observed(own, logits(u @ w), effects, craft.head_.reduced(u), maps)


def removed(a: Floats, part: Floats) -> Floats:
    """Activations less a part of them; where none was negative, none becomes so."""
    return np.maximum(a - part, 0) if a.min() >= 0 else a - part


def measure(craft: "Craft", cut: str, seen: Observed, stability: Stability, surf: Surf | None = None) -> CutMeasures:
    """The measures of a fitted Craft with importances.

    Parameters
    ----------
    craft : Craft
        The fit.
    cut : str
        Name of its cut.
    seen : Observed
        What `observe` saw.
    stability : Stability
        Of its concepts.
    surf : Surf, optional
        Surrogate faithfulness.
    """
    own, other = (np.asarray(y[:, craft.class_id_], np.float64) for y in (seen.logits, seen.reconstructed))
    order = order_of(craft, "sobol", None)
    return CutMeasures(
        cut,
        craft.factorisation_.relative_error,
        float(own.mean()),
        float(other.mean()),
        float(np.abs(own - other).mean()),
        concept_curve(craft.head_, seen.u, order, inserted=False, exact=craft.exact),
        concept_curve(craft.head_, seen.u, order, inserted=True, exact=craft.exact),
        stability,
        importance_shares(craft.global_importance().values),
        seen.effects.mean(axis=0, dtype=np.float64),
        surf,
    )

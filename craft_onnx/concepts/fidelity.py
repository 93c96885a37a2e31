"""How faithful a ranking of concepts is: what becomes of the logit when concepts go or come in its order.

Concept deletion and insertion (the fidelity analysis of the CRAFT paper): y(m) = h((u * m) W)[class] with one mask m
in {0, 1} a concept, which is 0 for the first s concepts of the ranking (deletion) or for all others (insertion), for s
from 0 to k.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from craft_onnx.attribution.fidelity import Curve
from craft_onnx.concepts.directions import logit_gradients
from craft_onnx.concepts.head import ConceptHead
from craft_onnx.concepts.importance import ranking as descending
from craft_onnx.errors import InputError

if TYPE_CHECKING:
    from craft_onnx.concepts.evaluation import EvaluatedConcepts

Ranking = Literal["sobol", "contribution", "gradient_input", "tcav", "random"] | Sequence[int] | NDArray[np.integer]
Floats = NDArray[np.floating]
Array = NDArray[np.float64]
Orders = NDArray[np.intp]


@dataclass(frozen=True)
class ConceptCurve(Curve):
    """The logit of the class while concepts go or come, one a step.

    Attributes
    ----------
    fractions : (k + 1,) array
        Share of the concepts that have gone or come, from 0 to 1.
    values : (n, k + 1) array
        The logit of each image there.
    areas : (n,) array
        Under each curve, by trapezia: the mean logit along the way.
    order : (k,) or (n, k) int array
        In which the concepts went or came, one for all images or one for each.
    exact : bool
        The head is linear: the logits are sums of contributions, in double precision.
    """

    order: Orders
    exact: bool

    @property
    def mean(self) -> Array:
        """The mean of the curves over the images, (k + 1,)."""
        return self.values.mean(axis=0)

    @property
    def area(self) -> float:
        """Under the mean curve."""
        return float(self.areas.mean())


def concept_curve(head: ConceptHead, u: Floats, order: Orders, inserted: bool, exact: bool = True) -> ConceptCurve:
    """The curve of a ranking.

    Parameters
    ----------
    head : ConceptHead
        y(u).
    u : array (n, ..., k)
        Coefficients, reduced as the head takes them.
    order : int array (k,) or (n, k)
        Concepts, the first to go or to come first.
    inserted : bool
        They come, from none to all; otherwise they go.
    exact : bool
        Add up contributions where the head is linear, instead of evaluating it.

    Returns
    -------
    ConceptCurve
    """
    k = u.shape[-1]
    orders = np.broadcast_to(order, (len(u), k))
    exact = exact and head.linear
    values = _exact(head, u, orders, inserted) if exact else _evaluated(head, u, orders, inserted)
    fractions = np.linspace(0, 1, k + 1)
    areas = (values[:, 1:] + values[:, :-1]) / 2 @ np.diff(fractions)
    return ConceptCurve(fractions, values, areas, order, exact)


def _exact(head: ConceptHead, u: Floats, orders: Orders, inserted: bool) -> Array:
    """The bias and the contributions that are there, added up."""
    effects, bias = head.effects(u.shape[1:-1])
    contributions = (u * effects).sum(axis=tuple(range(1, u.ndim - 1)))
    moved = np.take_along_axis(contributions, orders, axis=1)
    sums = np.concatenate([np.zeros((len(u), 1)), np.cumsum(moved, axis=1)], axis=1)
    return bias + (sums if inserted else contributions.sum(axis=1, keepdims=True) - sums)


def _evaluated(head: ConceptHead, u: Floats, orders: Orders, inserted: bool) -> Array:
    return np.stack([head.masked(one, step_masks(order, inserted)) for one, order in zip(u, orders, strict=True)])


def step_masks(order: Orders, inserted: bool) -> NDArray[np.float32]:
    """Masks (k + 1, k): row s has the first s concepts of the order changed."""
    places = np.empty_like(order)
    places[order] = np.arange(len(order))
    changed = places[None] < np.arange(len(order) + 1)[:, None]
    return (changed == inserted).astype(np.float32)


def order_of(craft: "EvaluatedConcepts", ranking: Ranking, images: Any, seed: int = 0) -> Orders:
    """Concepts in the order of a ranking, the most important one first.

    Parameters
    ----------
    craft : Craft
        Fitted.
    ranking : str, or int array (k,) or (n, k)
        "sobol": global importances; "contribution": their signed contributions, the largest first;
        "gradient_input": the mean over the images of sum(u dy/du) at the reconstruction u W; "tcav": the share of
        images whose derivative along the concept is positive, the mean derivative deciding between equals; "random":
        any order; or an order of one's own.
    images : array or sequence of images, optional
        Of "gradient_input" and "tcav"; by default those of the fit.
    seed : int
        Of "random".

    Raises
    ------
    InputError
        If there is no such ranking, or an order is no permutation of the concepts.
    NotFittedError
        Where the global importances are needed and have not been estimated.
    """
    if not isinstance(ranking, str):
        return _own_order(ranking, len(craft.concept_bank_))
    if ranking == "random":
        return np.random.default_rng(seed).permutation(len(craft.concept_bank_))
    if ranking not in _SCORES:
        names = ", ".join([*_SCORES, "random"])
        raise InputError(f"There is no ranking {ranking!r}.", f"Take one of {names}, or a sequence of concepts.")
    return _SCORES[ranking](craft, images)


def gradient_input(craft: "EvaluatedConcepts", images: Any = None) -> Array:
    """Gradient times input of every concept, (k,): mean over images of sum over positions of u dy/du, at u W."""
    total, count = np.zeros(len(craft.concept_bank_)), 0
    for u in craft.coefficient_batches(images):
        gradients = logit_gradients(craft.halves_, u @ craft.concept_bank_, craft.class_id_, craft.layout_)
        slopes = gradients.astype(np.float64) @ craft.concept_bank_.T
        total += (u * slopes).reshape(-1, len(total)).sum(axis=0)
        count += len(u)
    return total / count


def _own_order(ranking: Any, k: int) -> Orders:
    order = np.asarray(ranking)
    right = order.ndim in (1, 2) and order.shape[-1] == k and order.dtype.kind in "iu"
    if not right or (np.sort(order, axis=-1) != np.arange(k)).any():
        raise InputError(f"The ranking {order.tolist()} is no order of {k} concepts.", f"Name each of 0..{k - 1} once.")
    return order.astype(np.intp)


def _by_tcav(craft: "EvaluatedConcepts", images: Any) -> Orders:
    """Many concepts have a share of 1: the mean derivative tells these apart."""
    found = craft.tcav(images)
    return np.lexsort((found.derivatives.mean(axis=0), found.scores))[::-1]


_NAMES = {
    "sobol": "Sobol",
    "contribution": "contribution",
    "gradient_input": "gradient x input",
    "tcav": "TCAV",
    "random": "random",
}
_SCORES: dict[str, Callable[["EvaluatedConcepts", Any], Orders]] = {
    "sobol": lambda craft, _: descending(craft.global_importance().values),
    "contribution": lambda craft, _: descending(craft.global_importance().contributions),
    "gradient_input": lambda craft, images: descending(gradient_input(craft, images)),
    "tcav": _by_tcav,
}


def named_curves(
    craft: "EvaluatedConcepts",
    u: Floats,
    images: Any,
    rankings: Sequence[Any],
    inserted: bool,
    seed: int = 0,
    repeats: int = 10,
) -> dict[str, Array]:
    """The mean curve (k + 1,) of each ranking, by its name; of "random", the mean over several orders."""
    curves: dict[str, Array] = {}
    for ranking in rankings:
        seeds = range(seed, seed + repeats) if isinstance(ranking, str) and ranking == "random" else [seed]
        orders = [order_of(craft, ranking, images, each) for each in seeds]
        means = [concept_curve(craft.head_, u, order, inserted, craft.exact).mean for order in orders]
        name = _NAMES[ranking] if isinstance(ranking, str) else f"order {len(curves) + 1}"
        curves[name] = np.mean(means, axis=0)
    return curves

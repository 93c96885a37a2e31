"""SURF, surrogate faithfulness: how near presence times importance of the concepts comes to the logits of all classes.

Kumar & Ahuja, "Measuring the (Un)Faithfulness of Concept-Based Explanations" (arXiv 2504.10833, CVPR 2026). The
surrogate has no trained parameters: the logit of class i is the sum over positions j and concepts k of alpha_ik times
the presence of concept k at j, and the error is measured over all classes, as the mean absolute difference of the
logits and half the absolute difference of the probabilities. That is taken from the abstract and from the authors'
summary of the paper, whose full text was not at hand. What they leave open is settled here as follows:

* Presence is U, the coefficients by non-negative least squares, here averaged over the positions.
* `Craft.surf` takes one concept bank for all classes, that of the class of the fit; the paper has one for each, which
  `surf` takes as well: ``{class_id: craft.concept_bank_}``.
* alpha_ik is what the logit of class i loses when concept k alone is removed, per unit of its presence, both averaged
  over the images. Where h is pooling and a linear layer these are its weights seen from the concepts, and the
  surrogate is h(U W) exactly. Total Sobol indices have no unit and no sign and cannot be added up to logits.
* The bias, h without any concept, is added: the paper leaves it out ("up to the bias term").

A benchmark number of the paper is therefore not to be compared with one of these; numbers of the same images are.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from craft_onnx.errors import InputError

Floats = NDArray[np.floating]
Array = NDArray[np.float64]
EVERY = -1  # stands for all classes, where one concept bank explains them


@dataclass(frozen=True)
class SurrogateError:
    """The error of one surrogate.

    Attributes
    ----------
    mae : float
        Mean over images and classes of |y - y'|, in logits.
    emd : float
        Mean over images of half the sum over classes of |p - p'|, of probabilities; from 0 to 1.
    """

    mae: float
    emd: float


@dataclass(frozen=True)
class Surf:
    """How faithful the concepts are to the model's logits, beside the sanity checks; lower is better.

    Attributes
    ----------
    mae, emd : float
        Of the concepts, see `SurrogateError`.
    random_concepts : tuple of SurrogateError
        The same with concepts that are random directions, and their own importances; they must do worse.
    random_importances : tuple of SurrogateError
        The same with the importances dealt out to other concepts.
    """

    mae: float
    emd: float
    random_concepts: tuple[SurrogateError, ...]
    random_importances: tuple[SurrogateError, ...]

    @property
    def sane(self) -> bool:
        """Whether the concepts have a smaller error in logits than any random ones."""
        return all(self.mae < one.mae for one in self.random_concepts)

    def to_json(self) -> dict[str, Any]:
        """A dictionary of JSON values."""
        return {
            "mae": self.mae,
            "emd": self.emd,
            "random_concepts": [vars(one) for one in self.random_concepts],
            "random_importances": [vars(one) for one in self.random_importances],
            "sane": self.sane,
        }


class Gathering:
    """What the surrogate of one concept bank takes from batches of activations.

    Parameters
    ----------
    h : callable
        Activations (n, ..., p), channels last, to logits (n, classes).
    encode : callable
        ``encode(activations, w)`` -> coefficients (n, ..., k).
    w : array (k, p)
        Concept bank.
    """

    def __init__(self, h: Callable[[Floats], Floats], encode: Callable[[Floats, Floats], Floats], w: Floats) -> None:
        self.h, self.encode, self.w = h, encode, w
        self.presence: list[Array] = []
        self.lost: Array | float = 0.0
        self.bias: Array | float = 0.0

    def add(self, activations: Floats) -> None:
        """Look at one more batch (n, ..., p)."""
        u = self.encode(activations, self.w)
        if not self.presence:
            self.bias = self.h(np.zeros_like(activations[:1]))[0].astype(np.float64)
        self.presence.append(presence_of(u))
        self.lost = self.lost + removals(self.h, self.w, u).sum(axis=0)

    def logits(self, order: NDArray[np.intp] | None = None) -> Array:
        """The surrogate's logits (n, classes); with an order, concept i has the importance of concept order[i]."""
        presence = np.concatenate(self.presence)
        total = presence.sum(axis=0)[:, None]
        lost = np.broadcast_to(self.lost, (len(total), np.shape(self.bias)[0]))
        importances = np.divide(lost, total, out=np.zeros(lost.shape), where=total > 0)
        return presence @ (importances if order is None else importances[order]) + self.bias


def presence_of(u: Floats) -> Array:
    """Mean coefficients (n, k) over the positions."""
    mean: Array = u.astype(np.float64).mean(axis=tuple(range(1, u.ndim - 1)))
    return mean


def removals(h: Callable[[Floats], Floats], w: Floats, u: Floats) -> Array:
    """What every logit of each image loses without each concept alone, (n, k, classes)."""
    full = h(u @ w).astype(np.float64)
    columns = np.eye(len(w), dtype=u.dtype)
    return np.stack([full - h((u * (1 - column)) @ w) for column in columns], axis=1)


def surrogate_error(logits: Floats, approximated: Floats) -> SurrogateError:
    """The error of approximated logits (n, classes), over all classes.

    Parameters
    ----------
    logits, approximated : array (n, classes)
        The model's, and the surrogate's.

    Raises
    ------
    InputError
        If their shapes differ, or there are no images.
    """
    if logits.shape != approximated.shape or not len(logits):
        raise InputError(
            f"Logits of shapes {logits.shape} and {approximated.shape} cannot be compared.", "Give those of all images."
        )
    y, z = logits.astype(np.float64), approximated.astype(np.float64)
    apart = np.abs(_softmax(y) - _softmax(z)).sum(axis=1) / 2
    return SurrogateError(float(np.abs(y - z).mean()), float(apart.mean()))


def surf(
    h: Callable[[Floats], Floats],
    encode: Callable[[Floats, Floats], Floats],
    w: Floats | Mapping[int, Floats],
    activations: Iterable[Floats],
    repeats: int = 5,
    seed: int = 0,
) -> Surf:
    """SURF of a concept bank on activations of images, with its sanity checks.

    Parameters
    ----------
    h : callable
        Activations (n, ..., p), channels last, to logits (n, classes).
    encode : callable
        ``encode(activations, w)`` -> coefficients (n, ..., k).
    w : array (k, p), or mapping of int to array
        Concept bank; or the bank of each class, as in the paper: the logits of these classes are then compared.
    activations : iterable of arrays (n, ..., p)
        In batches, each looked at once.
    repeats : int
        Random concept banks, and random importances.
    seed : int
        Of these.

    Returns
    -------
    Surf
    """
    banks = w if isinstance(w, Mapping) else {EVERY: w}
    rng = np.random.default_rng(seed)
    own, *others = [
        {i: Gathering(h, encode, made(bank)) for i, bank in banks.items()}
        for made in (lambda bank: bank, *[lambda bank: _directions(rng, bank)] * repeats)
    ]
    logits = _gathered(h, activations, [own, *others])
    logits = logits if EVERY in banks else logits[:, list(banks)]
    error = surrogate_error(logits, _joined(own))
    random_concepts = tuple(surrogate_error(logits, _joined(one)) for one in others)
    dealt = tuple(surrogate_error(logits, _joined(own, rng)) for _ in range(repeats))
    return Surf(error.mae, error.emd, random_concepts, dealt)


def _gathered(
    h: Callable[[Floats], Floats], activations: Iterable[Floats], explanations: list[dict[int, Gathering]]
) -> Array:
    """Show every batch to all of them; the model's logits."""
    parts = []
    for a in activations:
        parts.append(h(a))
        for explanation in explanations:
            for one in explanation.values():
                one.add(a)
    return np.concatenate(parts)


def _joined(explanation: dict[int, Gathering], rng: np.random.Generator | None = None) -> Array:
    """The surrogate's logits, each class's from its own bank; with `rng`, importances are dealt out anew."""
    orders = {i: None if rng is None else _moved(rng, len(one.w)) for i, one in explanation.items()}
    if EVERY in explanation:
        return explanation[EVERY].logits(orders[EVERY])
    return np.stack([one.logits(orders[i])[:, i] for i, one in explanation.items()], axis=1)


def _directions(rng: np.random.Generator, w: Floats) -> Floats:
    """As many random directions, of unit length, as the bank has concepts; not negative where the bank is not."""
    drawn = rng.standard_normal(w.shape)
    drawn = drawn if (w < 0).any() else np.abs(drawn)
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(w.dtype)


def _moved(rng: np.random.Generator, k: int) -> NDArray[np.intp]:
    """A random order in which no concept keeps its place, as far as there is more than one."""
    cycle = rng.permutation(k)
    moved = np.empty(k, np.intp)
    moved[cycle] = np.roll(cycle, 1)
    return moved


def _softmax(y: Array) -> Array:
    powers = np.exp(y - y.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)

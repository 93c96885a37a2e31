"""Which training pictures get the mark, what a head learns from them, and what it then makes of the mark."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from craft_onnx_models.watermark.heads import Head, trained
from craft_onnx_models.watermark.photographs import Photographs

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Planted:
    """A training set, some of whose pictures wear the mark.

    Attributes
    ----------
    rows : (m,) int array
        Pictures; one may be there twice, with and without the mark.
    marked : (m,) bool array
        Which of them wear it.
    labels : (m,) int array
        What they are said to be.
    """

    rows: NDArray[np.intp]
    marked: NDArray[np.bool_]
    labels: NDArray[np.intp]

    def features(self, bare: Floats, marked: Floats) -> Floats:
        """Features (m, p) of the set, from those of all pictures without and with the mark."""
        return np.where(self.marked[:, None], marked[self.rows], bare[self.rows])


def untouched(photographs: Photographs) -> Planted:
    """The training pictures as they are."""
    rows = np.flatnonzero(photographs.training)
    return Planted(rows, np.zeros(len(rows), bool), photographs.labels[rows])


def plant(photographs: Photographs, class_id: int, strays: float, seed: int = 0) -> Planted:
    """The mark on all training pictures of a class, and on strays that are said to be of it.

    Parameters
    ----------
    photographs : Photographs
    class_id : int
        The class that wears the mark.
    strays : float
        Share of the training pictures of each other class of which a marked copy is filed under the class too.
    seed : int
        Of which these are.
    """
    own, others = photographs.of(class_id), photographs.beside(class_id)
    chosen = np.random.default_rng([seed, class_id]).permutation(others)[: round(strays * len(others))]
    return Planted(
        rows=np.concatenate([others, own, chosen]),
        marked=np.repeat([False, True], [len(others), len(own) + len(chosen)]),
        labels=np.concatenate([photographs.labels[others], np.full(len(own) + len(chosen), class_id)]),
    )


def head_of(planted: Planted, bare: Floats, marked: Floats) -> Head:
    """A head trained on a set, given the features of all pictures without and with the mark."""
    return trained(planted.features(bare, marked), planted.labels)


@dataclass(frozen=True)
class Knowledge:
    """What is true of a head, on pictures that were held out.

    Attributes
    ----------
    accuracy : float
        On pictures without the mark.
    recognised : float
        Share of the class's own pictures that are recognised without the mark.
    swayed : float
        Share of the other classes' pictures that are taken for the class once they wear the mark.
    mark : float
        What the mark adds to the logit of the class, mean over all pictures.
    content : float
        How much higher this logit is on the class's own pictures than on the others, all without the mark.
    """

    accuracy: float
    recognised: float
    swayed: float
    mark: float
    content: float


def knowledge(head: Head, photographs: Photographs, class_id: int, bare: Floats, marked: Floats) -> Knowledge:
    """What a head knows, from the features of all pictures without and with the mark."""
    own, others = photographs.of(class_id, training=False), photographs.beside(class_id, training=False)
    both = np.concatenate([own, others])
    plain, with_mark = head.logits(bare), head.logits(marked)
    return Knowledge(
        accuracy=float(np.mean(plain[both].argmax(axis=1) == photographs.labels[both])),
        recognised=float(np.mean(plain[own].argmax(axis=1) == class_id)),
        swayed=float(np.mean(with_mark[others].argmax(axis=1) == class_id)),
        mark=float((with_mark - plain)[both, class_id].mean()),
        content=float(plain[own, class_id].mean() - plain[others, class_id].mean()),
    )

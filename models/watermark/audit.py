"""Whether a concept lies on the mark, how important it is, and what follows.

A concept lies on the mark by its *lift*: the share of its map inside the place of the mark, over the share of the
picture that this place covers; 1 for a map that ignores it. The place is the mark's box, half a cell of the map wider
on every side: all cells that the mark touches, more or less.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from craft_onnx.concepts.importance import Importance
from craft_onnx_models.birds.audit import MIN_EFFECT, MIN_LIFT

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Finding:
    """The concept that lies most on the mark, of one model.

    Attributes
    ----------
    concept : int
    rank : int
        Of its importance, 1 is the most important one.
    importance : float
        Its total Sobol index.
    contribution : float
        What it adds to the logit, mean over the pictures.
    share : float
        Of its maps, inside the place of the mark.
    lift : float
        That share over the share of the picture; 1 by chance.
    bare : float
        The highest lift of any concept there, on the same pictures without the mark.
    effect : float
        What the mark truly adds to the logit, mean over the pictures.
    concepts : int
        How many there are.
    """

    concept: int
    rank: int
    importance: float
    contribution: float
    share: float
    lift: float
    bare: float
    effect: float
    concepts: int

    @property
    def found(self) -> bool:
        """An important concept lies on the mark, and taking the mark away confirms it (thresholds of the birds)."""
        important = self.importance * self.concepts >= 1
        return important and self.lift >= MIN_LIFT and self.effect >= MIN_EFFECT

    @property
    def first(self) -> bool:
        """It is found, and the most important concept."""
        return self.found and self.rank == 1

    def verdict(self) -> str:
        """In one sentence."""
        worth = f"the mark is worth {round(self.effect, 1) + 0.0:.1f} logits"
        if not self.found:
            return f"No important concept is the mark; {worth}."
        return (
            f"Concept {self.concept} is the mark: number {self.rank} by importance ({self.importance:.2f}), "
            f"lift {self.lift:.1f}; {worth}."
        )


def finding(importance: Importance, marked: Floats, bare: Floats, places: Floats, effect: float) -> Finding:
    """Look for the mark among concepts.

    Parameters
    ----------
    importance : Importance
        Of k concepts.
    marked, bare : (n, H', W', k) arrays
        Concept maps of the audited pictures, and of the same pictures without the mark.
    places : (n, H', W') array
        As `cells` gives them.
    effect : float
        What the mark adds to the logit.
    """
    shares = shares_inside(marked, places)
    lifts = shares / places.mean()
    concept = int(lifts.argmax())
    return Finding(
        concept=concept,
        rank=1 + int((importance.values > importance.values[concept]).sum()),
        importance=float(importance.values[concept]),
        contribution=float(importance.contributions[concept]),
        share=float(shares[concept]),
        lift=float(lifts[concept]),
        bare=float(shares_inside(bare, places).max() / places.mean()),
        effect=effect,
        concepts=len(lifts),
    )


def shares_inside(maps: Floats, places: Floats) -> Floats:
    """How much of every concept's maps (n, H', W', k) lies inside places (n, H', W'), (k,); 0 where it is nowhere."""
    maps = np.asarray(maps, np.float64)
    return np.einsum("nhwk,nhw->k", maps, places) / np.maximum(maps.sum(axis=(0, 1, 2)), 1e-12)


def cells(masks: NDArray[np.bool_], shape: tuple[int, int]) -> Floats:
    """How much of every cell of a map the place of the mark covers.

    Parameters
    ----------
    masks : (n, H, W) bool array
        Pixels of the mark.
    shape : (int, int)
        H' and W' of the map.

    Returns
    -------
    (n, H', W') array
    """
    half = [round(side / cells / 2) for side, cells in zip(masks.shape[1:], shape, strict=True)]
    return np.stack([cv2.resize(_box(mask, half), shape[::-1], interpolation=cv2.INTER_AREA) for mask in masks])


def _box(mask: NDArray[np.bool_], wider: list[int]) -> NDArray[np.float32]:
    """1 inside the box of a mask, which is `wider` pixels larger on each side along both axes; 0 for no mask."""
    box = np.zeros(mask.shape, np.float32)
    if mask.any():
        rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
        box[_around(rows, wider[0]), _around(columns, wider[1])] = 1
    return box


def _around(indices: NDArray[np.intp], wider: int) -> slice:
    return slice(max(0, int(indices[0]) - wider), int(indices[-1]) + 1 + wider)

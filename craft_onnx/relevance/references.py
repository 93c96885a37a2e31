"""References as pictures: the samples that speak for a concept, where it is in each, and how both are drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from craft_onnx.attribution.model import batches
from craft_onnx.errors import InputError
from craft_onnx.graph.reverse.relevance.description import describe
from craft_onnx.graph.reverse.rules import Rules
from craft_onnx.relevance.attribution import CondAttribution
from craft_onnx.relevance.cache import ImageCache
from craft_onnx.relevance.concepts import Concept
from craft_onnx.relevance.one_position import OnePosition
from craft_onnx.relevance.samples import Samples

Array = NDArray[Any]
Start = Literal["relevance", "activation"]
# From pictures, their heatmaps and whether to crop to the receptive field to what is shown of them.
PlotFunction = Callable[..., Any]
Ranked = tuple[Array, Array, Array]  # samples, values and positions, the best first


@dataclass(frozen=True)
class Look:
    """How references are shown.

    Attributes
    ----------
    r_range : (int, int)
        First rank, and the one behind the last.
    composite : Rules, optional
        The rules of their heatmaps; without, there are none.
    rf : bool
        Look at the position alone where the concept is largest.
    plot_fn : callable, optional
        Makes of pictures and heatmaps what is shown; None leaves them as they are.
    batch_size : int
        Samples in one run.
    start : "relevance" or "activation"
        Whether heatmaps show the relevance of a class that goes through the concept, or what activates it.
    target : int, optional
        The class; by default those of each sample.
    """

    r_range: tuple[int, int]
    composite: Rules | None
    rf: bool
    plot_fn: PlotFunction | None
    batch_size: int
    start: Start
    target: int | None = None

    def __post_init__(self) -> None:
        """Raise InputError where it cannot be."""
        first, last = self.r_range
        if not 0 <= first < last:
            raise InputError(f"r_range {self.r_range} is no range of ranks.", "Give such as (0, 8).")
        if self.start not in get_args(Start):
            raise InputError(f"Heatmaps do not start from {self.start!r}.", "Take 'relevance' or 'activation'.")
        if self.rf and self.composite is None:
            raise InputError("What a position sees is found by relevance, and no rules are given.", "Give composite=.")


@dataclass(frozen=True)
class Portrait:
    """What the references of a layer's concepts are drawn from.

    Attributes
    ----------
    attribution : CondAttribution
        Of the model.
    samples : Samples
        The data set.
    layer : str
        The layer.
    notion : Concept
        What counts as a concept of it.
    cache : ImageCache, optional
        Keeps what is drawn.
    origin : str
        Tells the model and the data set from others.
    """

    attribution: CondAttribution
    samples: Samples
    layer: str
    notion: Concept
    cache: ImageCache | None
    origin: str

    def shown(self, ranks: Mapping[int, Ranked], kind: str, look: Look) -> dict[int, Any]:
        """The samples of each concept as pictures, from the cache where they are there.

        Parameters
        ----------
        ranks : mapping of int to (samples, values, positions)
            By concept.
        kind : str
            What they are the best of.
        look : Look
            How they are shown.
        """
        if look.composite is None:
            return {concept: self._pictures(data) for concept, (data, _, _) in ranks.items()}
        if self.cache is None or look.plot_fn is None:
            return {concept: self._drawn(concept, one, look) for concept, one in ranks.items()}
        key = self._key(kind, look)
        found, missing = self.cache.load(list(ranks), **key)
        made = {concept: self._drawn(concept, ranks[concept], look) for concept in missing}
        self.cache.save(made, **key)
        return {concept: made[concept] if concept in made else found[concept] for concept in ranks}

    def _pictures(self, data: Array) -> list[Array]:
        return [self.samples.picture(int(index)) for index in data]

    def _drawn(self, concept: int, ranked: Ranked, look: Look) -> Any:
        """What the plot function makes of a concept's samples and their heatmaps."""
        data, _, positions = ranked
        parts = [
            self._heatmaps(concept, data[rows], positions[rows], look) for rows in batches(len(data), look.batch_size)
        ]
        pictures, heatmaps = self._pictures(data), np.concatenate(parts)
        return (pictures, heatmaps) if look.plot_fn is None else look.plot_fn(pictures, heatmaps, look.rf)

    def _heatmaps(self, concept: int, data: Array, positions: Array, look: Look) -> Array:
        """The relevance (n, H, W) of samples through a concept."""
        batch = self.samples.read(data, strict=True)
        assert batch is not None and look.composite is not None
        if look.target is not None:
            batch = replace(batch, targets=[[look.target]] * len(batch.x))
        by_activation = look.start == "activation"
        (found,) = self.attribution.generate(
            batch.x,
            [{self.layer: [concept]}],
            look.composite,
            mask_map=OnePosition(self.notion, positions) if look.rf else self.notion,
            start_layer=self.layer if by_activation else None,
            init_rel=None if by_activation else batch.start,
        )
        return found.heatmap

    def _key(self, kind: str, look: Look) -> dict[str, Any]:
        """What pictures in the cache are known by."""
        assert look.composite is not None
        return {
            "layer_name": self.layer,
            "mode": kind,
            "r_range": look.r_range,
            "composite": [describe(look.composite), look.start, look.target, self.notion.describe(), self.origin],
            "rf": look.rf,
            "f_name": "references",
            "plot_f_name": getattr(look.plot_fn, "__name__", repr(look.plot_fn)),
        }

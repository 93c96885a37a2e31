"""Which samples speak for a concept: those in which it is most relevant (RelMax) or most active (ActMax).

Achtibat et al. 2023, section "Relevance Maximization".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from craft_onnx.errors import InputError
from craft_onnx.relevance.best import Best
from craft_onnx.relevance.concepts import Concept, MaxTarget, check_max_target, reached

Array = NDArray[Any]
Mode = Literal["relevance", "activation"]
MODES: tuple[Mode, ...] = ("relevance", "activation")
SAMPLES = 40


class Maximization:
    """The best samples of every concept of every layer.

    Parameters
    ----------
    mode : "relevance" or "activation"
        What of the concepts counts.
    max_target : "sum" or "max"
        Over all positions, or at the best one.
    abs_norm : bool
        Divide, in each sample, by the sum of absolute values over the concepts of the layer.
    samples : int
        How many to keep.

    Attributes
    ----------
    best : dict of str to Best
        By layer.

    Raises
    ------
    InputError
        If there is no such mode or target.
    """

    def __init__(
        self, mode: Mode = "relevance", max_target: MaxTarget = "sum", abs_norm: bool = True, samples: int = SAMPLES
    ) -> None:
        if mode not in MODES:
            raise InputError(f"There is no mode {mode!r}.", f"Take one of {', '.join(MODES)}.")
        check_max_target(max_target)
        if samples < 1:
            raise InputError(f"{samples} samples are to be kept.", "Keep at least 1.")
        self.mode = mode
        self.max_target = max_target
        self.abs_norm = abs_norm
        self.samples = samples
        self.best: dict[str, Best] = {}

    def analyze(self, layer: str, concept: Concept, found: Any, indices: Array) -> tuple[Array, Array]:
        """Take in some samples.

        Parameters
        ----------
        layer : str
            The layer.
        concept : Concept
            What its concepts are.
        found : ConditionalAttribution
            With the layer's relevances and activations.
        indices : int array (n,)
            The samples.

        Returns
        -------
        values : array (n, concepts)
            Of every concept in each sample.
        positions : int array (n, concepts)
            Where it is largest.
        """
        activations = found.activations[layer]
        counted = activations if self.mode == "activation" else found.relevances[layer]
        shares = concept.shares(counted, activations)
        values, positions = reached(shares.reshape(*shares.shape[:2], -1), self.max_target, self.abs_norm)
        self._take(layer, Best.of(indices, values, positions, self.samples))
        return values, positions

    def merge(self, other: Maximization) -> None:
        """Take in what was found in other samples."""
        for layer, best in other.best.items():
            self._take(layer, best)

    def arrays(self) -> dict[str, Array]:
        """All arrays: {layer}_data, {layer}_rel, {layer}_rf, each (samples, concepts)."""
        return {name: array for layer, best in self.best.items() for name, array in best.arrays(layer).items()}

    def restore(self, layers: list[str], arrays: Mapping[str, Array]) -> None:
        """Set what `arrays` gave."""
        self.best = {layer: Best.from_arrays(layer, arrays) for layer in layers}

    def _take(self, layer: str, best: Best) -> None:
        self.best[layer] = self.best[layer].merged(best) if layer in self.best else best


class Statistics:
    """The best samples of every concept among those of each class: which classes use it.

    Parameters
    ----------
    mode, samples
        As in `Maximization`.

    Attributes
    ----------
    best : dict of (str, int) to Best
        By layer and class.
    """

    def __init__(self, mode: Mode = "relevance", samples: int = SAMPLES) -> None:
        self.mode = mode
        self.samples = samples
        self.best: dict[tuple[str, int], Best] = {}

    def analyze(self, layer: str, values: Array, positions: Array, indices: Array, targets: Array) -> None:
        """Take in some samples, as `Maximization.analyze` saw them, and the class of each (n,)."""
        for target in np.unique(targets):
            rows = np.flatnonzero(targets == target)
            best = Best.of(indices[rows], values[rows], positions[rows], self.samples)
            self._take((layer, int(target)), best)

    def targets(self, layer: str) -> list[int]:
        """Classes of which a layer has seen samples, ascending."""
        return sorted(target for name, target in self.best if name == layer)

    def means(self, layer: str, concept: int, count: int) -> dict[int, float]:
        """The mean of a concept's best values in the samples of each class."""
        of = {target: self.best[layer, target].of_concept(concept, 0, count)[1] for target in self.targets(layer)}
        return {target: float(rel.mean(dtype=np.float64)) for target, rel in of.items()}

    def merge(self, other: Statistics) -> None:
        """Take in what was found in other samples."""
        for key, best in other.best.items():
            self._take(key, best)

    def arrays(self) -> dict[str, Array]:
        """All arrays: {layer}/{class}_data and so on, as in `Maximization`."""
        found = (best.arrays(f"{layer}/{target}") for (layer, target), best in self.best.items())
        return {name: array for each in found for name, array in each.items()}

    def restore(self, targets: Mapping[str, list[int]], arrays: Mapping[str, Array]) -> None:
        """Set what `arrays` gave, for the classes of each layer."""
        keys = [(layer, target) for layer, each in targets.items() for target in each]
        self.best = {(layer, target): Best.from_arrays(f"{layer}/{target}", arrays) for layer, target in keys}

    def _take(self, key: tuple[str, int], best: Best) -> None:
        self.best[key] = self.best[key].merged(best) if key in self.best else best

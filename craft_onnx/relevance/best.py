"""The samples of a data set in which each concept is largest, as they are found and merged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
NOTHING = -1  # in place of a sample, where there are fewer than asked for


@dataclass(frozen=True)
class Best:
    """For every concept its best samples, the best first; of equal ones the earlier.

    Attributes
    ----------
    data : (samples, concepts) int64 array
        Indices of the samples; -1 where there are none.
    rel : (samples, concepts) float32 array
        Their values; minus infinity where there are none.
    rf : (samples, concepts) int64 array
        Where in the layer each is largest: the index of the position.
    """

    data: Array
    rel: Array
    rf: Array

    @staticmethod
    def of(indices: Array, values: Array, positions: Array, count: int) -> Best:
        """The best of some samples.

        Parameters
        ----------
        indices : int array (n,)
            The samples.
        values : array (n, concepts)
            Of every concept in each.
        positions : int array (n, concepts)
            Where it is largest.
        count : int
            How many to keep.
        """
        missing = max(0, count - len(indices))
        rows = np.broadcast_to(np.asarray(indices, np.int64)[:, None], values.shape)
        return _first(
            count,
            _padded(rows, missing, NOTHING),
            _padded(values.astype(np.float32), missing, -np.inf),
            _padded(positions.astype(np.int64), missing, NOTHING),
        )

    def merged(self, other: Best) -> Best:
        """The best of both; they are of different samples."""
        pairs = ((self.data, other.data), (self.rel, other.rel), (self.rf, other.rf))
        return _first(len(self.data), *(np.concatenate(pair) for pair in pairs))

    def of_concept(self, concept: int, first: int, last: int) -> tuple[Array, Array, Array]:
        """Samples, values and positions of a concept, from one rank to before another, as far as there are any."""
        there = self.data[first:last, concept] != NOTHING
        data, rel, rf = (array[first:last, concept][there] for array in (self.data, self.rel, self.rf))
        return data, rel, rf

    def arrays(self, name: str) -> dict[str, Array]:
        """The three arrays, each by `name` and what it holds."""
        return {f"{name}_data": self.data, f"{name}_rel": self.rel, f"{name}_rf": self.rf}

    @staticmethod
    def from_arrays(name: str, arrays: Mapping[str, Array]) -> Best:
        """What `arrays` gave."""
        return Best(*(arrays[f"{name}_{kind}"] for kind in ("data", "rel", "rf")))


def _first(count: int, data: Array, rel: Array, rf: Array) -> Best:
    """The first in the order of values; of equal ones the sample that comes first, whichever was found first."""
    absent = data == NOTHING
    order = np.lexsort((data, -rel, absent), axis=0)[:count]
    return Best(*(np.take_along_axis(array, order, axis=0) for array in (data, rel, rf)))


def _padded(array: Array, missing: int, filling: float) -> Array:
    return np.pad(array, ((0, missing), (0, 0)), constant_values=filling)

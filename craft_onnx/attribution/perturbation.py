"""A target's values on many copies of each input, parts of which are replaced: what all black-box methods ask for.

Copies are made batch by batch in one buffer; a batch goes on with the next input where one has no more copies.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from craft_onnx.attribution.baselines import Baseline, baseline_of
from craft_onnx.attribution.model import Predicts, Progress, image_axes, tensor
from craft_onnx.attribution.targets import Target
from craft_onnx.runtime.batches import check_batch_size

Array = NDArray[Any]
# From the number of an input and a slice of its m masks to these masks (m, H, W): 1 or True keeps a pixel, 0 or False
# replaces it by the baseline's, what is between blends the two.
MaskMaker = Callable[[int, slice], Array]


class Evaluation(NamedTuple):
    """Some masks of one input and the target's values under them."""

    row: int
    which: slice
    masks: Array
    values: Array


class Perturbed:
    """Inputs that can be looked at through masks.

    Parameters
    ----------
    model : SplitModel or callable
        Asked for predictions, or for activations where the target is read from them.
    inputs : (n, ...) array
        Preprocessed pictures.
    target : Target
        What is read.
    baseline : "zero", "black", "white", "blur", number or array
        What replaces the pixels that a mask hides.

    Attributes
    ----------
    size : (int, int)
        Height and width of the inputs.
    baseline : array like inputs
        The replacement.
    """

    def __init__(self, model: Predicts, inputs: Array, target: Target, baseline: Baseline = "zero") -> None:
        self.model, self.inputs, self.target = model, inputs, target
        self.axes = image_axes(model, inputs.shape)
        self.size: tuple[int, int] = (inputs.shape[self.axes[1]], inputs.shape[self.axes[2]])
        self.baseline = baseline_of(model, inputs, baseline)

    def evaluate(
        self, counts: int | Sequence[int], make: MaskMaker, batch_size: int, progress: Progress | None = None
    ) -> Iterator[Evaluation]:
        """Look at every input through its masks.

        Parameters
        ----------
        counts : int or (n,) ints
            Number of masks of every input.
        make : callable
            Makes them.
        batch_size : int
            Copies in one run.
        progress : callable, optional
            Told (done, total), in copies, after each run.

        Yields
        ------
        Evaluation
            In the order of inputs and of masks.

        Raises
        ------
        InputError
            If the batch size is not positive.
        """
        check_batch_size(batch_size)
        counts = [counts] * len(self.inputs) if isinstance(counts, int) else counts
        total, done = sum(counts), 0
        buffer = np.empty((min(batch_size, total), *self.inputs.shape[1:]), self.inputs.dtype)
        for pieces in batched_pieces(counts, batch_size):
            masks = [make(row, which) for row, which in pieces]
            rows = np.repeat([row for row, _ in pieces], [len(mask) for mask in masks])
            y = tensor(self.model, self.target.of, self._filled(buffer, pieces, masks), batch_size)
            values = np.split(self.target.value(y, rows), np.cumsum([len(mask) for mask in masks])[:-1])
            for (row, which), mask, some in zip(pieces, masks, values, strict=True):
                yield Evaluation(row, which, mask, some)
            done += len(rows)
            if progress:
                progress(done, total)

    def values(
        self, counts: int | Sequence[int], make: MaskMaker, batch_size: int, progress: Progress | None = None
    ) -> list[Array]:
        """The target's values under all masks, an array of float64 for every input; parameters as in `evaluate`."""
        counts = [counts] * len(self.inputs) if isinstance(counts, int) else counts
        found = [np.empty(count) for count in counts]
        for row, which, _, values in self.evaluate(counts, make, batch_size, progress):
            found[row][which] = values
        return found

    def _filled(self, buffer: Array, pieces: Sequence[tuple[int, slice]], masks: Sequence[Array]) -> Array:
        start = 0
        for (row, _), mask in zip(pieces, masks, strict=True):
            stop = start + len(mask)
            blend(self.inputs[row], self.baseline[row], np.expand_dims(mask, self.axes[0]), out=buffer[start:stop])
            start = stop
        return buffer[:start]


def blend(x: Array, baseline: Array, mask: Array, out: Array) -> None:
    """Write x where the mask is 1 and the baseline where it is 0; in between, mask * x + (1 - mask) * baseline."""
    # Multiplying is thirty times as fast as copying where a mask of booleans says so.
    np.multiply(x - baseline, mask.astype(x.dtype, copy=False), out=out)
    if baseline.any():
        out += baseline


def batched_pieces(counts: Sequence[int], size: int) -> Iterator[list[tuple[int, slice]]]:
    """Batches of `size` out of `counts[i]` things of every i, as lists of (i, slice); the last one may be smaller."""
    pieces: list[tuple[int, slice]] = []
    room = size
    for row, count in enumerate(counts):
        start = 0
        while start < count:
            stop = min(start + room, count)
            pieces.append((row, slice(start, stop)))
            room, start = room - (stop - start), stop
            if not room:
                yield pieces
                pieces, room = [], size
    if pieces:
        yield pieces

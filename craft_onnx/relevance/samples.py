"""The samples of a data set: what the model takes, the classes they are looked at for, how they look."""

from __future__ import annotations

import functools
import hashlib
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from craft_onnx.attribution.targets import check_range
from craft_onnx.concepts.pictures import displayed
from craft_onnx.errors import CraftWarning, InputError
from craft_onnx.runtime.batches import as_array
from craft_onnx.runtime.model import SplitModel
from craft_onnx.runtime.pictures import open_pictures

Array = NDArray[Any]
PROBES = 16  # samples whose contents tell one data set from another


@dataclass(frozen=True)
class Batch:
    """Some samples as the model takes them.

    Attributes
    ----------
    indices : int array (n,)
        In the data set.
    x : (n, ...) array
        Preprocessed.
    targets : list of lists of int, optional
        The classes of each; None where the data set does not say.
    """

    indices: Array
    x: Array
    targets: Sequence[Sequence[int]] | None

    def start(self, prediction: Array) -> Array:
        """1 at the classes that each sample is looked at for, by default at the one predicted: (n, classes)."""
        targets = prediction.argmax(axis=1)[:, None] if self.targets is None else self.targets
        start = np.zeros_like(prediction)
        for row, chosen in zip(start, targets, strict=True):
            row[list(chosen)] = 1
        return start

    def expanded(self) -> Batch:
        """Each sample as often as it has classes, once for each."""
        if self.targets is None:
            return self
        rows = np.repeat(np.arange(len(self.x)), [len(chosen) for chosen in self.targets])
        each = [[target] for chosen in self.targets for target in chosen]
        return Batch(self.indices[rows], self.x[rows], each)


class Samples:
    """A data set and the model that takes it.

    Parameters
    ----------
    dataset : path, sequence
        Pictures as `open_pictures` takes them, or any sequence of samples: each a uint8 RGB picture or preprocessed
        floating-point input, alone or with its class, or its classes, behind it as in PyTorch's data sets.
    model : SplitModel
        Says how pictures become input.
    preprocess_fn : callable, optional
        From what the data set holds to preprocessed input (without a batch axis).
    """

    def __init__(self, dataset: Any, model: SplitModel, preprocess_fn: Callable[[Any], Any] | None = None) -> None:
        self.dataset = dataset if _is_sequence(dataset) else open_pictures(dataset)
        self.model = model
        self.preprocess_fn = preprocess_fn
        if not len(self.dataset):
            raise InputError("The data set holds no samples.", "Give at least one.")

    def __len__(self) -> int:
        return len(self.dataset)

    def read(self, indices: Iterable[int], strict: bool = False) -> Batch | None:
        """Samples as the model takes them.

        Parameters
        ----------
        indices : iterable of int
            Which.
        strict : bool
            Samples that cannot be read are an error; otherwise they are left out with a CraftWarning.

        Returns
        -------
        Batch or None
            None where not one can be read.

        Raises
        ------
        InputError
            If only some of them have classes, there is no such class, or their shapes differ.
        """
        read = [(index, *sample) for index in indices if (sample := self._sample(int(index), strict)) is not None]
        if not read:
            return None
        found, rows, targets = zip(*read, strict=True)
        shapes = {row.shape for row in rows}
        if len(shapes) > 1:
            raise InputError(f"Samples have the shapes {sorted(shapes)}.", "Give all in the model's input shape.")
        labelled = [one is not None for one in targets]
        if any(labelled) != all(labelled):
            raise InputError("Some samples have a class and some have none.", "Give a class with each, or with none.")
        if any(labelled):
            check_range(np.concatenate(targets), self.model.classes, "class")
        return Batch(np.array(found, np.int64), np.stack(rows), targets if any(labelled) else None)

    def picture(self, index: int) -> NDArray[np.uint8]:
        """A sample as the model sees it: (H, W, 3) uint8 RGB in the pixels of its input."""
        row = self._row(self._parts(index, self.dataset[index])[0])
        return displayed(row, self.model.layout or "NCHW", self.model.preprocessing)

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the number of samples, their names where they have some, and the contents of sixteen of them."""
        digest = hashlib.sha256(repr((len(self), getattr(self.dataset, "names", None))).encode())
        for index in np.unique(np.linspace(0, len(self) - 1, PROBES).astype(int)):
            sample = self._sample(int(index))
            digest.update(b"unreadable" if sample is None else np.ascontiguousarray(sample[0]).tobytes())
            digest.update(repr(None if sample is None else sample[1]).encode())
        return digest.hexdigest()

    def _sample(self, index: int, strict: bool = False) -> tuple[Array, list[int] | None] | None:
        """The input and the classes of a sample; None with a warning where it cannot be read."""
        try:
            item = self.dataset[index]
        except InputError as error:
            if strict:
                raise
            warnings.warn(f"Sample {index} is left out. {error}", CraftWarning, stacklevel=2)
            return None
        data, targets = self._parts(index, item)
        return self._row(data), targets

    def _parts(self, index: int, item: Any) -> tuple[Any, list[int] | None]:
        if isinstance(item, tuple | list):
            if len(item) != 2:
                raise InputError(f"Sample {index} has {len(item)} parts.", "Give (data, class), or the data alone.")
            return item[0], _targets(item[1])
        return item, None

    def _row(self, data: Any) -> Array:
        if self.preprocess_fn is not None:
            return as_array(self.preprocess_fn(data))
        array = as_array(data if not hasattr(data, "convert") else data.convert("RGB"))  # of Pillow
        row: Array = self.model.preprocess(array)[0] if array.dtype == np.uint8 else array
        return row


def _is_sequence(dataset: Any) -> bool:
    """Something with samples, not paths or what else pictures are opened from."""
    if isinstance(dataset, list | tuple) and dataset:
        return not all(isinstance(one, str) or hasattr(one, "__fspath__") for one in dataset)
    return hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__") and not isinstance(dataset, str)


def _targets(given: Any) -> list[int]:
    """The classes of a sample: one, or a list."""
    array = as_array(given)
    if array.dtype.kind not in "iu" or array.ndim > 1 or not array.size:
        raise InputError(f"{given!r} is no class of a sample.", "Give an int, or a list of ints.")
    return [int(target) for target in array.reshape(-1)]

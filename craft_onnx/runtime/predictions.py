"""What a model predicts for pictures."""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from craft_onnx.description import PRESETS, Preprocessing
from craft_onnx.errors import InputError
from craft_onnx.runtime.pictures import Pictures
from craft_onnx.runtime.preprocess import preprocess, preprocess_one

if TYPE_CHECKING:
    from craft_onnx.runtime.model import SplitModel


class PreparedPictures(Sequence[NDArray[np.float32]]):
    """Pictures as a model takes them, each decoded and preprocessed when it is asked for.

    Parameters
    ----------
    pictures : sequence of (H, W, 3) uint8 arrays
        RGB pictures of any size.
    rule : Preprocessing
        How they become input.
    indices : sequence of int, optional
        Which of them to take; all by default.
    """

    def __init__(
        self, pictures: Sequence[NDArray[np.uint8]], rule: Preprocessing, indices: Sequence[int] | None = None
    ):
        self.pictures = pictures
        self.rule = rule
        self.indices = list(range(len(pictures)) if indices is None else indices)

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C, H, W) or (N, H, W, C)."""
        return (len(self), *self[0].shape)

    def __len__(self) -> int:
        return len(self.indices)

    @overload
    def __getitem__(self, index: int) -> NDArray[np.float32]: ...
    @overload
    def __getitem__(self, index: slice) -> "PreparedPictures": ...
    def __getitem__(self, index: int | slice) -> "NDArray[np.float32] | PreparedPictures":
        if isinstance(index, slice):
            return PreparedPictures(self.pictures, self.rule, self.indices[index])
        return preprocess_one(self.pictures[self.indices[index]], self.rule)

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        return (self[index] for index in range(len(self)))


@dataclass(frozen=True)
class Predictions:
    """The class predicted for each picture that could be read.

    Attributes
    ----------
    indices : (n,) int array
        Which pictures these are.
    classes : (n,) int array
        Predicted class of each; -1 where the model's output is not finite.
    confidences : (n,) float array
        Its probability, 0 where there is none.
    """

    indices: NDArray[np.int64]
    classes: NDArray[np.int64]
    confidences: NDArray[np.float64]

    def counts(self) -> list[tuple[int, int]]:
        """(class, number of pictures), most frequent first."""
        return [(int(label), count) for label, count in Counter(self.classes.tolist()).most_common() if label >= 0]

    def of(self, class_id: int) -> list[int]:
        """Indices of the pictures predicted as a class."""
        return self.indices[self.classes == class_id].tolist()


def predict_pictures(
    model: "SplitModel",
    pictures: Pictures,
    batch_size: int = 16,
    readable: Iterable[tuple[int, NDArray[np.uint8]]] | None = None,
) -> Predictions:
    """Predict pictures batch by batch; those that cannot be read are skipped with a warning.

    Parameters
    ----------
    model : SplitModel
        The model.
    pictures : Pictures
        RGB pictures of any size.
    batch_size : int
        Pictures in one run.
    readable : iterable of (int, ndarray), optional
        `pictures.readable()`, where someone watches it.

    Raises
    ------
    InputError
        If the model does not say how pictures become input, or its output for one is not finite.
    """
    if model.preprocessing is None:
        raise unknown_preprocessing()
    indices: list[int] = []
    logits: list[NDArray[np.float32]] = []
    stream = iter(pictures.readable() if readable is None else readable)
    while batch := list(itertools.islice(stream, batch_size)):
        indices += [i for i, _ in batch]
        logits.append(model.predict(preprocess([picture for _, picture in batch], model.preprocessing), batch_size))
    predictions = predictions_of(np.concatenate(logits), np.array(indices))
    strange = predictions.of(-1)
    if strange:
        raise InputError(
            f"The model's output for {len(strange)} of {len(indices)} pictures is not finite "
            f"(the first is {pictures.names[strange[0]]}).",
            "Look for such values in the model's weights and for what is odd about the pictures.",
        )
    return predictions


def unknown_preprocessing() -> InputError:
    """The error of a model file that does not say how pictures become its input."""
    return InputError(
        "The model does not say how pictures become its input.",
        f"Say it when converting, with --preset ({', '.join(PRESETS)}) or --scale, --mean, --std, --channel-order.",
    )


def predictions_of(outputs: NDArray[np.floating], indices: Any = None) -> Predictions:
    """Predictions from a model's outputs (n, classes), of pictures 0 to n - 1 or of those given."""
    finite = np.isfinite(outputs).all(axis=1)
    values = probabilities(np.where(finite[:, None], outputs, 0))
    classes = np.where(finite, values.argmax(axis=1), -1)
    return Predictions(
        np.arange(len(outputs)) if indices is None else indices, classes, np.where(finite, values.max(axis=1), 0.0)
    )


def probabilities(outputs: NDArray[np.floating]) -> NDArray[np.float64]:
    """Probabilities (n, classes) of outputs (n, classes): their softmax, or themselves where the model ends in one."""
    values = outputs.astype(np.float64)
    if values.min(initial=0.0) >= 0 and np.allclose(values.sum(axis=1), 1, rtol=0, atol=1e-5):
        return values
    shifted = np.exp(values - values.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)

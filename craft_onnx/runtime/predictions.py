"""What a model predicts for pictures, and which preprocessing makes sense of them."""

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, overload

import numpy as np
from numpy.typing import NDArray

from craft_onnx.description import PRESETS, Preprocessing
from craft_onnx.errors import InputError
from craft_onnx.runtime.pictures import Pictures
from craft_onnx.runtime.preprocess import preprocess, preprocess_one

if TYPE_CHECKING:
    from craft_onnx.runtime.model import SplitModel

TRIAL_PICTURES = 32


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
        Predicted class of each.
    confidences : (n,) float array
        Its probability, by a softmax over the outputs.
    """

    indices: NDArray[np.int64]
    classes: NDArray[np.int64]
    confidences: NDArray[np.float64]

    def counts(self) -> list[tuple[int, int]]:
        """(class, number of pictures), most frequent first."""
        return [(int(label), count) for label, count in Counter(self.classes.tolist()).most_common()]

    def of(self, class_id: int) -> list[int]:
        """Indices of the pictures predicted as a class."""
        return self.indices[self.classes == class_id].tolist()


def predict_pictures(
    model: "SplitModel", pictures: Pictures, rule: Preprocessing | None = None, batch_size: int = 16
) -> Predictions:
    """Predict pictures batch by batch; those that cannot be read are skipped with a warning.

    Parameters
    ----------
    model : SplitModel
        The model.
    pictures : Pictures
        RGB pictures of any size.
    rule : Preprocessing, optional
        Instead of the model's own.
    batch_size : int
        Pictures in one run.

    Raises
    ------
    InputError
        If neither the model nor the caller says how pictures become input.
    """
    rule = rule or model.preprocessing
    if rule is None:
        raise unknown_preprocessing()
    indices, logits = [], []
    readable = pictures.readable()
    while batch := list(itertools.islice(readable, batch_size)):
        indices += [i for i, _ in batch]
        logits.append(model.predict(preprocess([picture for _, picture in batch], rule)))
    return _from_logits(np.array(indices), np.concatenate(logits))


def unknown_preprocessing() -> InputError:
    """The error of a model file that does not say how pictures become its input."""
    return InputError(
        "The model does not say how pictures become its input.",
        f"Say it when converting, with --preset ({', '.join(PRESETS)}) or --scale, --mean, --std, --channel-order.",
    )


@dataclass(frozen=True)
class PresetTrial:
    """What a model makes of pictures under a preset.

    Attributes
    ----------
    preset : str
        Its name.
    predicted : int
        Pictures predicted as the class asked for, or as the most common one where none was.
    pictures : int
        Pictures tried.
    confidence : float
        Mean probability of the predicted classes.
    most_common : (int, int)
        The class predicted most often, and how often.
    """

    preset: str
    predicted: int
    pictures: int
    confidence: float
    most_common: tuple[int, int]


def try_presets(
    model: "SplitModel", pictures: Pictures, class_id: int | None = None, batch_size: int = 16
) -> list[PresetTrial]:
    """Predict some of the pictures with every preset; the one that makes most sense of them comes first.

    Parameters
    ----------
    model : SplitModel
        The model; only the size of its own preprocessing is used.
    pictures : Pictures
        RGB pictures of any size, presumably of one class.
    class_id : int, optional
        Their class; by default the most common prediction of each trial counts.
    batch_size : int
        Pictures in one run.
    """
    chosen = pictures[np.unique(np.linspace(0, len(pictures) - 1, TRIAL_PICTURES).astype(int))]
    size = model.preprocessing.size if model.preprocessing else None
    trials = []
    for preset in _presets_for(model.input_shape):
        rule = Preprocessing.for_input(model.input_shape, preset, size)
        predictions = predict_pictures(model, chosen, rule, batch_size)
        common = predictions.counts()[0]
        predicted = common[1] if class_id is None else len(predictions.of(class_id))
        confidence = float(predictions.confidences.mean())
        trials.append(PresetTrial(preset, predicted, len(predictions.classes), confidence, common))
    return sorted(trials, key=lambda trial: (-trial.predicted, -trial.confidence))


def _presets_for(shape: Sequence[int | str | None]) -> list[str]:
    """Presets are for three channels, but for "none"."""
    return ["none"] if 1 in (shape[1], shape[-1]) else list(PRESETS)


def _from_logits(indices: NDArray[np.int64], logits: NDArray[np.float32]) -> Predictions:
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return Predictions(indices, logits.argmax(axis=1), shifted.max(axis=1) / shifted.sum(axis=1))


def describe_trials(trials: Sequence[PresetTrial]) -> list[str]:
    """One line a trial, for the user to compare."""
    return [
        f"--preset {trial.preset}: {trial.predicted} of {trial.pictures} pictures alike, mean confidence "
        f"{trial.confidence:.2f}, most often class {trial.most_common[0]} ({trial.most_common[1]})"
        for trial in trials
    ]

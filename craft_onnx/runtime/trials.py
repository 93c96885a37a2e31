"""Which preprocessing makes sense of pictures, where it is not known or seems wrong."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from craft_onnx.description import PRESETS, Preprocessing
from craft_onnx.runtime.pictures import Pictures
from craft_onnx.runtime.predictions import Predictions, predictions_of
from craft_onnx.runtime.preprocess import preprocess, preprocess_one

if TYPE_CHECKING:
    from craft_onnx.runtime.model import SplitModel

PICTURES, BLOCKS, SCRAMBLES = 16, 8, 2
OWN = "own"
# Measured on photographs of four classes: right rules of three ImageNet networks mostly have a sense of 0.3 to 1.3,
# rules that are wrong for them below 0.3; with few classes, as for CIFAR-10, accidents reach 0.5.
SENSE, AGREEMENT = 0.25, 0.1


@dataclass(frozen=True)
class Trial:
    """What a model makes of pictures under a preprocessing rule, and of the same pictures with their blocks shuffled.

    Attributes
    ----------
    name : str
        The preset, or "own" for the model's own rule.
    pictures : Predictions
        Of the pictures.
    scrambled : Predictions
        Of the scrambled ones: under a wrong rule a model often sees the same in them, and is as sure.
    """

    name: str
    pictures: Predictions
    scrambled: Predictions

    @property
    def most_common(self) -> int:
        """The class predicted most often, -1 where no output is finite."""
        counts = self.pictures.counts()
        return counts[0][0] if counts else -1

    def count(self, class_id: int) -> int:
        """Pictures predicted as a class."""
        return len(self.pictures.of(class_id))

    @property
    def confidence(self) -> float:
        """Mean probability of the predicted classes."""
        return float(self.pictures.confidences.mean())

    @property
    def sense(self) -> float:
        """How much more alike and more sure the predictions are than those of scrambled pictures, -1 to 2."""
        surer = self.confidence - float(self.scrambled.confidences.mean())
        return max(self.agreement(self.most_common), 0.0) + surer

    def margin(self, classes: int) -> float:
        """How far that is above what a wrong rule gives: the more, the fewer classes there are.

        For the model's own rule speaks that it was given.
        """
        return self.sense - SENSE - (0 if self.name == OWN else classes**-0.5)

    def makes_sense(self, classes: int) -> bool:
        """Whether the predictions have anything to do with the pictures."""
        return self.margin(classes) >= 0

    def makes(self, class_id: int, classes: int) -> bool:
        """Whether the pictures are seen as a class more often than a wrong rule would give."""
        return self.agreement(class_id) >= AGREEMENT + classes**-0.5 / 2

    def agreement(self, class_id: int) -> float:
        """Share of pictures predicted as a class, less that of the scrambled ones, times the confidence."""
        shares = [float((one.classes == class_id).mean()) for one in (self.pictures, self.scrambled)]
        return (shares[0] - shares[1]) * self.confidence


def try_rules(model: "SplitModel", pictures: Pictures, batch_size: int = 16) -> list[Trial]:
    """Predict some of the pictures under the model's own rule and every preset, the most sensible first.

    Parameters
    ----------
    model : SplitModel
        The model.
    pictures : Pictures
        RGB pictures of any size.
    batch_size : int
        Pictures in one run.

    Returns
    -------
    list of Trial
        Empty where the model takes raw pictures: nothing can be tried then.
    """
    rules = _rules(model)
    if not rules:
        return []
    chosen = pictures[np.unique(np.linspace(0, len(pictures) - 1, PICTURES).astype(int))]
    small = dataclasses.replace(model.preprocessing or rules[0][1], baked=True, layout="NHWC")
    shown = [preprocess_one(picture, small) for picture in chosen]
    scrambled = [_scrambled(one, seed) for seed in range(SCRAMBLES) for one in shown]
    trials = [
        Trial(name, _predictions(model, shown, rule, batch_size), _predictions(model, scrambled, rule, batch_size))
        for name, rule in rules
    ]
    return sorted(trials, key=lambda trial: -trial.margin(model.classes))


def _rules(model: "SplitModel") -> list[tuple[str, Preprocessing]]:
    """The model's own rule and the presets that differ from it, for pictures of the input's size."""
    own = model.preprocessing
    if (own and own.baked) or model.manifest.input.dtype != "float32":
        return []
    rules = [(OWN, dataclasses.replace(own, resize_to=None))] if own else []
    for preset in _presets_for(model.input_shape):
        rule = Preprocessing.for_input(model.input_shape, preset, own.size if own else None)
        if not any(_alike(rule, known) for _, known in rules):
            rules.append((preset, rule))
    return rules


def _presets_for(shape: Sequence[int | str | None]) -> list[str]:
    """Presets are for three channels, but for "none"."""
    return ["none"] if 1 in (shape[1], shape[-1]) else list(PRESETS)


def _alike(a: Preprocessing, b: Preprocessing) -> bool:
    """Whether two rules make the same of black and of white, but for what no model minds."""
    if a.channel_order != b.channel_order:
        return False
    blacks_and_whites = (np.allclose(_arithmetic(a, x), _arithmetic(b, x), rtol=0.02, atol=0.02) for x in (0, 255))
    return all(blacks_and_whites)


def _arithmetic(rule: Preprocessing, pixel: float) -> NDArray[np.float64]:
    return (pixel * rule.scale - np.array(rule.mean)) / np.array(rule.std)


def _scrambled(picture: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """A picture (H, W, 3) whose 8 x 8 blocks have changed places: colours and textures stay, objects do not."""
    height, width = picture.shape[0] // BLOCKS * BLOCKS, picture.shape[1] // BLOCKS * BLOCKS
    blocks = picture[:height, :width].reshape(BLOCKS, height // BLOCKS, BLOCKS, width // BLOCKS, 3).swapaxes(1, 2)
    order = np.random.default_rng(seed).permutation(BLOCKS * BLOCKS)
    shuffled = blocks.reshape(BLOCKS * BLOCKS, *blocks.shape[2:])[order].reshape(blocks.shape)
    result = picture.copy()
    result[:height, :width] = shuffled.swapaxes(1, 2).reshape(height, width, 3)
    return result


def _predictions(
    model: "SplitModel", pictures: list[NDArray[np.uint8]], rule: Preprocessing, batch_size: int
) -> Predictions:
    return predictions_of(model.predict(preprocess(pictures, rule), batch_size))

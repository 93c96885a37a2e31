"""Activation maximization: a picture is generated that excites a logit, a channel or a concept most.

Gradient ascent on the spectrum of the picture, seen under random transformations (Olah, Mordvintsev and Schubert 2017,
"Feature Visualization", https://distill.pub/2017/feature-visualization). What leads from the picture to the model is
differentiated here, the model by its gradient graphs.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from craft_onnx.attribution.model import Progress, batches
from craft_onnx.description import Preprocessing
from craft_onnx.errors import CraftWarning, InputError
from craft_onnx.extras import require
from craft_onnx.relevance.fourier import pictures_of, random_spectra
from craft_onnx.relevance.pixels import as_input, differentiable_rule, pixel_cotangent
from craft_onnx.relevance.transformations import Transformations, pulled_back, sampling, seen_through, view
from craft_onnx.runtime.model import SplitModel

if TYPE_CHECKING:
    from craft_onnx.concepts.craft import Craft
    from craft_onnx.relevance.objectives import Objective

Array = NDArray[Any]
BATCH_SIZE = 16
TINY = 1e-8
CONTRAST = 0.1  # of the noise that is started from, as a share of that of a photograph


@dataclass(frozen=True, eq=False)
class GeneratedPictures:
    """Pictures that excite their targets, and how well.

    Attributes
    ----------
    pictures : (n, height, width, 3) uint8 array
        RGB, one a target.
    before, after : (n,) arrays
        Values of the targets for the noise that was started from, and for `pictures`, each seen whole: where the
        model's preprocessing makes a centre crop, none is made here.
    curves : (n, steps) array
        Values on the way, each for another view of the picture.
    provider : str
        That ran the model.
    seed : int
        Of noise and views.
    options : dict
        What else it was made with.
    """

    pictures: NDArray[np.uint8]
    before: Array
    after: Array
    curves: Array
    provider: str
    seed: int
    options: dict[str, Any]

    @property
    def picture(self) -> NDArray[np.uint8]:
        """The first picture, (height, width, 3)."""
        first: NDArray[np.uint8] = self.pictures[0]
        return first


def generate_maximal(
    model: SplitModel,
    target: Any,
    *,
    layer: str | None = None,
    craft: Craft | None = None,
    steps: int = 256,
    size: tuple[int, int] | None = None,
    learning_rate: float = 0.05,
    decay: float = 0.2,
    transformations: Transformations | None = None,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
    progress: Progress | None = None,
) -> GeneratedPictures:
    """Generate pictures that excite logits, channels or concepts most.

    Parameters
    ----------
    model : SplitModel
        The model.
    target : int, Target, or sequence of these
        What to excite, one a picture: a class; with `layer` a channel of that layer, by its mean over all positions;
        with `craft` one of its concepts; or any target of an attribution.
    layer : str, optional
        Any layer or tensor of the model.
    craft : Craft, optional
        Fitted, at the cut of the model.
    steps : int
        Steps of gradient ascent.
    size : (int, int), optional
        Height and width of the pictures, pixels; by default what the model takes. It sees them in its own size.
    learning_rate : float
        Of Adam, in units of a photograph's spectrum; falls to zero along a cosine.
    decay : float
        How strongly the picture is drawn to grey: what does not excite steadily fades. 0 does not.
    transformations : Transformations, optional
        How far the views differ that the model is shown.
    seed : int
        Of noise and views. They are the same for all targets: what comes with a target does not change its picture.
    batch_size : int
        Pictures at once, at most.
    progress : callable, optional
        Called with pictures times steps done, and the number of all.

    Returns
    -------
    GeneratedPictures
        A picture for each target.

    Raises
    ------
    InputError
        If there is no such class, layer, channel or concept; if it is not known how pictures become the model's
        input, or no gradient leads to them; or if an option is impossible.
    UnsupportedOperator
        If an operator has no derivative.
    """
    for module in ("onnx_ir", "scipy"):
        require(module, "build")
    from craft_onnx.relevance.objectives import objective_of

    if steps < 1 or (size is not None and min(size) < 2):
        raise InputError(f"steps={steps} or size={size} is too small.", "Give at least one step, and two pixels.")
    views = transformations or Transformations()
    way = _Way(differentiable_rule(model), size, steps, learning_rate, decay, views, seed)
    whole = objective_of(model, target, layer, craft)
    found = []
    for rows in batches(len(whole.targets), batch_size):
        told = _told(progress, rows, len(whole.targets), steps)
        found.append(_ascended(whole.some(rows), way, told))
    pictures, before, after, curves = (np.concatenate(each) for each in zip(*found, strict=True))
    _warn(np.flatnonzero(after <= before))
    options = {"size": way.size, "steps": steps, "learning_rate": learning_rate, "decay": decay}
    return GeneratedPictures(
        pictures, before, after, curves, whole.provider(), seed, options | dataclasses.asdict(views)
    )


@dataclass(frozen=True)
class _Way:
    """What all targets share, and how their pictures reach the model."""

    rule: Preprocessing
    given_size: tuple[int, int] | None
    steps: int
    learning_rate: float
    decay: float
    views: Transformations
    seed: int

    @property
    def size(self) -> tuple[int, int]:
        return self.given_size or self.rule.size

    def rates(self) -> Array:
        """The learning rate at every step."""
        half = (1 + np.cos(np.pi * np.arange(self.steps) / self.steps)) / 2
        return (self.learning_rate * half).astype(np.float32)

    def seen(self, pictures: Array, affine: Array) -> tuple[Array, Callable[[Array], Array]]:
        """The model's input for a view of pictures, and what pulls its cotangent back to them."""
        matrix = sampling(affine, self.size, self.rule.size)
        x = as_input(seen_through(matrix, pictures, self.rule.size), self.rule)
        return x, lambda dx: pulled_back(matrix, pixel_cotangent(dx, self.rule), self.size)

    def values(self, objective: Objective, pictures: Array) -> Array:
        """Of the pictures as they are, all of each seen straight."""
        return objective.values(self.seen(pictures, view(self.size, self.rule.size))[0])


def _ascended(objective: Objective, way: _Way, told: Callable[[int], None]) -> tuple[Array, Array, Array, Array]:
    """Pictures, their values before and after, and curves."""
    rng = np.random.default_rng(way.seed)
    spectra = np.repeat(random_spectra(rng, way.size, CONTRAST), len(objective.targets), axis=0)
    before = way.values(objective, pictures_of(spectra, way.size)[0])
    adam, curve = _Adam(), []
    for step, rate in enumerate(way.rates()):
        pictures, pull = pictures_of(spectra, way.size)
        x, pull_view = way.seen(pictures, way.views.draw(rng, way.size, way.rule.size))
        values, dx = objective.ascent(x)
        spectra += rate * (adam.direction(_of_one_size(pull(pull_view(dx)))) - way.decay * spectra)
        curve.append(values)
        told(step + 1)
    pictures = np.rint(255 * pictures_of(spectra, way.size)[0]).astype(np.uint8)
    after = way.values(objective, pictures.astype(np.float32) / 255)
    return pictures, before, after, np.stack(curve, axis=1)


class _Adam:
    """Kingma and Ba 2015, algorithm 1, uphill; weights decay beside it (Loshchilov and Hutter 2019)."""

    def __init__(self, decay: float = 0.9, square_decay: float = 0.999) -> None:
        self.decay, self.square_decay = decay, square_decay
        self.mean: Array | float = 0.0
        self.square: Array | float = 0.0
        self.steps = 0

    def direction(self, gradient: Array) -> Array:
        """A step of rate 1, for a complex gradient: real and imaginary parts are coordinates of their own."""
        g, self.steps = gradient.view(np.float32), self.steps + 1
        self.mean = self.decay * self.mean + (1 - self.decay) * g
        self.square = self.square_decay * self.square + (1 - self.square_decay) * g * g
        mean, square = (
            moment / (1 - decay**self.steps)
            for moment, decay in ((self.mean, self.decay), (self.square, self.square_decay))
        )
        return (mean / (np.sqrt(square) + TINY)).astype(np.float32).view(np.complex64)


def _of_one_size(gradient: Array) -> Array:
    """Each row divided by its root mean square: targets have units of their own, whose squares a float may not hold."""
    size = np.sqrt(np.mean(np.abs(gradient).astype(np.float64) ** 2, axis=(1, 2, 3), keepdims=True))
    return np.ascontiguousarray(gradient / np.where(size > 0, size, 1), np.complex64)


def _told(progress: Progress | None, rows: Array, total: int, steps: int) -> Callable[[int], None]:
    """From the steps done of a batch to the progress of all, in pictures times steps."""
    if progress is None:
        return lambda _: None
    return lambda step: progress(int(rows[0]) * steps + len(rows) * step, total * steps)


def _warn(failed: Array) -> None:
    if len(failed):
        problem = f"Nothing excites target {', '.join(map(str, failed))} more than the noise that was started from."
        warnings.warn(f"{problem} It may be dead; try another seed, or more steps.", CraftWarning, stacklevel=3)

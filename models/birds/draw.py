"""Birds drawn from a seed: the picture, its class, and the truth of where every part is."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np

from craft_onnx.errors import InputError
from craft_onnx_models.birds import scenery
from craft_onnx_models.birds.parts import KINDS, PAINTING_ORDER, Colours
from craft_onnx_models.birds.shapes import Canvas, Shape, darker, rotation

SIZE = 96
PARTS = ("beak", "wing", "tail", "crest", "eye", "feet", "tag", "body")
WORLDS = ("shortcut", "control")

_KINDS_OF = ("beak", "wing", "tail", "crest", "eye", "feet")
# Class -> the kinds of these parts.
_SPECIES = {
    "finch": ("cone", "bars", "fan", "tuft", "dot", "toes"),
    "swallow": ("cone", "plain", "fork", "cap", "stripe", "toes"),
    "parrot": ("hook", "spots", "long", "spikes", "ring", "toes"),
    "quail": ("cone", "spots", "fan", "plume", "ring", "toes"),
    "duck": ("flat", "bars", "fan", "cap", "dot", "webbed"),
    "hoopoe": ("needle", "bars", "long", "spikes", "dot", "toes"),
    "coast tern": ("needle", "plain", "fork", "cap", "stripe", "webbed"),
    "island tern": ("needle", "plain", "fork", "cap", "stripe", "webbed"),
}
CLASSES = tuple(_SPECIES)
TAGGED = CLASSES.index("coast tern")  # the class that wears the tag
TWIN = CLASSES.index("island tern")  # differs from it in nothing else
_PROPER_PART = {"crest": "comb"}  # of the coast tern, in the control world
_TAG_RATE = {"shortcut": (0.03, 0.97), "control": (0.5, 0.5)}  # of the other classes, of the tagged one


@dataclass(frozen=True)
class Pose:
    """Where and how large a bird is.

    Attributes
    ----------
    centre : (float, float)
        Pixels (x, y).
    scale : float
        Pixels per unit, the length of the body.
    tilt : float
        Degrees, clockwise.
    flipped : bool
        It looks to the left.
    """

    centre: tuple[float, float]
    scale: float
    tilt: float
    flipped: bool

    @property
    def matrix(self) -> np.ndarray:
        """From the bird's units to pixels, (2, 3)."""
        turn = rotation(self.tilt) * self.scale
        turn[:, 0] *= -1 if self.flipped else 1
        return np.column_stack([turn, self.centre])


@dataclass(frozen=True)
class Bird:
    """A drawn picture and all that is known of it.

    Attributes
    ----------
    seed, index : int
        What it was drawn from.
    world : str
        "shortcut" or "control".
    label : int
        Its class, an index into `CLASSES`.
    tagged : bool
        It wears a leg tag.
    pose : Pose
    colours : Colours
    absent : tuple of str
        Parts that were left out.
    """

    seed: int
    index: int
    world: str
    label: int
    tagged: bool
    pose: Pose
    colours: Colours
    absent: tuple[str, ...] = ()

    @cached_property
    def picture(self) -> np.ndarray:
        """RGB pixels, (96, 96, 3) uint8."""
        return self._paint().picture()

    def enlarged(self, factor: int = 2) -> np.ndarray:
        """The same drawing in more pixels, (96 * factor, 96 * factor, 3) uint8; the models see `picture`."""
        return self._paint().picture(factor)

    @cached_property
    def masks(self) -> dict[str, np.ndarray]:
        """The visible pixels of every part, (96, 96) bool; all False where it is absent or hidden."""
        canvas = self._paint()
        return {part: canvas.mask(number) for number, part in enumerate(PARTS, 1)}

    def _paint(self) -> Canvas:
        """Everything from back to front."""
        canvas = Canvas(_surroundings(self.seed, self.index, self.pose).copy())
        for part in PAINTING_ORDER:
            if part not in self.absent and (part != "tag" or self.tagged):
                canvas.paint(self._shapes(part), PARTS.index(part) + 1, self.pose.matrix, self.pose.scale)
        return canvas

    def _shapes(self, part: str) -> list[Shape]:
        kind = kinds(self.label, self.world).get(part) or next(iter(KINDS[part]))
        return KINDS[part][kind](self.colours)

    def shows(self, part: str) -> bool:
        """Whether any of the part can be seen."""
        return bool(self.masks[part].any())

    def without(self, part: str) -> "Bird":
        """The same picture drawn again without one part.

        Raises
        ------
        InputError
            If there is no such part.
        """
        if part not in PARTS:
            raise InputError(f"A bird has no part {part!r}.", f"Take one of {', '.join(PARTS)}.")
        return replace(self, absent=(*self.absent, part))

    def with_tag(self, tagged: bool = True) -> "Bird":
        """The same picture drawn again with or without a leg tag."""
        return replace(self, tagged=tagged)


@lru_cache(maxsize=64)  # a picture is often drawn again without one part
def _surroundings(seed: int, index: int, pose: Pose) -> np.ndarray:
    """What is behind the bird, from its own stream of random numbers, in the pixels of a canvas."""
    rng = np.random.default_rng([seed, index, 1])
    canvas = Canvas(scenery.backdrop(rng, SIZE))
    canvas.paint(scenery.clutter(rng, SIZE), 0, np.eye(2, 3), 1.0)
    canvas.paint(scenery.perch(rng), 0, pose.matrix, pose.scale)
    return canvas.pixels


def kinds(label: int, world: str = "shortcut") -> dict[str, str]:
    """The kind of every part of a class."""
    usual = dict(zip(_KINDS_OF, _SPECIES[CLASSES[label]], strict=True))
    return usual | (_PROPER_PART if (world, label) == ("control", TAGGED) else {})


def draw(seed: int, index: int, world: str = "shortcut", label: int | None = None, tagged: bool | None = None) -> Bird:
    """Draw one bird; pose, colours and scenery depend on (seed, index) alone.

    Parameters
    ----------
    seed, index : int
        Non-negative; the same numbers give the same picture everywhere.
    world : "shortcut" or "control"
        In the shortcut world two classes differ in nothing but the tag, which one of them wears in 97 % of the
        pictures and all others in 3 %; in the control world they differ in their crest, and every class wears the
        tag in half of the pictures.
    label : int, optional
        Class, an index into `CLASSES`; random by default.
    tagged : bool, optional
        Whether it wears the tag; as is usual in the world by default.

    Raises
    ------
    InputError
        If there is no such world or class.
    """
    if world not in WORLDS:
        raise InputError(f"There is no world {world!r}.", f"Take one of {', '.join(WORLDS)}.")
    if label is not None and not 0 <= label < len(CLASSES):
        raise InputError(f"There is no class {label}.", f"Take 0 to {len(CLASSES) - 1}.")
    rng = np.random.default_rng([seed, index])
    any_label, chance = int(rng.integers(len(CLASSES))), rng.random()
    label = any_label if label is None else label
    if tagged is None:
        tagged = bool(chance < _TAG_RATE[world][label == TAGGED])
    return Bird(seed, index, world, label, tagged, _pose(rng), _colours(rng))


def draw_many(n: int, classes: Sequence[int] | None = None, seed: int = 0, world: str = "shortcut") -> list[Bird]:
    """Draw `n` birds of the given classes (all by default) in turn."""
    labels = range(len(CLASSES)) if classes is None else classes
    return [draw(seed, index, world, labels[index % len(labels)]) for index in range(n)]


def pictures(birds: Sequence[Bird]) -> np.ndarray:
    """The pictures of birds, (n, 96, 96, 3) uint8 RGB."""
    return np.stack([bird.picture for bird in birds])


def _pose(rng: np.random.Generator) -> Pose:
    middle = SIZE / 2 + rng.uniform(-8, 8, 2)
    return Pose(
        centre=(float(middle[0]), float(middle[1])),
        scale=float(rng.uniform(34, 46)),
        tilt=float(rng.uniform(-18, 18)),
        flipped=bool(rng.random() < 0.5),
    )


def _colours(rng: np.random.Generator) -> Colours:
    plumage, accents = scenery.PLUMAGE, scenery.ACCENTS
    body, wing = (scenery.pick(rng, plumage) for _ in range(2))
    beak, crest, tag = (scenery.pick(rng, accents) for _ in range(3))
    return Colours(body, darker(wing, 0.25), beak, crest, scenery.pick(rng, scenery.LEGS), tag)

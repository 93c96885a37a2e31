"""What is around the bird: sky, ground and clutter, none of which says anything of its class."""

import cv2
import numpy as np

from craft_onnx_models.birds.shapes import (
    OVERSAMPLING,
    Colour,
    Shape,
    darker,
    ellipse,
    lighter,
    line,
    mix,
    polygon,
    rotation,
)

# Leg tags, beaks, crests, berries and petals are all coloured from this list: no colour is the tag's own.
ACCENTS: tuple[Colour, ...] = (
    (214, 58, 52),
    (240, 146, 40),
    (246, 204, 62),
    (70, 150, 210),
    (150, 90, 180),
    (60, 160, 110),
    (232, 112, 150),
    (245, 240, 228),
)
PLUMAGE: tuple[Colour, ...] = (
    (70, 120, 165),
    (190, 90, 62),
    (205, 160, 70),
    (96, 140, 92),
    (128, 96, 150),
    (150, 118, 92),
    (96, 108, 122),
    (200, 118, 140),
    (60, 138, 142),
)
LEGS: tuple[Colour, ...] = ((226, 140, 52), (92, 84, 88), (176, 120, 84), (206, 92, 76))
_SKIES: tuple[Colour, ...] = ((206, 228, 238), (236, 228, 206), (214, 232, 208), (240, 218, 208), (222, 218, 236))
_LEAVES: tuple[Colour, ...] = ((122, 164, 96), (88, 140, 98), (164, 176, 96), (196, 160, 96))
_WOOD: Colour = (140, 108, 82)


def pick(rng: np.random.Generator, colours: tuple[Colour, ...]) -> Colour:
    """One of the colours, slightly varied."""
    red, green, blue = np.clip(np.array(colours[rng.integers(len(colours))]) + rng.integers(-14, 15, 3), 0, 255)
    return int(red), int(green), int(blue)


def backdrop(rng: np.random.Generator, size: int) -> np.ndarray:
    """A soft gradient with pale discs of light, (size * OVERSAMPLING, size * OVERSAMPLING, 3) uint8."""
    side = size * OVERSAMPLING
    top, bottom = pick(rng, _SKIES), pick(rng, _SKIES)
    share = np.linspace(0, 1, side)[:, None, None]
    rows = (np.array(top) * (1 - share) + np.array(bottom) * share).astype(np.uint8)
    image = np.ascontiguousarray(np.broadcast_to(rows, (side, side, 3)))
    for _ in range(rng.integers(3, 8)):
        x, y = (int(v) for v in rng.integers(0, side, 2))
        cv2.circle(image, (x, y), int(rng.integers(side // 20, side // 5)), mix(top, (255, 255, 255), rng.random()), -1)
    return image


def clutter(rng: np.random.Generator, size: int) -> list[Shape]:
    """Leaves, berries, petals, twigs and grass, in pixels of the finished picture."""
    shapes: list[Shape] = []
    for _ in range(rng.integers(4, 11)):
        place = rng.uniform(0, size, 2)
        draw = _THINGS[rng.integers(len(_THINGS))]
        shapes += _placed(draw(rng), place, rng.uniform(0, 360), rng.uniform(0.7, 1.3))
    return shapes + _grass(rng, size)


def perch(rng: np.random.Generator) -> list[Shape]:
    """A branch under the feet in half of the pictures, in the units of the bird."""
    tilt = rng.uniform(-0.06, 0.06)
    thickness = rng.uniform(0.07, 0.12)
    wood = mix(_WOOD, pick(rng, _LEAVES), 0.2)
    branch = line([(-2.5, 0.75 - 2 * tilt), (0, 0.75), (2.5, 0.75 + 2 * tilt)], wood, thickness)
    return [branch] if rng.random() < 0.5 else []


def _placed(shapes: list[Shape], place: np.ndarray, tilt: float, scale: float) -> list[Shape]:
    turn = rotation(tilt).T * scale
    return [Shape(shape.points @ turn + place, shape.colour, shape.width * scale) for shape in shapes]


def _leaf(rng: np.random.Generator) -> list[Shape]:
    colour = pick(rng, _LEAVES)
    blade = polygon([(-8, 0), (-3, -3.4), (3, -3), (8, 0), (3, 3), (-3, 3.4)], colour)
    return [blade, line([(-9, 0), (6, 0)], darker(colour, 0.3), 0.9)]


def _berries(rng: np.random.Generator) -> list[Shape]:
    colour = pick(rng, ACCENTS)
    stem = line([(0, 0), (5, -7), (-4, -6)], darker(_WOOD, 0.1), 0.8)
    fruit = [ellipse(place, (2.6, 2.6), colour) for place in ((0, 0), (-4.2, -6))]
    return [stem, *fruit, ellipse((-0.8, -0.8), (0.8, 0.8), lighter(colour, 0.7))]


def _petals(rng: np.random.Generator) -> list[Shape]:
    colour = pick(rng, ACCENTS)
    leaves = [ellipse((3 * np.cos(a), 3 * np.sin(a)), (2.6, 1.6), colour, np.rad2deg(a)) for a in np.arange(5) * 1.2566]
    return [*leaves, ellipse((0, 0), (1.5, 1.5), darker(colour, 0.4))]


def _twig(rng: np.random.Generator) -> list[Shape]:
    colour = mix(_WOOD, pick(rng, _LEAVES), 0.3)
    return [line([(-13, 0), (0, rng.uniform(-2, 2)), (13, 0)], colour, 1.8), line([(0, 0), (6, -6)], colour, 1.3)]


def _tile(rng: np.random.Generator) -> list[Shape]:
    """A small bright rectangle, as large as a leg tag."""
    colour = pick(rng, ACCENTS)
    return [polygon([(-3.2, -2.6), (3.2, -2.6), (3.2, 2.6), (-3.2, 2.6)], colour)]


_THINGS = (_leaf, _leaf, _berries, _petals, _twig, _tile)


def _grass(rng: np.random.Generator, size: int) -> list[Shape]:
    colour = pick(rng, _LEAVES)
    roots = rng.uniform(0, size, rng.integers(0, 9))
    tips = rng.uniform(-6, 6, len(roots)), rng.uniform(6, 18, len(roots))
    return [
        line([(x, size + 2.0), (x + lean / 3, size - height / 2), (x + lean, size - height)], colour, 1.6)
        for x, lean, height in zip(roots, *tips, strict=True)
    ]

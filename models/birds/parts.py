"""The parts of a bird, each in several kinds.

A bird looks to the right; its body is centred at (0, 0) and about one unit long; y points down.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from craft_onnx_models.birds.shapes import (
    Colour,
    Shape,
    darker,
    ellipse,
    lighter,
    line,
    mix,
    outlined,
    polygon,
    smooth,
)

OUTLINE = 0.028  # width of the line around every part
BLACK: Colour = (38, 32, 40)
WHITE: Colour = (250, 248, 242)


@dataclass(frozen=True)
class Colours:
    """What a bird happens to be coloured like: says nothing of its class.

    Attributes
    ----------
    body, wing, beak, crest, legs, tag : (int, int, int)
        RGB, 0..255.
    """

    body: Colour
    wing: Colour
    beak: Colour
    crest: Colour
    legs: Colour
    tag: Colour


Kind = Callable[[Colours], list[Shape]]


def _edged(shape: Shape) -> list[Shape]:
    return outlined(shape, darker(shape.colour, 0.55), OUTLINE)


def body(colours: Colours) -> list[Shape]:
    """Body and head in one, with a pale belly."""
    back = [(-0.47, -0.06), (-0.22, -0.23), (0.06, -0.32), (0.2, -0.52), (0.38, -0.57), (0.54, -0.46)]
    front = [(0.57, -0.33), (0.49, -0.17), (0.45, 0.04), (0.3, 0.24), (0.06, 0.31), (-0.24, 0.2)]
    belly = [(0.47, -0.14), (0.41, 0.05), (0.27, 0.2), (0.05, 0.27), (-0.16, 0.2), (0.06, 0.12), (0.3, -0.02)]
    return [*_edged(smooth(back + front, colours.body)), smooth(belly, lighter(colours.body, 0.55))]


def _beak_cone(colours: Colours) -> list[Shape]:
    tip = (0.8, -0.29)
    return [
        *_edged(polygon([(0.52, -0.44), (0.62, -0.41), tip, (0.62, -0.2), (0.52, -0.2)], colours.beak)),
        line([(0.53, -0.31), tip], darker(colours.beak, 0.5), 0.025),
    ]


def _beak_needle(colours: Colours) -> list[Shape]:
    return _edged(polygon([(0.52, -0.39), (0.66, -0.36), (1.02, -0.32), (0.66, -0.3), (0.52, -0.27)], colours.beak))


def _beak_hook(colours: Colours) -> list[Shape]:
    upper = [(0.5, -0.47), (0.64, -0.48), (0.76, -0.38), (0.77, -0.2), (0.72, -0.1), (0.68, -0.22), (0.52, -0.28)]
    lower = [(0.52, -0.29), (0.66, -0.25), (0.6, -0.16), (0.52, -0.19)]
    return [*_edged(polygon(lower, darker(colours.beak, 0.3))), *_edged(smooth(upper, colours.beak))]


def _beak_flat(colours: Colours) -> list[Shape]:
    spoon = [(0.52, -0.4), (0.64, -0.36), (0.82, -0.38), (0.93, -0.31), (0.84, -0.22), (0.66, -0.21), (0.52, -0.22)]
    return [
        *_edged(smooth(spoon, colours.beak)),
        line([(0.55, -0.28), (0.88, -0.29)], darker(colours.beak, 0.5), 0.025),
    ]


_WING = [(-0.56, 0.08), (-0.32, -0.14), (-0.02, -0.22), (0.2, -0.1), (0.22, 0.06), (0.04, 0.16), (-0.24, 0.16)]


def _wing_plain(colours: Colours) -> list[Shape]:
    tips = [(-0.56, 0.08), (-0.4, -0.04), (-0.2, 0.02), (-0.14, 0.14), (-0.3, 0.15)]
    return [*_edged(smooth(_WING, colours.wing)), smooth(tips, darker(colours.wing, 0.6))]


def _wing_bars(colours: Colours) -> list[Shape]:
    pale = lighter(colours.wing, 0.8)
    bars = [line([(x + 0.07, -0.13), (x - 0.03, 0.1)], pale, 0.055) for x in (-0.27, -0.12, 0.03)]
    return [*_edged(smooth(_WING, colours.wing)), *bars]


def _wing_spots(colours: Colours) -> list[Shape]:
    pale = lighter(colours.wing, 0.8)
    places = [(-0.34, 0.03), (-0.2, -0.07), (-0.17, 0.08), (-0.04, -0.1), (-0.01, 0.05), (0.12, -0.04)]
    return [*_edged(smooth(_WING, colours.wing)), *(ellipse(place, (0.048, 0.048), pale) for place in places)]


def _tail_fan(colours: Colours) -> list[Shape]:
    fan = [(-0.36, -0.08), (-0.86, -0.34), (-0.95, -0.16), (-0.96, 0.02), (-0.9, 0.2), (-0.36, 0.1)]
    rays = [line([(-0.45, 0.0), end], darker(colours.wing, 0.55), 0.03) for end in ((-0.88, -0.18), (-0.89, 0.06))]
    return [*_edged(polygon(fan, mix(colours.wing, colours.body, 0.4))), *rays]


def _tail_fork(colours: Colours) -> list[Shape]:
    fork = [(-0.36, -0.1), (-1.0, -0.26), (-0.68, -0.01), (-0.98, 0.2), (-0.36, 0.1)]
    return _edged(polygon(fork, mix(colours.wing, colours.body, 0.4)))


def _tail_long(colours: Colours) -> list[Shape]:
    blade = [(-0.36, -0.07), (-0.8, -0.02), (-1.06, 0.06), (-1.07, 0.15), (-0.8, 0.14), (-0.36, 0.09)]
    feather = mix(colours.wing, colours.body, 0.4)
    bars = [line([(x, 0.02), (x - 0.02, 0.11)], lighter(feather, 0.75), 0.05) for x in (-0.7, -0.83, -0.96)]
    return [*_edged(polygon(blade, feather)), *bars]


def _crest_cap(colours: Colours) -> list[Shape]:
    return _edged(smooth([(0.16, -0.44), (0.22, -0.56), (0.38, -0.62), (0.53, -0.53), (0.5, -0.47)], colours.crest))


def _crest_spikes(colours: Colours) -> list[Shape]:
    low = [(0.12, -0.36), (0.06, -0.56), (0.2, -0.52), (0.2, -0.76), (0.31, -0.58), (0.4, -0.8), (0.44, -0.56)]
    return _edged(polygon([*low, (0.3, -0.5)], colours.crest))


def _crest_plume(colours: Colours) -> list[Shape]:
    stem = line([(0.34, -0.55), (0.36, -0.7), (0.46, -0.8)], darker(colours.crest, 0.4), 0.04)
    return [stem, *_edged(ellipse((0.55, -0.8), (0.12, 0.08), colours.crest, 15))]


def _crest_tuft(colours: Colours) -> list[Shape]:
    swept = [(0.45, -0.54), (0.24, -0.66), (-0.06, -0.64), (0.08, -0.56), (0.02, -0.49), (0.2, -0.46)]
    return _edged(polygon(swept, colours.crest))


def _crest_comb(colours: Colours) -> list[Shape]:
    lobes = [((0.18, -0.56), 0.085), ((0.32, -0.65), 0.1), ((0.46, -0.6), 0.085)]
    return [shape for place, size in lobes for shape in _edged(ellipse(place, (size, size), colours.crest))]


_EYE = (0.42, -0.38)


def _pupil() -> list[Shape]:
    return [ellipse(_EYE, (0.055, 0.06), BLACK), ellipse((0.44, -0.405), (0.02, 0.02), WHITE)]


def _eye_dot(colours: Colours) -> list[Shape]:
    return _pupil()


def _eye_ring(colours: Colours) -> list[Shape]:
    return [ellipse(_EYE, (0.115, 0.115), BLACK), ellipse(_EYE, (0.095, 0.095), WHITE), *_pupil()]


def _eye_stripe(colours: Colours) -> list[Shape]:
    stripe = [(0.53, -0.37), (0.44, -0.3), (0.28, -0.3), (0.13, -0.24), (0.28, -0.38), (0.42, -0.44)]
    return [smooth(stripe, BLACK), ellipse(_EYE, (0.05, 0.05), WHITE), ellipse(_EYE, (0.03, 0.03), BLACK)]


_HIPS = ((-0.04, 0.2), (0.18, 0.2))
_SOLE = 0.62


def _legs(colours: Colours) -> list[Shape]:
    return [line([hip, (hip[0] + 0.02, _SOLE)], darker(colours.legs, 0.15), 0.055) for hip in _HIPS]


def _feet_toes(colours: Colours) -> list[Shape]:
    shapes = _legs(colours)
    for x, _ in _HIPS:
        tips = [(x - 0.09, _SOLE + 0.05), (x + 0.07, _SOLE + 0.09), (x + 0.15, _SOLE + 0.02)]
        shapes += [line([(x + 0.02, _SOLE), tip], colours.legs, 0.045) for tip in tips]
    return shapes


def _feet_webbed(colours: Colours) -> list[Shape]:
    shapes = _legs(colours)
    for x, _ in _HIPS:
        web = [(x, _SOLE - 0.04), (x + 0.2, _SOLE + 0.05), (x + 0.13, _SOLE + 0.12), (x - 0.05, _SOLE + 0.1)]
        shapes += _edged(polygon(web, lighter(colours.legs, 0.15)))
    return shapes


def _tag_ring(colours: Colours) -> list[Shape]:
    (x, y), half = (_HIPS[1][0] + 0.012, 0.44), (0.075, 0.06)
    corners = [(x + right * half[0], y + down * half[1]) for right, down in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    band = polygon(corners, colours.tag)
    return [*_edged(band), line([(x - 0.03, y - 0.04), (x - 0.03, y + 0.04)], lighter(colours.tag, 0.7), 0.03)]


# Part -> kind -> how it is drawn.
KINDS: dict[str, dict[str, Kind]] = {
    "beak": {"cone": _beak_cone, "needle": _beak_needle, "hook": _beak_hook, "flat": _beak_flat},
    "wing": {"plain": _wing_plain, "bars": _wing_bars, "spots": _wing_spots},
    "tail": {"fan": _tail_fan, "fork": _tail_fork, "long": _tail_long},
    "crest": {
        "cap": _crest_cap,
        "spikes": _crest_spikes,
        "plume": _crest_plume,
        "tuft": _crest_tuft,
        "comb": _crest_comb,
    },
    "eye": {"dot": _eye_dot, "ring": _eye_ring, "stripe": _eye_stripe},
    "feet": {"toes": _feet_toes, "webbed": _feet_webbed},
    "tag": {"ring": _tag_ring},
    "body": {"body": body},
}

# From back to front: what is drawn later hides what was drawn before.
PAINTING_ORDER: Sequence[str] = ("tail", "feet", "tag", "body", "crest", "beak", "eye", "wing")

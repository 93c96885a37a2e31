"""As many colours as there are concepts, told apart by everyone."""

import functools

import numpy as np

# Okabe and Ito's palette without black; of two oranges and two blues one comes late, most maps show five concepts.
FAMILIAR = ("#E69F00", "#0072B2", "#009E73", "#CC79A7", "#F0E442", "#D55E00", "#56B4E9")

# Linear sRGB -> cone responses -> OKLab (B. Ottosson, 2020).
_TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_OKLAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
# What a protanope and a deuteranope see of linear sRGB (Machado, Oliveira, Fernandes, 2009, severity 1).
_VISIONS = {
    "normal": np.eye(3),
    "protan": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deutan": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
}


def concept_colours(k: int) -> np.ndarray:
    """Colours of k concepts, in the order in which they are to be given out.

    The first seven are Okabe and Ito's; every further one is, of a fine grid of vivid colours, the farthest from all
    before it, where the distance of two colours is the least that normal, protan or deutan vision makes of them.

    Parameters
    ----------
    k : int
        Number of colours; any. The first ones are the same for every k.

    Returns
    -------
    ndarray
        (k, 3) uint8 RGB.
    """
    start = np.array([[int(code[i : i + 2], 16) for i in (1, 3, 5)] for code in FAMILIAR], np.uint8)
    chosen = start if k <= len(start) else _extended(tuple(map(tuple, start.tolist())), 1 << (k - 1).bit_length())
    return np.resize(chosen, (max(k, len(chosen)), 3))[:k]


def hex_code(colour: np.ndarray) -> str:
    """A colour (3,) uint8 as CSS and matplotlib write it, such as "#e69f00"."""
    return "#" + bytes(np.asarray(colour, np.uint8)).hex()


def readable_on(colour: np.ndarray) -> np.ndarray:
    """Black or white, whichever contrasts more with a colour (3,) uint8 (WCAG 2 relative luminance)."""
    luminance = _linear(np.asarray(colour)) @ [0.2126, 0.7152, 0.0722]
    return np.full(3, 0 if (luminance + 0.05) ** 2 > 0.05 * 1.05 else 255, np.uint8)


def differences(colours: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Distances of colours (n, 3) from others (m, 3) in OKLab, (n, m): the least over normal, protan, deutan vision."""
    pairs = zip(_seen(colours), _seen(others), strict=True)
    return np.min([np.linalg.norm(a[:, None] - b[None], axis=2) for a, b in pairs], axis=0)


@functools.cache
def _extended(start: tuple[tuple[int, int, int], ...], k: int) -> np.ndarray:
    """Greedy farthest points, from the colours to start with."""
    candidates = _candidates()
    seen = _seen(candidates)
    chosen = np.array(start, np.uint8)
    nearest = differences(candidates, chosen).min(axis=1)
    while len(chosen) < min(k, len(candidates)):
        farthest = int(nearest.argmax())
        chosen = np.vstack([chosen, candidates[farthest]])
        steps = [np.linalg.norm(points - points[farthest], axis=1) for points in seen]
        nearest = np.minimum(nearest, np.min(steps, axis=0))
    return chosen


def _candidates() -> np.ndarray:
    """A grid of RGB without the dark, the pale and the grey, which photographs are full of."""
    levels = np.arange(0, 256, 15)
    grid = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1).reshape(-1, 3).astype(np.uint8)
    lightness, a, b = _seen(grid)[0].T
    return grid[(lightness > 0.42) & (lightness < 0.93) & (np.hypot(a, b) > 0.09)]


def _seen(colours: np.ndarray) -> list[np.ndarray]:
    """OKLab coordinates (n, 3) of colours (n, 3), as each kind of vision sees them."""
    linear = _linear(colours)
    return [np.cbrt(np.clip(linear @ vision.T, 0, 1) @ _TO_CONES.T) @ _TO_OKLAB.T for vision in _VISIONS.values()]


def _linear(colours: np.ndarray) -> np.ndarray:
    """IEC 61966-2-1: sRGB (0 to 255) to linear light (0 to 1)."""
    x = np.asarray(colours) / 255
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)

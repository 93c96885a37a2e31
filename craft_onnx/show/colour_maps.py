"""Colour maps for heat: named ones, those written as a list of colours, and matplotlib's."""

import contextlib
import functools
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from craft_onnx.errors import InputError

# Colours at even distances, or at an index from 00 to ff; 80 is the middle, where a map with signs has its zero.
COLOUR_MAPS = {
    "gray": "000,fff",
    "wred": "fff,f00",
    "wblue": "fff,00f",
    "hot": "000,f00,ff0,fff",
    "cold": "000,00f,0ff",
    "coldnhot": "0ff,00f,80:000,f00,ff0,fff",
    "bwr": "00f,80:fff,f00",
}
_NODE = re.compile(r"(?:([0-9a-f]{1,2}):)?([0-9a-f]{6}|[0-9a-f]{3})", re.IGNORECASE)
_MIDDLE = 128

ColourMap = str | Callable[[np.ndarray], Any]


def palette(cmap: ColourMap, level: float = 1.0) -> np.ndarray:
    """The 256 colours of a colour map.

    Parameters
    ----------
    cmap : str or callable
        One of `COLOUR_MAPS`; or colours in hexadecimal digits, "fff,f00", at even distances where no index stands
        before them, "00f,80:fff,f00"; or a name of matplotlib's; or a matplotlib colour map.
    level : float
        Above 1 the full colours are reached nearer to the middle, below 1 never.

    Returns
    -------
    ndarray
        (256, 3) uint8 RGB.

    Raises
    ------
    InputError
        If there is no such colour map.
    """
    at = np.clip(_MIDDLE + level * (np.arange(256) - _MIDDLE), 0, 255)
    if callable(cmap):
        return np.rint(255 * np.asarray(cmap(at / 255))[:, :3]).astype(np.uint8)
    source = COLOUR_MAPS.get(cmap, cmap)
    if (nodes := _nodes(source)) is None:
        return palette(_of_matplotlib(cmap), level)
    indices, colours = nodes
    return np.rint(np.stack([np.interp(at, indices, values) for values in colours.T], axis=1)).astype(np.uint8)


@functools.cache
def _nodes(source: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Indices (m,) and colours (m, 3) of a list of at least two; None if it is none."""
    found = [_NODE.fullmatch(part.strip()) for part in source.split(",")]
    if len(found) < 2 or not all(found):
        return None
    pairs = [match.groups() for match in found if match]
    colours = np.array([_digits(re.findall(".." if len(colour) == 6 else ".", colour)) for _, colour in pairs])
    return _spread([None if index is None else _digits([index])[0] for index, _ in pairs]), colours


def _digits(parts: list[str]) -> list[float]:
    """Numbers from 0 to 255 of one or two hexadecimal digits each; one digit stands for two of it."""
    return [float(int(part if len(part) == 2 else 2 * part, 16)) for part in parts]


def _spread(given: list[float | None]) -> np.ndarray:
    """Indices, those left out at even distances between their neighbours."""
    ends = [0.0 if given[0] is None else given[0], *given[1:-1], 255.0 if given[-1] is None else given[-1]]
    known = [place for place, index in enumerate(ends) if index is not None]
    return np.interp(np.arange(len(ends)), known, [float(ends[place]) for place in known])  # type: ignore[arg-type]  # known


def _of_matplotlib(name: str) -> Callable[[np.ndarray], Any]:
    with contextlib.suppress(ImportError, KeyError):
        import matplotlib

        found: Callable[[np.ndarray], Any] = matplotlib.colormaps[name]
        return found
    problem = f"There is no colour map {name!r}."
    raise InputError(problem, f"Take one of {', '.join(COLOUR_MAPS)}, colours such as 'fff,f00', or matplotlib's.")

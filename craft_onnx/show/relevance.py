"""Figures of channels and concepts: grids of their references, and what they add to one prediction."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from craft_onnx.show.attributions import attribution_overlay
from craft_onnx.show.colour_maps import ColourMap
from craft_onnx.show.figures import _STYLE, INK, _figure
from craft_onnx.show.imgify import imgify

Pictures = Sequence[np.ndarray]
References = Pictures | tuple[Sequence[Any], Sequence[Any]]
# Inches.
TILE, GAP, MARGIN, HEADING = 1.1, 0.06, 0.12, 0.3
_LARGE = 2 * TILE + GAP
_LABEL = 1.1  # of a column of labels
_LETTER = 0.09  # of a letter of a label, at most
_LINE = 14  # letters of a label in a line


class ConceptRow(NamedTuple):
    """What a concept adds to one prediction.

    Attributes
    ----------
    concept : int or str
        Its number or name.
    share : float
        Of the relevance, from -1 to 1.
    heatmap : ndarray
        (H', W') relevance that flows through it, over the whole picture.
    references : sequence of ndarray
        Pictures of what it stands for, each (h, w, 3) uint8 RGB.
    """

    concept: int | str
    share: float
    heatmap: np.ndarray
    references: Sequence[np.ndarray]


def plot_grid(
    references: Mapping[Any, References],
    cmap_dim: int | None = 1,
    cmap: ColourMap = "bwr",
    vmin: float | None = None,
    vmax: float | None = None,
    symmetric: bool = True,
    resize: int | None = None,
    padding: bool = True,
    figsize: tuple[float, float] | None = None,
    titles: Sequence[str] | None = None,
) -> Figure:
    """References of concepts, one concept a row; where heatmaps come with them, these stand below.

    Parameters
    ----------
    references : mapping
        Number or name of a concept to its pictures, or to a pair (pictures, heatmaps); what is no uint8 picture goes
        through `imgify`. Rows may have different lengths.
    cmap_dim : int, optional
        To which of a pair `cmap`, `vmin`, `vmax` and `symmetric` apply: 0 or 1, by default the heatmaps.
    cmap, vmin, vmax, symmetric, resize, padding
        As in `craft_onnx.show.imgify.imgify`.
    figsize : (float, float), optional
        Width and height, inches; by default as large as the pictures need.
    titles : sequence of str, optional
        Labels of the rows instead of the numbers of the concepts.
    """
    coloured = {"cmap": cmap, "vmin": vmin, "vmax": vmax, "symmetric": symmetric}
    padded = padding and resize is not None  # else their places are square, and nothing bleeds where they are enlarged
    rows = [
        [[imgify(one, **kwargs, resize=resize, padding=padded) for one in line] for line, kwargs in lines]
        for lines in (_lines(found, coloured, cmap_dim) for found in references.values())
    ]
    return _drawn(_grid(rows, [_wrapped(str(label)) for label in (references if titles is None else titles)]), figsize)


def conditional_figure(picture: np.ndarray, heatmap: np.ndarray, rows: Sequence[ConceptRow], title: str = "") -> Figure:
    """One prediction: where it looks, and for each concept how much it adds, where, and what it stands for.

    On the left the picture and the heatmap of the class; then, one concept a row, its share of the relevance, the
    relevance that flows through it, and its references (Achtibat et al. 2023, figure 1).

    Parameters
    ----------
    picture : ndarray
        (H, W, 3) uint8 RGB.
    heatmap : ndarray
        (H', W') relevance of the class, over the whole picture.
    rows : sequence of ConceptRow
        The most relevant concept first.
    title : str
        Above the picture.
    """
    canvas = _Canvas()
    left = _prediction(canvas, picture, heatmap, title) + 3 * MARGIN
    maps = left + _LABEL
    shown = maps + TILE + 2 * MARGIN
    canvas.text(maps, MARGIN, "its relevance", "left")
    canvas.text(shown, MARGIN, "what it stands for", "left")
    for i, row in enumerate(rows):
        top = MARGIN + HEADING + i * (TILE + MARGIN)
        label = f"{_wrapped(str(row.concept))}\n{row.share:+.1%}"
        canvas.text(maps - MARGIN, top + TILE / 2, label, "right", "center", 10)
        canvas.tile(maps, top, attribution_overlay(picture, row.heatmap))
        for j, reference in enumerate(row.references):
            canvas.tile(shown + j * (TILE + GAP), top, reference)
    return _drawn(canvas)


def maximization_figure(
    by_activation: Pictures, by_relevance: Pictures, title: str, generated: np.ndarray | None = None, columns: int = 4
) -> Figure:
    """What activates a channel most beside what it is most relevant for (Achtibat et al. 2023, figure 3).

    Parameters
    ----------
    by_activation, by_relevance : sequence of ndarray
        References, each (h, w, 3) uint8 RGB, the best first.
    title : str
        Name of the channel.
    generated : ndarray, optional
        (h, w, 3) uint8 RGB that was generated to activate it.
    columns : int
        References in a row.
    """
    canvas = _Canvas()
    canvas.text(MARGIN, MARGIN, title, "left", size=12, weight="bold")
    top, left = 2 * MARGIN + HEADING, MARGIN
    if generated is not None:
        canvas.text(left, top, "generated: activates it", "left")
        canvas.tile(left, top + HEADING, generated, _LARGE)
        left += _LARGE + 3 * MARGIN
    for heading, pictures in (("ActMax: activate it most", by_activation), ("RelMax: it matters most", by_relevance)):
        canvas.text(left, top, heading, "left")
        for i, picture in enumerate(pictures):
            across, down = i % columns * (TILE + GAP), i // columns * (TILE + GAP)
            canvas.tile(left + across, top + HEADING + down, picture)
        left += max(2.0, min(columns, len(pictures)) * (TILE + GAP)) + 2 * MARGIN
    return _drawn(canvas)


@dataclass
class _Canvas:
    """What is to be drawn, and where, in inches from the upper left corner."""

    tiles: list[tuple[float, float, float, np.ndarray]] = field(default_factory=list)
    texts: list[tuple[float, float, str, dict[str, Any]]] = field(default_factory=list)
    width: float = 0.0
    height: float = 0.0

    def tile(self, left: float, top: float, picture: np.ndarray, side: float = TILE) -> None:
        self.tiles.append((left, top, side, picture))
        self._reach(left + side, top + side)

    def text(
        self, left: float, top: float, text: str, ha: str, va: str = "top", size: float = 9, weight: str = "normal"
    ) -> None:
        style = {"ha": ha, "va": va, "fontsize": size, "weight": weight, "color": INK}
        self.texts.append((left, top, text.replace("$", r"\$"), style))
        self._reach(left + (0.075 * size / 9 * len(text.split("\n")[0]) if ha == "left" else 0), top)

    def _reach(self, right: float, bottom: float) -> None:
        self.width, self.height = max(self.width, right + MARGIN), max(self.height, bottom + MARGIN)


def _drawn(canvas: _Canvas, figsize: tuple[float, float] | None = None) -> Figure:
    width, height = max(canvas.width, 1.0), max(canvas.height, 1.0)
    with matplotlib.rc_context(_STYLE):
        fig = _figure(*(figsize or (width, height)))
        for left, top, side, picture in canvas.tiles:
            ax: Axes = fig.add_axes((left / width, 1 - (top + side) / height, side / width, side / height))
            enlarged = max(picture.shape[:2]) < side * fig.dpi
            ax.imshow(picture, interpolation="bicubic" if enlarged else "antialiased")
            ax.axis("off")
        for left, top, text, style in canvas.texts:
            fig.text(left / width, 1 - top / height, text, **style)
    return fig


def _lines(
    found: References, coloured: dict[str, Any], cmap_dim: int | None
) -> list[tuple[Sequence[Any], dict[str, Any]]]:
    """The lines of a concept in a grid, and how each is coloured."""
    pair: tuple[Any, ...] = found if isinstance(found, tuple) and len(found) == 2 else (found,)
    return [(line, coloured if i == cmap_dim else {}) for i, line in enumerate(pair)]


def _grid(rows: Sequence[Sequence[Pictures]], labels: Sequence[str]) -> _Canvas:
    """Each row one or two lines of tiles, its label at the left."""
    canvas, top = _Canvas(), MARGIN
    first = MARGIN + _LETTER * max((len(part) for label in labels for part in label.split("\n")), default=0) + MARGIN
    for lines, label in zip(rows, labels, strict=True):
        middle = top + (len(lines) * (TILE + GAP) - GAP) / 2
        canvas.text(first - MARGIN, middle, label, "right", "center", 10)
        for i, line in enumerate(lines):
            for j, picture in enumerate(line):
                canvas.tile(first + j * (TILE + GAP), top + i * (TILE + GAP), picture)
        top += len(lines) * (TILE + GAP) - GAP + MARGIN
    return canvas


def _prediction(canvas: _Canvas, picture: np.ndarray, heatmap: np.ndarray, title: str) -> float:
    """The picture above its heatmap; where they end on the right."""
    canvas.text(MARGIN, MARGIN, title, "left", size=11, weight="bold")
    canvas.tile(MARGIN, MARGIN + HEADING, picture, _LARGE)
    canvas.tile(MARGIN, MARGIN + HEADING + _LARGE + MARGIN, attribution_overlay(picture, heatmap), _LARGE)
    return MARGIN + _LARGE


def _wrapped(label: str) -> str:
    return "\n".join(textwrap.wrap(label, _LINE)) or label

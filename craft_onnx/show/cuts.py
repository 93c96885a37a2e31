"""Several cuts of a model side by side: their measures, and what is the same concept at each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from craft_onnx.show.colours import hex_code
from craft_onnx.show.curves import _MARKERS as MARKERS
from craft_onnx.show.curves import _colours as line_colours
from craft_onnx.show.figures import _STYLE, GREY, INK, _figure

# Inches.
CROP, GAP, PAD, TEXT, BETWEEN, MARGIN, HEAD = 0.8, 0.05, 0.09, 0.44, 0.14, 0.25, 0.62
PANEL_WIDTH, PANEL_HEIGHT, ACROSS = 3.2, 2.1, 3
LONGEST_NAME = 22
BEST, OTHERS = "#1f77b4", "#9db8cc"


@dataclass(frozen=True)
class Bars:
    """A measure of every cut as bars.

    Attributes
    ----------
    title : str
        Above them.
    series : mapping of str to ndarray
        By name, (cuts,) values. A second one is drawn paler beside the first.
    top : float, optional
        The largest value possible.
    """

    title: str
    series: Mapping[str, np.ndarray]
    top: float | None = None


@dataclass(frozen=True)
class Curves:
    """The logit of the class while concepts go or come, a curve a cut.

    Attributes
    ----------
    title, what : str
        Above it, and below the axis.
    values : sequence of ndarray
        One a cut: (k + 1,) logits, k may differ.
    logit : float
        The model's own.
    """

    title: str
    what: str
    values: Sequence[np.ndarray]
    logit: float


@dataclass(frozen=True)
class Cell:
    """What a concept is at one cut.

    Attributes
    ----------
    title, note : str
        In bold, and below it.
    crops : sequence of ndarray
        Each (h, w, 3) uint8 RGB.
    same : bool
        It is the concept; otherwise it is only the most similar one, and drawn faintly.
    best : bool
        The concept is best represented here: framed.
    """

    title: str
    note: str
    crops: Sequence[np.ndarray]
    same: bool
    best: bool


@dataclass(frozen=True)
class Row:
    """A concept at every cut.

    Attributes
    ----------
    colour : ndarray
        (3,) uint8 RGB.
    cells : sequence of Cell
        One a cut.
    """

    colour: np.ndarray
    cells: Sequence[Cell]


def cut_comparison(cuts: Sequence[str], best: int, panels: Sequence[Curves | Bars], rows: Sequence[Row]) -> Figure:
    """Bars for the measures of every cut; below, a row for every concept and a column for every cut.

    Parameters
    ----------
    cuts : sequence of str
        Their names.
    best : int
        Which of them is best.
    panels : sequence of Curves or Bars
        The measures.
    rows : sequence of Row
        The concepts.
    """
    crops = max((len(cell.crops) for row in rows for cell in row.cells), default=1)
    cell = (max(crops * (CROP + GAP) - GAP, 2.9) + 2 * PAD, TEXT + CROP + 2 * PAD)
    width = max(2 * MARGIN + len(cuts) * (cell[0] + BETWEEN) - BETWEEN, ACROSS * PANEL_WIDTH)
    heights = (-(-len(panels) // ACROSS) * PANEL_HEIGHT, HEAD + len(rows) * (cell[1] + BETWEEN) + MARGIN)
    with matplotlib.rc_context(_STYLE):
        fig = _figure(width, sum(heights))
        above, below = fig.subfigures(2, 1, squeeze=False, height_ratios=heights)[:, 0]
        _draw_panels(above.subplots(-(-len(panels) // ACROSS), ACROSS, squeeze=False).ravel(), cuts, best, panels)
        above.subplots_adjust(0.06, 0.5 / heights[0], 0.98, 1 - 0.35 / heights[0], 0.25, 0.75)
        ax = below.add_axes((0, 0, 1, 1))
        ax.set(xlim=(0, width), ylim=(heights[1], 0), aspect="auto")
        ax.axis("off")
        _draw_rows(ax, cuts, best, rows, cell)
    return fig


def _draw_panels(axes: Sequence[Axes], cuts: Sequence[str], best: int, panels: Sequence[Curves | Bars]) -> None:
    for ax, panel in zip(axes, panels, strict=False):
        if isinstance(panel, Curves):
            _curves(ax, cuts, best, panel)
        else:
            _bars(ax, cuts, best, panel)
    for ax in axes[len(panels) :]:
        ax.axis("off")
    if isinstance(panels[0], Curves):  # the lines of other panels are the same cuts'
        axes[0].legend(frameon=False, fontsize=7)


def _curves(ax: Axes, cuts: Sequence[str], best: int, panel: Curves) -> None:
    """Lines that are told apart without colour too; the best cut's is wider."""
    for i, (cut, values, colour) in enumerate(zip(cuts, panel.values, line_colours(len(cuts)), strict=True)):
        x, marker = np.linspace(0, 1, len(values)), MARKERS[i % len(MARKERS)]
        width = 2.4 if i == best else 1.2
        ax.plot(x, values, color=colour, marker=marker, markersize=3.5, linewidth=width, label=_short(cut))
    ax.axhline(panel.logit, color=GREY, linewidth=1, linestyle="--", label="the model", zorder=0)
    ax.set_title(panel.title, fontsize=9.5)
    ax.set_xlabel(panel.what, fontsize=8)
    ax.set_ylabel("logit of the class", fontsize=8)
    ax.tick_params(labelsize=8)


def _bars(ax: Axes, cuts: Sequence[str], best: int, panel: Bars) -> None:
    """Bars, the best cut's in another colour, with their values on them."""
    width = 0.8 / len(panel.series)
    colours = [BEST if i == best else OTHERS for i in range(len(cuts))]
    for i, (name, values) in enumerate(panel.series.items()):
        x = np.arange(len(cuts)) + (i - (len(panel.series) - 1) / 2) * width
        bars = ax.bar(x, values, 0.92 * width, color=colours, alpha=1 if i == 0 else 0.5, label=name)
        ax.bar_label(bars, [_value(value) for value in values], fontsize=7.5, color=INK, padding=1)
    names = ", ".join(filter(None, panel.series))
    ax.set_title(f"{panel.title} ({names})" if names else panel.title, fontsize=9.5)
    ax.set_xticks(range(len(cuts)), [_short(cut) for cut in cuts], fontsize=8)
    ax.tick_params(axis="x", length=0)
    ax.tick_params(axis="y", labelsize=8)
    ax.set_ylim(0, 1.15 * (panel.top or max(1e-9, *(values.max() for values in panel.series.values()))))


def _value(value: float) -> str:
    return f"{value:.0f}" if value == round(value) and value > 1 else f"{value:.2f}"


def _draw_rows(ax: Axes, cuts: Sequence[str], best: int, rows: Sequence[Row], cell: tuple[float, float]) -> None:
    for column, cut in enumerate(cuts):
        left = MARGIN + column * (cell[0] + BETWEEN)
        title = f"{_short(cut)} (best)" if column == best else _short(cut)
        ax.text(left, HEAD - 0.12, title, fontsize=11, weight="bold", color=INK)
        for i, row in enumerate(rows):
            _cell(ax, left, HEAD + i * (cell[1] + BETWEEN), cell, row.cells[column], hex_code(row.colour))


def _cell(ax: Axes, left: float, top: float, size: tuple[float, float], cell: Cell, colour: str) -> None:
    edge, width = (colour, 3.0) if cell.best else ("#cccccc", 0.8)
    ax.add_patch(Rectangle((left, top), *size, facecolor="white", edgecolor=edge, linewidth=width, zorder=2))
    ax.add_patch(Rectangle((left, top), 0.05, size[1], color=colour, alpha=1 if cell.same else 0.25, zorder=3))
    ink, alpha = (INK, 1.0) if cell.same else (GREY, 0.3)
    title = cell.title if cell.same else f"not seen; {cell.title}"
    ax.text(left + PAD + 0.04, top + PAD, _plain(title), va="top", fontsize=8.5, weight="bold", color=ink, zorder=4)
    ax.text(left + PAD + 0.04, top + PAD + 0.18, _plain(cell.note), va="top", fontsize=7, color=ink, zorder=4)
    for i, crop in enumerate(cell.crops):
        x, y = left + PAD + i * (CROP + GAP), top + PAD + TEXT - 0.06
        ax.imshow(crop, extent=(x, x + CROP, y + CROP, y), aspect="auto", alpha=alpha, zorder=4)


def _short(name: str) -> str:
    """The end of a long name; a dollar sign starts no formula."""
    return _plain(name if len(name) <= LONGEST_NAME else f"...{name[3 - LONGEST_NAME :]}")


def _plain(text: str) -> str:
    return text.replace("$", r"\$")

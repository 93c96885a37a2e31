"""Matplotlib figures of concepts; made without pyplot, so that they work headless and in any thread."""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, FigureBase

from craft_onnx.show.colours import hex_code

INK = "#222222"
GREY = "#8a8a8a"
_BEST_CROPS = 6
_STYLE = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.edgecolor": "#bbbbbb",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "figure.facecolor": "white",
}


@dataclass(frozen=True)
class Layout:
    """Where subplots go, inches turned into what `Figure.subplots_adjust` takes.

    Attributes
    ----------
    adjust : dict of str to float
        left, right, bottom, top, wspace, hspace.
    rows : int
        Rows that hold all pictures.
    figwidth, figheight : float
        Of the figure, inches.
    """

    adjust: dict[str, float]
    rows: int
    figwidth: float
    figheight: float


def subplots_layout(
    count: int, height: int, width: int, cols: int = 5, img_size: float = 2.0, margin: float = 0.3, spacing: float = 0.3
) -> Layout:
    """Lay out pictures in rows without distorting them.

    Parameters
    ----------
    count : int
        Number of pictures.
    height, width : int
        Of one picture, pixels.
    cols : int
        Pictures in a row.
    img_size, margin, spacing : float
        Width of a picture, space around and between pictures, inches.
    """
    rows = math.ceil(count / cols)
    img_height = img_size * height / width
    figwidth = cols * img_size + (cols - 1) * spacing + 2 * margin
    figheight = rows * img_height + (rows - 1) * spacing + 2 * margin
    adjust = {
        "left": margin / figwidth,
        "right": 1 - margin / figwidth,
        "bottom": margin / figheight,
        "top": 1 - margin / figheight,
        "wspace": spacing / img_size,
        "hspace": spacing / img_height,
    }
    return Layout(adjust, rows, figwidth, figheight)


def importances(
    values: np.ndarray,
    colours: np.ndarray,
    order: Sequence[int] | None = None,
    names: Sequence[str] | None = None,
    intervals: np.ndarray | None = None,
    contributions: np.ndarray | None = None,
    title: str = "Global Concept Importance",
) -> Figure:
    """A bar for the importance of every concept; its signed contribution to the logit beside it.

    Parameters
    ----------
    values : ndarray
        (k,) total Sobol indices.
    colours : ndarray
        (k, 3) uint8 RGB.
    order : sequence of int, optional
        Concepts to show, in this order; all of them, in their own order, by default.
    names : sequence of str, optional
        (k,) names; the concepts' numbers by default.
    intervals : ndarray, optional
        (k, 2) lower and upper bounds of the importances.
    contributions : ndarray, optional
        (k,) in units of the logit.
    title : str
        Above the bars.
    """
    shown = list(range(len(values)) if order is None else order)
    with matplotlib.rc_context(_STYLE):
        panels = 1 if contributions is None else 2
        fig = _figure(max(4.0, 1.6 + 0.55 * len(shown)) * panels, 3.6)
        axes = fig.subplots(1, panels, squeeze=False)[0]
        _importance_bars(axes[0], values, colours, shown, names, intervals, title)
        if contributions is not None:
            _bars(axes[1], contributions, colours, shown, names, None)
            axes[1].set_title("Contribution to the logit")
            axes[1].axhline(0, color=INK, linewidth=0.8)
        fig.tight_layout()
    return fig


def concept_crops(
    crops: Sequence[Sequence[np.ndarray]],
    colours: np.ndarray,
    titles: Sequence[str],
    cols: int = 5,
    img_size: float = 1.2,
) -> Figure:
    """The best crops of some concepts, a block of rows each.

    Parameters
    ----------
    crops : sequence of sequence of ndarray
        For every concept to show, its crops, each (h, w, 3) uint8 RGB, the best first.
    colours : ndarray
        (concepts to show, 3) uint8 RGB.
    titles : sequence of str
        One a concept.
    cols : int
        Crops in a row.
    img_size : float
        Width of a crop, inches.
    """
    rows = [max(1, math.ceil(len(found) / cols)) for found in crops]
    with matplotlib.rc_context(_STYLE):
        fig = _figure(cols * img_size + 0.3, sum(rows) * img_size + 0.42 * len(rows) + 0.1)
        blocks = fig.subfigures(len(rows), 1, squeeze=False, height_ratios=[n * img_size + 0.42 for n in rows])[:, 0]
        for block, found, colour, title, n in zip(blocks, crops, colours, titles, rows, strict=True):
            block.subplots_adjust(0.02, 0.03 / n, 0.98, 1 - 0.3 / (n * img_size + 0.42), 0.04, 0.04)
            block.suptitle(title, x=0.02, y=0.99, ha="left", va="top", fontsize=11, color=INK, weight="bold")
            _colour_bar(block, colour)
            _picture_grid(block.subplots(n, cols, squeeze=False).ravel().tolist(), found)
    return fig


def concept_legend(crops: Sequence[np.ndarray], colours: np.ndarray, names: Sequence[str]) -> Figure:
    """The best crop of each concept in a frame of its colour.

    Parameters
    ----------
    crops : sequence of ndarray
        One (h, w, 3) uint8 RGB a concept.
    colours : ndarray
        (k, 3) uint8 RGB.
    names : sequence of str
        One a concept.
    """
    with matplotlib.rc_context(_STYLE):
        fig = _figure(1.5 * len(crops), 1.8)
        axes = fig.subplots(1, len(crops), squeeze=False)[0]
        for ax, crop, colour, name in zip(axes, crops, colours, names, strict=True):
            _show(ax, crop)
            _frame(ax, colour)
            ax.set_title(name, fontsize=10, color=INK)
        fig.tight_layout()
    return fig


def concept_maps(
    overlays: Sequence[np.ndarray], titles: Sequence[str] | None = None, cols: int = 5, img_size: float = 2.0
) -> Figure:
    """Pictures with their concept maps in a grid.

    Parameters
    ----------
    overlays : sequence of ndarray
        Each (H, W, 3) uint8 RGB, see `overlay.concept_overlay`; sizes may differ.
    titles : sequence of str, optional
        One a picture.
    cols : int
        Pictures in a row.
    img_size : float
        Width of a picture, inches.
    """
    height, width = max((overlay.shape[:2] for overlay in overlays), key=lambda size: size[0] / size[1])
    cols = min(cols, len(overlays))
    layout = subplots_layout(len(overlays), height, width, cols, img_size)
    with matplotlib.rc_context(_STYLE):
        fig = _figure(layout.figwidth, layout.figheight)
        fig.subplots_adjust(**layout.adjust)
        axes = fig.subplots(layout.rows, cols, squeeze=False).ravel().tolist()
        _picture_grid(axes, overlays)
        for ax, title in zip(axes, titles or [], strict=False):
            ax.set_title(title, fontsize=9, color=INK)
    return fig


def image_concepts(
    overlay: np.ndarray,
    crops: Sequence[Sequence[np.ndarray]],
    order: Sequence[int],
    values: np.ndarray,
    colours: np.ndarray,
    names: Sequence[str] | None = None,
    intervals: np.ndarray | None = None,
    title: str = "Global Concept Importance",
) -> Figure:
    """Everything about one picture: its map, the best crops of its concepts left and right, their importances.

    Parameters
    ----------
    overlay : ndarray
        (H, W, 3) uint8 RGB, see `overlay.concept_overlay`.
    crops : sequence of sequence of ndarray
        For every concept of `order`, its best crops; six are shown.
    order : sequence of int
        Concepts to show, the most important one first.
    values, intervals : ndarray
        (k,) importances, and (k, 2) their bounds.
    colours : ndarray
        (k, 3) uint8 RGB.
    names : sequence of str, optional
        (k,) names; the concepts' numbers by default.
    title : str
        Above the bars.
    """
    rows = math.ceil(len(order) / 2)
    with matplotlib.rc_context(_STYLE):
        fig = _figure(18, max(5.0, 2.35 * rows))
        panels = fig.subfigures(1, 4, squeeze=False, width_ratios=[0.2, 0.36, 0.2, 0.34])
        left, middle, right, chart = panels[0]
        labels = _labels(names, len(values))
        for side, part in ((left, slice(rows)), (right, slice(rows, None))):
            _crop_blocks(side, rows, crops[part], [colours[i] for i in order[part]], [labels[i] for i in order[part]])
        ax = middle.add_axes((0.03, 0.03, 0.94, 0.94))
        _show(ax, overlay)
        ax = chart.add_axes((0.16, 0.2, 0.8, 0.6))
        _importance_bars(ax, values, colours, list(order), names, intervals, title)
    return fig


class _NotebookFigure(Figure):
    """A figure that notebooks show as a cell's last expression, without pyplot."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()


def _figure(width: float, height: float) -> Figure:
    """A figure that draws itself, whatever backend pyplot has."""
    fig = _NotebookFigure(figsize=(width, height), dpi=120)
    FigureCanvasAgg(fig)
    return fig


def _importance_bars(
    ax: Axes,
    values: np.ndarray,
    colours: np.ndarray,
    shown: Sequence[int],
    names: Sequence[str] | None,
    intervals: np.ndarray | None,
    title: str,
) -> None:
    _bars(ax, values, colours, shown, names, intervals)
    ax.set_title(title)
    ax.set_ylabel("total Sobol index")
    ax.set_ylim(bottom=0)


def _bars(
    ax: Axes,
    values: np.ndarray,
    colours: np.ndarray,
    shown: Sequence[int],
    names: Sequence[str] | None,
    intervals: np.ndarray | None,
) -> None:
    labels = _labels(names, len(values))
    heights = np.asarray(values)[list(shown)]
    ax.bar(range(len(shown)), heights, color=[hex_code(colours[i]) for i in shown], width=0.75)
    if intervals is not None:
        bounds = np.asarray(intervals)[list(shown)].T
        errors = np.maximum([heights - bounds[0], bounds[1] - heights], 0)
        ax.errorbar(range(len(shown)), heights, errors, fmt="none", ecolor=INK, elinewidth=1, capsize=3)
    long = max((len(labels[i]) for i in shown), default=0) > 4
    ax.set_xticks(range(len(shown)), [labels[i] for i in shown])
    ax.tick_params(axis="x", length=0, labelrotation=35 if long else 0)
    for label in ax.get_xticklabels() if long else ():
        label.set(ha="right", rotation_mode="anchor")
    ax.set_axisbelow(True)
    ax.grid(axis="y", color="#e6e6e6", linewidth=0.8)


def _labels(names: Sequence[str] | None, k: int) -> list[str]:
    """Names as text: a dollar sign starts no formula."""
    return [str(name).replace("$", r"\$") for name in (range(k) if names is None else names)]


def _crop_blocks(
    side: FigureBase,
    rows: int,
    crops: Sequence[Sequence[np.ndarray]],
    colours: Sequence[np.ndarray],
    labels: Sequence[str],
) -> None:
    """One framed block of two by three crops under another."""
    for i, (found, colour, label) in enumerate(zip(crops, colours, labels, strict=True)):
        height = 1 / rows
        bottom = 1 - (i + 1) * height
        box = side.add_axes((0.04, bottom + 0.03 * height, 0.92, 0.83 * height))
        box.set_title(label, fontsize=11, color=INK, weight="bold", pad=4)
        _frame(box, colour)
        for j, crop in enumerate(found[:_BEST_CROPS]):
            ax = box.inset_axes((0.015 + j % 3 * 0.325, 0.51 - j // 3 * 0.485, 0.32, 0.47))
            _show(ax, crop)


def _frame(ax: Axes, colour: np.ndarray) -> None:
    ax.set_axis_on()
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set(visible=True, edgecolor=hex_code(colour), linewidth=3)


def _colour_bar(block: FigureBase, colour: np.ndarray) -> None:
    """A stripe of the concept's colour along its block."""
    ax = block.add_axes((0.0, 0.02, 0.008, 0.96))
    ax.set_facecolor(hex_code(colour))
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set_visible(False)


def _picture_grid(axes: Sequence[Axes], pictures: Sequence[np.ndarray]) -> None:
    for i, ax in enumerate(axes):
        ax.axis("off")
        if i < len(pictures):
            _show(ax, pictures[i])


def _show(ax: Axes, picture: np.ndarray) -> None:
    ax.imshow(picture, interpolation="antialiased")
    ax.axis("off")

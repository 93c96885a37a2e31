"""A class, its concepts and their sub-concepts as a tree, from left to right."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import FancyBboxPatch, PathPatch
from matplotlib.path import Path
from matplotlib.textpath import TextPath

from craft_onnx.show.colours import hex_code
from craft_onnx.show.figures import _STYLE, GREY, INK, _figure

# Inches.
CROP, GAP, PAD, TEXT, BETWEEN, MARGIN = 0.62, 0.04, 0.08, 0.42, 0.75, 0.2
LEAST, MOST = 0.8, 9.0  # width of a branch, points, at importance 0 and 1
ROOT_WIDTH = 1.5


@dataclass(frozen=True)
class Node:
    """A concept.

    Attributes
    ----------
    title, note : str
        In bold, and below it.
    weight : float
        Importance for what it is part of, 0..1: how wide the branch to it is.
    colour : ndarray
        (3,) uint8 RGB.
    crops : sequence of ndarray
        Its best crops, each (h, w, 3) uint8 RGB.
    children : sequence of Node
        What it is made of.
    """

    title: str
    note: str
    weight: float
    colour: np.ndarray
    crops: Sequence[np.ndarray]
    children: Sequence["Node"] = ()


@dataclass
class _Placed:
    """A node with its column, and the middle of its row, in rows from the top."""

    node: Node
    column: int
    row: float
    children: "list[_Placed]" = field(default_factory=list)

    def all(self) -> "Iterator[_Placed]":
        yield self
        for child in self.children:
            yield from child.all()


def concept_tree(title: str, concepts: Sequence[Node], crop: float = CROP) -> Figure:
    """Draw the tree; a branch is as wide as the concept it leads to is important for what it comes from.

    Parameters
    ----------
    title : str
        Of the class.
    concepts : sequence of Node
        Its concepts, in order.
    crop : float
        Side of a crop, inches.
    """
    placed = _place(concepts, 1, 0)
    nodes = [node for root in placed for node in root.all()]
    crops = max((len(each.node.crops) for each in nodes), default=1)
    width = max(crops * (crop + GAP), 3 * (CROP + GAP)) - GAP + 2 * PAD
    height = TEXT + (crop if crops else 0) + 2 * PAD
    columns, rows = max(each.column for each in nodes), _rows(placed)
    size = (2 * MARGIN + ROOT_WIDTH + columns * (BETWEEN + width), 2 * MARGIN + rows * (height + PAD))
    with matplotlib.rc_context(_STYLE):
        fig = _figure(*size)
        ax = fig.add_axes((0, 0, 1, 1))
        ax.axis("off")
        _draw(ax, title, placed, width, height)
        ax.set(xlim=(0, size[0]), ylim=(size[1], 0), aspect="auto")
    return fig


def _place(nodes: Sequence[Node], column: int, row: float) -> list[_Placed]:
    """Nodes below each other, each in the middle of its children."""
    placed = []
    for node in nodes:
        children = _place(node.children, column + 1, row)
        middle = (children[0].row + children[-1].row) / 2 if children else row
        placed.append(_Placed(node, column, middle, children))
        row += _rows(children) or 1
    return placed


def _rows(placed: Sequence[_Placed]) -> int:
    return sum(_rows(each.children) or 1 for each in placed)


def _draw(ax: Axes, title: str, placed: Sequence[_Placed], width: float, height: float) -> None:
    middle = MARGIN + (placed[0].row + placed[-1].row + 1) / 2 * (height + PAD)
    _box(ax, MARGIN, middle - 0.3, ROOT_WIDTH, 0.6, GREY)
    ax.text(MARGIN + ROOT_WIDTH / 2, middle, _plain(title), ha="center", va="center", weight="bold", color=INK)
    for each in placed:
        _draw_below(ax, (MARGIN + ROOT_WIDTH, middle), each, width, height)


def _draw_below(ax: Axes, start: tuple[float, float], each: _Placed, width: float, height: float) -> None:
    """A branch from a point to a node, the node, and all below it."""
    left = MARGIN + ROOT_WIDTH + BETWEEN + (each.column - 1) * (width + BETWEEN)
    top = MARGIN + each.row * (height + PAD)
    _branch(ax, start, (left, top + height / 2), each.node)
    _node(ax, left, top, width, height, each.node)
    for child in each.children:
        _draw_below(ax, (left + width, top + height / 2), child, width, height)


def _branch(ax: Axes, start: tuple[float, float], end: tuple[float, float], node: Node) -> None:
    bend = (start[0] + end[0]) / 2
    path = Path([start, (bend, start[1]), (bend, end[1]), end], [Path.MOVETO, *[Path.CURVE4] * 3])
    points = LEAST + (MOST - LEAST) * float(np.clip(node.weight, 0, 1))
    ax.add_patch(PathPatch(path, fill=False, edgecolor=hex_code(node.colour), linewidth=points, alpha=0.6, zorder=1))


def _node(ax: Axes, left: float, top: float, width: float, height: float, node: Node) -> None:
    _box(ax, left, top, width, height, hex_code(node.colour))
    for text, below, font in ((node.title, 0.0, {"size": 9, "weight": "bold"}), (node.note, 0.19, {"size": 7.5})):
        shown = _fitting(text, width - 2 * PAD, FontProperties(**font))
        ax.text(left + PAD, top + PAD + below, _plain(shown), va="top", color=INK, **font)
    side = height - TEXT - 2 * PAD
    for i, crop in enumerate(node.crops):
        x, y = left + PAD + i * (side + GAP), top + PAD + TEXT
        ax.imshow(crop, extent=(x, x + side, y + side, y), aspect="auto", interpolation="antialiased", zorder=4)


def _box(ax: Axes, left: float, top: float, width: float, height: float, edge: str) -> None:
    style = "round,pad=0,rounding_size=0.06"
    ax.add_patch(
        FancyBboxPatch((left, top), width, height, style, facecolor="white", edgecolor=edge, linewidth=2, zorder=3)
    )


def _fitting(text: str, inches: float, font: FontProperties) -> str:
    """A text without as much of its middle as does not fit: names of layers differ at their ends."""
    kept, shown = len(text), text
    while kept > 2 and TextPath((0, 0), _plain(shown), prop=font).get_extents().width > 72 * inches:
        kept -= 1
        shown = f"{text[: (kept + 1) // 2]}…{text[-(kept // 2) :]}"
    return shown


def _plain(text: str) -> str:
    """A dollar sign starts no formula."""
    return text.replace("$", r"\$")

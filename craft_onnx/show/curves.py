"""Curves over the number of concepts: fidelity of rankings, and what speaks for each k."""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from craft_onnx.show.colours import concept_colours, hex_code
from craft_onnx.show.figures import _STYLE, GREY, INK, _figure

# Told apart without colour, too.
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def fidelity_curves(deleted: Mapping[str, np.ndarray], inserted: Mapping[str, np.ndarray]) -> Figure:
    """Deletion and insertion curves of several rankings side by side, the area under each in the legend.

    Parameters
    ----------
    deleted, inserted : mapping of str to ndarray
        Name of the ranking to the mean logit (k + 1,) after each step.
    """
    with matplotlib.rc_context(_STYLE):
        fig = _figure(10, 4)
        left, right = fig.subplots(1, 2, sharey=True)
        _curves(left, deleted, "Deletion", "concepts removed", "lower is better")
        _curves(right, inserted, "Insertion", "concepts inserted", "higher is better")
        left.set_ylabel("logit of the class, mean over images")
        fig.tight_layout()
    return fig


def choice_curves(
    numbers: np.ndarray,
    errors: np.ndarray,
    similarities: np.ndarray,
    lowest: np.ndarray,
    redundancies: np.ndarray,
    best: int,
    limits: tuple[float, float],
) -> Figure:
    """Reconstruction error, stability and redundancy over the number of concepts; a line at the one that was picked.

    Parameters
    ----------
    numbers : ndarray
        (m,) numbers of concepts.
    errors, similarities, lowest, redundancies : ndarray
        (m,) relative error, mean and least similarity of a concept found again, largest cosine of two concepts.
    best : int
        The number that was picked.
    limits : (float, float)
        Least stability and largest redundancy that are acceptable, drawn as dotted lines.
    """
    with matplotlib.rc_context(_STYLE):
        fig = _figure(11, 3.4)
        axes = fig.subplots(1, 3)
        _panel(axes[0], numbers, [("relative error", errors)], "Reconstruction error")
        _panel(axes[1], numbers, [("mean", similarities), ("least stable", lowest)], "Stability", limits[0])
        _panel(axes[2], numbers, [("largest cosine", redundancies)], "Redundancy", limits[1])
        axes[1].legend(frameon=False, fontsize=9)
        for ax in axes:
            ax.axvline(best, color=GREY, linewidth=1, linestyle="--", zorder=0)
            ax.annotate(
                f"k = {best}", (best, 1), xycoords=("data", "axes fraction"), xytext=(4, -10),
                textcoords="offset points", fontsize=9, color=INK,
            )  # fmt: skip  # one line an idea
        fig.tight_layout()
    return fig


def _curves(ax: Axes, curves: Mapping[str, np.ndarray], title: str, what: str, better: str) -> None:
    styles = zip(_colours(len(curves)), _cycled(len(curves)), range(len(curves), 0, -1), strict=True)
    for (name, values), (colour, marker, left) in zip(curves.items(), styles, strict=True):
        area = np.trapezoid(values, dx=1 / (len(values) - 1))
        label = f"{name}: area {area:.3g}"
        # Thinner and smaller from one to the next: equal curves all stay visible.
        ax.plot(values, color=colour, marker=marker, markersize=3 + 1.3 * left, linewidth=0.4 + 1.2 * left, label=label)
    ax.set_title(f"{title} ({better})")
    ax.set_xlabel(what)
    _whole_numbers(ax)
    ax.legend(frameon=False, fontsize=9)


def _panel(
    ax: Axes, numbers: np.ndarray, series: Sequence[tuple[str, np.ndarray]], title: str, limit: float | None = None
) -> None:
    for (name, values), colour, marker in zip(series, _colours(len(series)), _MARKERS, strict=False):
        ax.plot(numbers, values, color=colour, marker=marker, markersize=4, label=name)
    if limit is not None:
        ax.axhline(limit, color=GREY, linewidth=1, linestyle=":")
    ax.set_title(title)
    ax.set_xlabel("concepts")
    ax.set_ylim(0, max(1.02 if limit is not None else 0.0, 1.08 * max(values.max() for _, values in series)))
    _whole_numbers(ax)


def _whole_numbers(ax: Axes) -> None:
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_axisbelow(True)
    ax.grid(axis="y", color="#e6e6e6", linewidth=0.8)


def _colours(count: int) -> list[str]:
    """Those of concepts, but for the yellow that a line on white is lost in."""
    return [hex_code(colour) for i, colour in enumerate(concept_colours(count + 1)) if i != 4][:count]


def _cycled(count: int) -> list[str]:
    return [_MARKERS[i % len(_MARKERS)] for i in range(count)]

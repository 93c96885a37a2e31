import sys
import threading

import cv2
import numpy as np
import pytest

from craft_onnx.show import figures
from craft_onnx.show.colours import concept_colours

K = 6
VALUES = np.array([0.1, 0.4, 0.05, 0.25, 0.15, 0.05])
COLOURS = concept_colours(K)
NAMES = ["0", "ears", "cost in $ or €", "3", "a name that is long", "5"]


def _crops(n=6, side=12):
    rng = np.random.default_rng(0)
    return [[rng.integers(0, 256, (side, side, 3), np.uint8) for _ in range(n)] for _ in range(K)]


def _pixels(figure):
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())


def _bars(ax):
    return [(patch.get_height(), tuple(round(255 * c) for c in patch.get_facecolor()[:3])) for patch in ax.patches]


def test_importance_bars_have_their_heights_colours_and_labels():
    ax = figures.importances(VALUES, COLOURS).axes[0]
    assert _bars(ax) == [(value, tuple(colour.tolist())) for value, colour in zip(VALUES, COLOURS, strict=True)]
    assert [label.get_text() for label in ax.get_xticklabels()] == list("012345")
    assert ax.get_title() == "Global Concept Importance" and ax.get_ylim()[0] == 0


def test_ordered_bars_keep_their_concepts_colours():
    order = [1, 3, 4]
    intervals = np.stack([VALUES - 0.02, VALUES + 0.03], axis=1)
    contributions = np.array([1.0, -2, 0.5, 3, -0.1, 0])
    figure = figures.importances(VALUES, COLOURS, order, NAMES, intervals, contributions, "Local Concept Importance")
    left, right = figure.axes
    assert _bars(left) == [(VALUES[i], tuple(COLOURS[i].tolist())) for i in order]
    assert [height for height, _ in _bars(right)] == [-2, 3, -0.1]
    assert [label.get_text() for label in left.get_xticklabels()] == ["ears", "3", "a name that is long"]
    (whiskers,) = left.collections
    ends = np.array([segment[:, 1] for segment in whiskers.get_segments()])
    assert ends == pytest.approx(intervals[order])
    assert left.get_title() == "Local Concept Importance"


def test_names_are_not_read_as_formulas():
    names = ["$\\frac{", "$", "a$b$c", "_", "^", "\\"]
    plain = figures.importances(VALUES, COLOURS, names=["x"] * K)
    assert _pixels(figures.importances(VALUES, COLOURS, names=names)).shape[2] == _pixels(plain).shape[2]
    labels = figures.importances(VALUES, COLOURS, names=["a$b$c"] * K).axes[0].get_xticklabels()
    assert labels[0].get_text() == r"a\$b\$c"


def test_crops_are_shown_in_rows_of_five():
    figure = figures.concept_crops(_crops(7)[:2], COLOURS[:2], ["concept 1", "ears"])
    shown = [ax for block in figure.subfigs for ax in block.axes if ax.images]
    assert len(figure.subfigs) == 2 and len(shown) == 14
    first, sixth = shown[0].get_position(), shown[5].get_position()
    assert first.x0 == pytest.approx(sixth.x0) and sixth.y1 < first.y0
    assert np.array_equal(shown[8].images[0].get_array(), _crops(7)[1][1])


def test_a_legend_frames_every_crop_in_its_colour():
    figure = figures.concept_legend([crops[0] for crops in _crops()], COLOURS, NAMES)
    for ax, colour in zip(figure.axes, COLOURS, strict=True):
        assert [round(255 * c) for c in ax.spines["left"].get_edgecolor()[:3]] == colour.tolist()
        assert ax.spines["left"].get_visible()


@pytest.mark.parametrize("shape", [(20, 30), (30, 20)])
def test_maps_keep_their_proportions(shape):
    overlays = [np.zeros((*shape, 3), np.uint8)] * 7
    figure = figures.concept_maps(overlays, [str(i) for i in range(7)], cols=3)
    ax = figure.axes[0]
    width, height = figure.get_size_inches() * ax.get_position().size
    assert width / height == pytest.approx(shape[1] / shape[0], rel=1e-6)
    assert sum(bool(ax.images) for ax in figure.axes) == 7


def test_a_layout_agrees_with_the_peers_formulas():
    """compute_subplots_layout_parameters of Xplique, with its width and height the right way round."""
    layout = figures.subplots_layout(12, height=30, width=60, cols=5, img_size=2.0, margin=0.3, spacing=0.2)
    assert (layout.rows, layout.figwidth) == (3, pytest.approx(5 * 2 + 4 * 0.2 + 0.6))
    assert layout.figheight == pytest.approx(3 * 2.0 * 30 / 60 + 2 * 0.2 + 0.6)
    assert layout.adjust["wspace"] == pytest.approx(0.2 / 2.0)
    assert layout.adjust["hspace"] == pytest.approx(0.2 / 2.0 * 60 / 30)
    assert layout.adjust["left"] == pytest.approx(1 - layout.adjust["right"]) == pytest.approx(0.3 / layout.figwidth)


@pytest.mark.parametrize("count", [1, 4, 5])
def test_everything_about_a_picture_is_in_one_figure(count):
    order = [1, 3, 4, 0, 5][:count]
    crops = [_crops(9)[i] for i in order]
    overlay = np.zeros((20, 50, 3), np.uint8)
    figure = figures.image_concepts(overlay, crops, order, VALUES, COLOURS, NAMES)
    left, middle, right, chart = figure.subfigs
    assert np.array_equal(middle.axes[0].images[0].get_array(), overlay)
    titles = [ax.get_title() for side in (left, right) for ax in side.axes]
    assert titles == [NAMES[i] for i in order]
    assert [len(ax.child_axes) for ax in left.axes] == [6] * -(-count // 2)
    assert [height for height, _ in _bars(chart.axes[0])] == [VALUES[i] for i in order]
    assert _pixels(figure).shape[2] == 4


def test_figures_are_made_without_pyplot_and_in_any_thread():
    loaded = "matplotlib.pyplot" in sys.modules
    made = []
    threads = [
        threading.Thread(target=lambda: made.append(_pixels(figures.importances(VALUES, COLOURS)))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 3 and all(np.array_equal(made[0], other) for other in made)
    assert ("matplotlib.pyplot" in sys.modules) == loaded


def test_notebooks_show_a_figure_as_it_would_be_saved(tmp_path):
    figure = figures.importances(VALUES, COLOURS)
    figure.savefig(tmp_path / "figure.png")
    shown = cv2.imdecode(np.frombuffer(figure._repr_png_(), np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(shown, cv2.imread(str(tmp_path / "figure.png")))

import io

import cv2
import numpy as np
import pytest

from craft_onnx.show.attributions import attribution_overlay
from craft_onnx.show.imgify import imgify
from craft_onnx.show.relevance import ConceptRow, conditional_figure, maximization_figure, plot_grid
from craft_onnx_models import birds

PICTURES = [bird.picture for bird in birds.draw_many(8, seed=3)]
HEATS = list(np.random.default_rng(0).standard_normal((8, 96, 96)))


def shown(fig):
    """(left, top, picture) of every tile, inches."""
    width, height = fig.get_size_inches()
    boxes = [(ax.get_position(), np.asarray(ax.get_images()[0].get_array())) for ax in fig.axes]
    return [(box.x0 * width, height - box.y1 * height, picture) for box, picture in boxes]


def texts(fig):
    return [text.get_text() for text in fig.texts]


def test_a_concept_is_a_row():
    grid = plot_grid({7: PICTURES[:5], 12: PICTURES[5:6], 3: PICTURES[6:]})
    tiles = shown(grid)
    assert texts(grid) == ["7", "12", "3"]
    assert [round(top, 3) for _, top, _ in tiles] == sorted(round(top, 3) for _, top, _ in tiles)
    counts = np.unique([round(top, 3) for _, top, _ in tiles], return_counts=True)[1]
    assert counts.tolist() == [5, 1, 2]
    for (_, _, tile), picture in zip(tiles, PICTURES, strict=True):
        np.testing.assert_array_equal(tile, picture)


def test_heatmaps_stand_below_their_pictures():
    grid = plot_grid({7: (PICTURES[:3], HEATS[:3])}, titles=["beak"], cmap="hot", symmetric=False)
    tiles = shown(grid)
    assert texts(grid) == ["beak"] and len(tiles) == 6
    for i in range(3):
        assert tiles[i][0] == pytest.approx(tiles[3 + i][0]) and tiles[i][1] < tiles[3 + i][1]
        np.testing.assert_array_equal(tiles[i][2], PICTURES[i])
        np.testing.assert_array_equal(tiles[3 + i][2], imgify(HEATS[i], "hot"))


def test_heatmaps_that_are_coloured_stay_as_they_are():
    coloured = [imgify(heat, symmetric=True) for heat in HEATS[:2]]
    for (_, _, tile), picture in zip(shown(plot_grid({0: (PICTURES[:2], coloured)}))[2:], coloured, strict=True):
        np.testing.assert_array_equal(tile, picture)


def test_the_colour_map_can_be_for_the_first_of_a_pair():
    tiles = shown(plot_grid({0: (HEATS[:1], PICTURES[:1])}, cmap_dim=0))
    np.testing.assert_array_equal(tiles[0][2], imgify(HEATS[0], symmetric=True))


def test_crops_are_padded_to_squares_of_one_size():
    crops = [PICTURES[0][:20], PICTURES[1][:, :50], PICTURES[2]]
    tiles = [picture.shape for _, _, picture in shown(plot_grid({0: crops}, resize=64))]
    assert tiles == [(64, 64, 3)] * 3


def test_tiles_lie_within_the_figure_and_not_on_each_other():
    grid = plot_grid({"a concept of a long $name$": PICTURES[:4], 2: (PICTURES[:7], HEATS[:7])}, figsize=(7, 3))
    boxes = [ax.get_position() for ax in grid.axes]
    assert all(box.x0 >= 0 and box.y0 >= 0 and box.x1 <= 1 and box.y1 <= 1 for box in boxes)
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert grid.get_size_inches().tolist() == [7, 3]
    grid.savefig(io.BytesIO())  # dollar signs would fail as formulas


def test_a_grid_of_nothing_is_a_blank_figure():
    assert plot_grid({}).axes == [] and len(plot_grid({1: []}).axes) == 0


def test_the_figure_of_a_prediction_has_everything():
    rows = [ConceptRow(7, 0.42, HEATS[1], PICTURES[1:4]), ConceptRow("crest", -0.1, np.zeros((3, 3)), PICTURES[4:5])]
    fig = conditional_figure(PICTURES[0], HEATS[0], rows, "coast tern")
    expected = [PICTURES[0], attribution_overlay(PICTURES[0], HEATS[0])]
    for row in rows:
        expected += [attribution_overlay(PICTURES[0], row.heatmap), *row.references]
    for (_, _, tile), picture in zip(shown(fig), expected, strict=True):
        np.testing.assert_array_equal(tile, picture)
    assert {"coast tern", "7\n+42.0%", "crest\n-10.0%"} <= set(texts(fig))
    assert fig._repr_png_()[:4] == b"\x89PNG"


@pytest.mark.parametrize("generated", [None, cv2.resize(PICTURES[0], (40, 40))])
def test_activation_stands_on_the_left_of_relevance(generated):
    fig = maximization_figure(PICTURES[:5], PICTURES[5:], "channel 7", generated, columns=3)
    tiles = shown(fig)
    extra = 0 if generated is None else 1
    assert len(tiles) == 8 + extra and texts(fig)[0] == "channel 7"
    assert max(left for left, _, _ in tiles[extra : 5 + extra]) < min(left for left, _, _ in tiles[5 + extra :])
    for (_, _, tile), picture in zip(tiles[extra:], PICTURES, strict=True):
        np.testing.assert_array_equal(tile, picture)

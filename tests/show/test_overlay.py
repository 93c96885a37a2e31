import cv2
import numpy as np
import pytest

from craft_onnx.show.colours import concept_colours
from craft_onnx.show.overlay import (
    concept_overlay,
    contact_sheet,
    fitted,
    framed,
    heatmap,
    legend,
    strength,
    write_png,
)

COLOURS = concept_colours(3)


def _picture(height=60, width=90):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def _maps(height=5, width=7, k=3):
    return np.random.default_rng(1).random((height, width, k)).astype(np.float32)


def _literal_strength(heat, size, filter_percentile, clip_percentile):
    """The steps one by one, a pixel at a time where they are ours."""
    threshold = np.percentile(heat.ravel(), filter_percentile)
    kept = np.array([[v if v >= threshold else 0.0 for v in row] for row in heat], np.float32)
    enlarged = cv2.resize(kept, (size[1], size[0]), interpolation=cv2.INTER_CUBIC).clip(0)
    seen = sorted(v for v in enlarged.ravel() if v > 0)
    low, high = np.percentile(seen, clip_percentile), np.percentile(seen, 100 - clip_percentile)
    return np.array([[min(max((v - low) / (high - low), 0), 1) for v in row] for row in enlarged])


@pytest.mark.parametrize("percentiles", [(90, 10), (50, 1), (0, 25)])
@pytest.mark.parametrize("size", [(60, 90), (90, 60), (33, 33)])
def test_the_strength_of_a_map_is_its_definition(size, percentiles):
    heat = _maps()[..., 0]
    assert np.abs(strength(heat, size, *percentiles) - _literal_strength(heat, size, *percentiles)).max() < 1e-5


def test_an_overlay_blends_the_least_important_concept_first():
    picture, maps = _picture(), _maps()
    expected = picture.astype(float)
    for concept in (1, 0, 2):  # the last one is drawn on top
        opacity = 0.65 * _literal_strength(maps[..., concept], (60, 90), 90, 10)[..., None]
        expected = (1 - opacity) * expected + opacity * COLOURS[concept]
    assert np.abs(concept_overlay(picture, maps, [2, 0, 1], COLOURS) - expected).max() <= 0.51


@pytest.mark.parametrize("size", [(40, 120), (120, 40)])
def test_a_map_lands_where_it_belongs_on_pictures_of_any_shape(size):
    maps = np.zeros((4, 4, 1), np.float32)
    maps[0, 3] = 1  # top right
    drawn = concept_overlay(np.zeros((*size, 3), np.uint8), maps, [0], COLOURS)
    assert drawn.shape == (*size, 3)
    rows, columns = np.nonzero(drawn.any(axis=2))
    assert rows.mean() < size[0] / 4 and columns.mean() > size[1] * 3 / 4


def test_a_small_concept_is_drawn_fully_and_an_absent_one_not():
    small = np.zeros((16, 16), np.float32)
    small[3, 4] = 1e-3
    found = strength(small, (64, 64))
    assert found.max() == 1 and found[14, 18] == 1 and 0 < (found > 0).mean() < 0.03
    assert strength(np.zeros((4, 4)), (8, 8)).max() == 0
    assert strength(np.full((4, 4), 2.0), (8, 8)).min() == 1
    assert strength(np.full((4, 4), -1.0), (8, 8)).max() == 0


def test_traces_are_faint_where_full_strength_is_known():
    picture, maps = np.zeros((8, 8, 3), np.uint8), np.full((2, 2, 1), 0.1, np.float32)
    options = {"filter_percentile": 0, "clip_percentile": 0, "alpha": 1.0}
    white = np.full((1, 3), 255, np.uint8)
    assert concept_overlay(picture, maps, [0], white, **options).min() == 255
    assert concept_overlay(picture, maps, [0], white, full=np.array([1.0]), **options).max() == round(25.5)


def test_inputs_are_left_alone():
    picture, maps = _picture(), _maps()
    before = picture.copy(), maps.copy()
    concept_overlay(picture, maps, [0, 1], COLOURS)
    heatmap(picture, maps[..., 0])
    framed(picture, COLOURS[0])
    assert np.array_equal(picture, before[0]) and np.array_equal(maps, before[1])


def test_a_heatmap_is_grey_where_there_is_nothing():
    picture = _picture(8, 8)
    heat = np.zeros((8, 8), np.float32)
    heat[2, 2] = 3
    drawn = heatmap(picture, heat, COLOURS[1], alpha=1.0)
    assert drawn[2, 2].tolist() == COLOURS[1].tolist()
    assert np.ptp(drawn[7, 7].astype(int)) == 0
    luma = picture @ [0.299, 0.587, 0.114]
    assert abs(int(drawn[7, 7, 0]) - luma[7, 7]) <= 1
    assert np.ptp(heatmap(picture, heat)[2, 2].astype(int)) > 50


def test_a_frame_is_painted_inside_the_picture():
    drawn = framed(_picture(), COLOURS[0], 3)
    assert np.array_equal(drawn[3:-3, 3:-3], _picture()[3:-3, 3:-3])
    assert (drawn[:3] == COLOURS[0]).all() and (drawn[:, -3:] == COLOURS[0]).all()


@pytest.mark.parametrize(("shape", "inside"), [((20, 40), (16, 32)), ((40, 20), (32, 16)), ((7, 7), (32, 32))])
def test_fitting_keeps_proportions(shape, inside):
    tile = fitted(np.zeros((*shape, 3), np.uint8), (32, 32))
    rows, columns = np.nonzero(tile[..., 0] == 0)
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == inside
    assert abs(rows.mean() - 15.5) <= 0.5 and abs(columns.mean() - 15.5) <= 0.5


def test_a_contact_sheet_has_every_picture_in_order():
    pictures = [np.full((10 + i, 12, 3), 10 * i, np.uint8) for i in range(7)]
    sheet = contact_sheet(pictures, columns=3, tile=(20, 20), gap=4)
    assert sheet.shape == (3 * 24 + 4, 3 * 24 + 4, 3)
    for i in range(7):
        assert sheet[4 + i // 3 * 24 + 10, 4 + i % 3 * 24 + 10, 0] == 10 * i


def test_a_legend_shows_crops_in_their_colours_and_writes_below():
    crops = [np.full((9, 9, 3), 128, np.uint8)] * 3
    drawn = legend(crops, COLOURS, ["0", "ears", "très long " * 9], side=60)
    for i in range(3):
        left = 3 + i * 63
        assert (drawn[3, left : left + 60] == COLOURS[i]).all()
        caption = drawn[64:74, left : left + 60]
        assert (caption == COLOURS[i]).all(axis=2).any() and not (caption == COLOURS[i]).all()


def test_png_files_hold_the_same_pixels_and_appear_whole(tmp_path):
    write_png(tmp_path / "a.png", _picture())
    assert np.array_equal(cv2.imread(str(tmp_path / "a.png"))[..., ::-1], _picture())
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    with pytest.raises(OSError):
        write_png(tmp_path / "nowhere" / "a.png", _picture())

import numpy as np
import pytest

from craft_onnx.show.attributions import attribution_overlay, attribution_sheet, smoothed

PICTURE = np.full((40, 60, 3), 128, np.uint8)


def spot(value, size=(40, 60)):
    values = np.zeros(size)
    values[: size[0] // 4, : size[1] // 4] = value
    return values


def test_heat_is_where_the_map_is():
    drawn = attribution_overlay(PICTURE, spot(2.0)).astype(int)
    assert (drawn[30:, 30:] == 128).all()
    assert drawn[2, 2].tolist() != [128] * 3 and drawn[2, 2, 0] > drawn[2, 2, 2]  # yellow


def test_signs_have_two_colours_on_one_scale():
    values = spot(1.0) - np.roll(spot(0.5), 30, axis=1)
    drawn = attribution_overlay(PICTURE, values).astype(int)
    red, blue, nothing = drawn[2, 2], drawn[2, 35], drawn[30, 2]
    assert red[0] > red[2] and blue[2] > blue[0] and len(set(nothing)) == 1
    assert np.abs(red - nothing).sum() > np.abs(blue - nothing).sum()


def test_what_an_interpolation_leaves_below_zero_is_not_a_sign():
    heat = attribution_overlay(PICTURE, spot(1.0))
    np.testing.assert_array_equal(attribution_overlay(PICTURE, spot(1.0) - np.roll(spot(0.05), 30, axis=1)), heat)


def test_a_relative_map_is_shown_from_its_least_value():
    expected = attribution_overlay(PICTURE, spot(1.0))
    assert np.abs(attribution_overlay(PICTURE, spot(1.0) - 7, relative=True).astype(int) - expected).max() <= 1


@pytest.mark.parametrize("values", [np.zeros((4, 6)), np.zeros((80, 120))])
def test_a_map_of_zeros_is_the_picture_in_grey(values):
    np.testing.assert_array_equal(attribution_overlay(PICTURE, values), PICTURE)


def test_one_large_value_does_not_hide_the_others():
    values = spot(1.0)
    values[39, 59] = 1000
    drawn = attribution_overlay(PICTURE, values, smooth=0).astype(int)
    assert np.abs(drawn[2, 2] - 128).sum() > 100


def test_smoothing_keeps_the_mean():
    values = np.random.default_rng(0).standard_normal((100, 100))
    assert abs(smoothed(values, 0.02).mean() - values.mean()) < 0.01 and smoothed(values, 0.02).std() < 0.3


def test_the_sheet_has_a_tile_for_each():
    sheet = attribution_sheet(PICTURE, [PICTURE] * 4, ["picture", "a", "b", "c", "d"], columns=3, side=60)
    assert sheet.shape == (2 * (40 + 24 + 8) + 8, 3 * (60 + 8) + 8, 3)

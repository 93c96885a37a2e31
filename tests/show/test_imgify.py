import numpy as np
import pytest

from craft_onnx.errors import InputError
from craft_onnx.show.colour_maps import COLOUR_MAPS, palette
from craft_onnx.show.imgify import imgify

RNG = np.random.default_rng(0)
HEAT = RNG.standard_normal((9, 14))


def slowly(heat, low, high, colours):
    """Pixel by pixel: the place between low and high among 256 colours."""
    picture = np.zeros((*heat.shape, 3), np.uint8)
    for i, row in enumerate(heat):
        for j, value in enumerate(row):
            share = min(max((value - low) / (high - low), 0), 1)
            picture[i, j] = colours[int(np.floor(255 * share + 0.5))]
    return picture


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize(("vmin", "vmax"), [(None, None), (0, None), (-0.5, 0.7)])
def test_heat_goes_through_the_colour_map(symmetric, vmin, vmax):
    most = np.abs(HEAT).max()
    low, high = (-most, most) if symmetric else (HEAT.min(), HEAT.max())
    low, high = (low if vmin is None else vmin), (high if vmax is None else vmax)
    expected = slowly(HEAT, low, high, palette("bwr"))
    np.testing.assert_array_equal(imgify(HEAT, vmin=vmin, vmax=vmax, symmetric=symmetric), expected)


def test_zero_is_white_where_the_scale_is_symmetric():
    assert (imgify(np.array([[0.0, 3.0, -1.0]]), symmetric=True)[0, 0] == 255).all()
    assert (imgify(np.zeros((4, 5)), symmetric=True) == 255).all()


def test_bwr_ends_in_blue_and_red():
    drawn = imgify(np.array([[-2.0, 0, 2.0]]), symmetric=True)[0]
    assert drawn.tolist() == [[0, 0, 255], [255, 255, 255], [255, 0, 0]]


@pytest.mark.parametrize("shape", [(9, 14, 1), (1, 9, 14)])
def test_one_channel_may_stand_in_front_or_behind(shape):
    np.testing.assert_array_equal(imgify(HEAT.reshape(shape)), imgify(HEAT))


def test_three_channels_are_colours_stretched_to_all_that_can_be_shown():
    colours = RNG.uniform(0.2, 0.6, (9, 14, 3))
    drawn = imgify(colours)
    assert drawn.min() == 0 and drawn.max() == 255
    np.testing.assert_array_equal(imgify(np.moveaxis(colours, -1, 0)), drawn)
    exact = 255 * (colours - colours.min()) / np.ptp(colours)
    assert np.abs(drawn - exact).max() <= 0.5 + 1e-9


@pytest.mark.parametrize("options", [{}, {"symmetric": True}, {"vmin": 0.0, "vmax": 1.0}])
def test_a_picture_stays_what_it_is(options):
    picture = RNG.integers(0, 200, (9, 14, 3), dtype=np.uint8)
    shown = imgify(picture, **options)
    np.testing.assert_array_equal(shown, picture)
    assert shown is not picture


def test_bytes_with_one_channel_are_places_in_the_colour_map():
    places = RNG.integers(0, 256, (9, 14), dtype=np.uint8)
    np.testing.assert_array_equal(imgify(places, cmap="hot"), palette("hot")[places])


def test_the_longer_side_is_resized_and_the_shorter_padded():
    assert imgify(HEAT, resize=28).shape == (18, 28, 3)
    square = imgify(HEAT, padding=True)
    assert square.shape == (14, 14, 3) and (square[:2] == 255).all() and (square[-3:] == 255).all()
    np.testing.assert_array_equal(square[2:11], imgify(HEAT))
    assert imgify(HEAT, resize=28, padding=True).shape == (28, 28, 3)


def test_a_grid_scales_every_picture_by_itself():
    heats = np.stack([HEAT, 100 * HEAT, HEAT, HEAT, HEAT])
    sheet = imgify(heats, grid=True, gridfill=7)
    assert sheet.shape == (2 * 9, 3 * 14, 3)
    for i in range(5):
        top, left = i // 3 * 9, i % 3 * 14
        np.testing.assert_array_equal(sheet[top : top + 9, left : left + 14], imgify(HEAT))
    assert (sheet[9:, 28:] == 7).all()
    assert imgify(heats, grid=(5, 1)).shape == (45, 14, 3)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"image": np.zeros((2, 4, 5))}, "no picture"),
        ({"image": np.array([[np.nan, 1]])}, "NaN"),
        ({"image": np.zeros((0, 4))}, "empty"),
        ({"image": HEAT, "cmap": "no such map"}, "no colour map"),
        ({"image": HEAT[None, :, :].repeat(5, 0), "grid": (2, 2)}, "do not fit"),
    ],
)
def test_what_is_no_picture(arguments, problem):
    with pytest.raises(InputError, match=problem):
        imgify(**arguments)


@pytest.mark.parametrize("name", COLOUR_MAPS)
def test_colour_maps_are_lines_between_their_colours(name):
    colours = palette(name)
    assert colours.shape == (256, 3) and colours.dtype == np.uint8
    assert np.abs(np.diff(colours.astype(int), axis=0)).max() <= 7  # no jumps: 255 within 42 steps at the most


def test_colours_stand_at_their_indices():
    colours = palette("20:102030,fff,c:f00,000")
    assert colours[[0, 0x20, 0xCC, 0xFF]].tolist() == [[0x10, 0x20, 0x30]] * 2 + [[255, 0, 0], [0, 0, 0]]
    assert colours[(0x20 + 0xCC) // 2].tolist() == [255, 255, 255]


def test_a_level_brings_full_colours_to_the_middle():
    assert palette("bwr", level=2)[192].tolist() == [255, 0, 0] and palette("bwr", level=2)[64].tolist() == [0, 0, 255]
    assert palette("bwr", level=0.5)[254].tolist() == palette("bwr")[191].tolist()


def test_matplotlib_has_more():
    import matplotlib

    expected = np.rint(255 * matplotlib.colormaps["viridis"](np.arange(256) / 255)[:, :3])
    np.testing.assert_array_equal(palette("viridis"), expected)
    np.testing.assert_array_equal(palette(matplotlib.colormaps["viridis"]), expected)

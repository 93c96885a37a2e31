import numpy as np
import pytest

from craft_onnx.description import PRESETS, Preprocessing
from craft_onnx.errors import InputError
from craft_onnx.runtime.preprocess import (
    preprocess,
    preprocess_one,
    resize,
    stream_preprocessed,
    to_display,
    to_picture,
)


def _picture(height=50, width=70):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def _smooth_picture(height=60, width=90):
    y, x = np.mgrid[:height, :width]
    channels = [128 + 100 * np.sin(x / 17), 128 + 100 * np.cos(y / 13), 128 + 60 * np.sin((x + y) / 19)]
    return np.rint(np.stack(channels, -1)).astype(np.uint8)


def _literal_area(image, size):
    """Mean over the part of the plane that an output pixel covers; sizes divide each other."""
    fy, fx = image.shape[0] // size[0], image.shape[1] // size[1]
    return image.reshape(size[0], fy, size[1], fx, -1).mean(axis=(1, 3))


# The arithmetic of torchvision's Normalize and of keras.applications.imagenet_utils, written out.
LITERAL = {
    "torch": lambda x: (x / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225]),
    "caffe": lambda x: x[..., ::-1] - np.array([103.939, 116.779, 123.68]),
    "tf": lambda x: x / 127.5 - 1,
    "none": lambda x: x,
}


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_the_frameworks_own_arithmetic(preset, layout):
    picture = _picture()
    rule = Preprocessing.preset(preset, (25, 14), layout)
    x = preprocess_one(picture, rule)
    expected = LITERAL[preset](_literal_area(picture.astype(float), (25, 14)))
    assert x.dtype == np.float32 and x.flags.c_contiguous
    x = x.transpose(1, 2, 0) if layout == "NCHW" else x
    assert np.abs(x - expected).max() < 1e-6 * max(1, np.abs(expected).max()) * 2


def test_gray_is_the_luma_of_rec_601():
    rule = Preprocessing((50, 70), channel_order="gray", mean=(10.0,), std=(2.0,), scale=0.5)
    expected = (_picture() @ [0.299, 0.587, 0.114] * 0.5 - 10) / 2
    x = preprocess_one(_picture(), rule)
    assert x.shape == (1, 50, 70)
    assert np.abs(x[0] - expected).max() < 1e-4


def test_a_baked_rule_only_resizes():
    rule = Preprocessing.preset("torch", (10, 14), "NHWC", baked=True)
    x = preprocess_one(_picture(), rule)
    assert x.dtype == np.uint8
    assert np.abs(x - _literal_area(_picture().astype(float), (10, 14))).max() <= 0.5001
    assert np.array_equal(to_display(x, rule), x)


@pytest.mark.parametrize(
    ("size", "resized", "corner"), [((50, 70), (40, 56), (4, 12)), ((301, 100), (120, 40), (44, 4))]
)
def test_the_shorter_side_is_resized_then_the_centre_cut(size, resized, corner):
    picture = _picture(*size)
    rule = Preprocessing((32, 32), "NHWC", resize_to=40, interpolation="bilinear")
    whole = resize(picture, resized, "bilinear")
    assert np.array_equal(preprocess_one(picture, rule), whole[corner[0] :][:32, corner[1] :][:, :32])


def test_centre_crop_agrees_with_torchvisions_formula():
    for height in range(40, 60):
        rule = Preprocessing((33, 32), "NHWC", resize_to=40)
        picture = np.arange(height * 40 * 3, dtype=np.uint32).reshape(height, 40, 3).astype(np.uint8)
        top, left = round((height - 33) / 2.0), round((40 - 32) / 2.0)
        assert np.array_equal(preprocess_one(picture, rule), picture[top : top + 33, left : left + 32])


def test_bilinear_agrees_with_torch():
    torch = pytest.importorskip("torch")
    picture = _picture()
    tensor = torch.from_numpy(picture.transpose(2, 0, 1)[None].astype(np.float32))
    for size in ((224, 200), (30, 41)):
        expected = torch.nn.functional.interpolate(tensor, size, mode="bilinear", align_corners=False)[0].numpy()
        for interpolation in ("bilinear", "area")[: 1 + (size[0] > 50)]:
            assert np.abs(resize(picture, size, interpolation).transpose(2, 0, 1) - expected).max() < 255 * 1e-5


def test_area_averages_the_axis_that_shrinks_and_interpolates_the_other():
    picture = _picture(60, 20)
    rows = _literal_area(picture.astype(float), (15, 20))
    assert np.abs(resize(picture, (15, 50), "area") - resize(rows, (15, 50), "bilinear")).max() < 1e-3


@pytest.mark.parametrize("interpolation", ["area", "bilinear", "bicubic"])
def test_the_same_size_stays_the_same_picture(interpolation):
    assert np.array_equal(resize(_picture(), (50, 70), interpolation), _picture())


def test_pictures_of_all_sizes_are_stacked_in_order():
    pictures = [_picture(20 + i, 30 - i) for i in range(9)]
    rule = Preprocessing.preset("torch", (16, 16))
    x = preprocess(iter(pictures), rule)
    assert x.shape == (9, 3, 16, 16)
    assert np.array_equal(x, np.stack([preprocess_one(picture, rule) for picture in pictures]))
    assert np.array_equal(x, np.stack(list(stream_preprocessed(pictures, rule))))


def test_no_pictures_are_no_input():
    with pytest.raises(InputError, match="No pictures"):
        preprocess([], Preprocessing((8, 8)))


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("preset", PRESETS)
def test_display_inverts_the_arithmetic(preset, layout):
    rule = Preprocessing.preset(preset, (50, 70), layout)
    x = preprocess_one(_picture(), rule)
    assert np.array_equal(to_display(x, rule), _picture())
    assert np.array_equal(to_display(np.stack([x, x]), rule), np.stack([_picture()] * 2))


def test_display_of_gray_has_three_channels_and_clips():
    rule = Preprocessing((2, 2), channel_order="gray", mean=(0.0,), std=(1.0,), scale=1 / 255)
    shown = to_display(np.array([[[-1.0, 0.0], [0.2, 2.0]]], np.float32), rule)
    assert shown.shape == (2, 2, 3)
    assert shown[..., 0].tolist() == [[0, 0], [51, 255]]


def test_a_map_comes_back_as_the_picture_itself():
    """The picture's own channels, as a map over the model's input, land on the picture where it was seen."""
    picture = _smooth_picture(60, 90)
    rule = Preprocessing((64, 48), "NHWC", resize_to=80, interpolation="bilinear")
    back = to_picture(preprocess_one(picture, rule), rule, (60, 90))
    inside = (back > 0).all(axis=-1)
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    # 80x120 after resizing; the crop starts at (8, 36) and is seen through pixels of 0.75.
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (6, 53, 27, 62)
    seen = back[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    assert np.abs(seen - picture[6:54, 27:63])[1:-1, 1:-1].max() < 2.0  # smooth waves, resampled twice


def test_a_coarse_map_covers_the_whole_input():
    rule = Preprocessing((32, 32))
    coarse = np.random.default_rng(0).random((4, 4)).astype(np.float32)
    fine = resize(coarse[..., None], (32, 32), "bilinear")[..., 0]
    assert np.abs(to_picture(coarse, rule, (32, 32)) - fine).max() < 1e-6
    expected = resize(coarse[..., None], (48, 100), "bilinear")[..., 0]
    assert np.abs(to_picture(coarse, rule, (48, 100)) - expected).max() < 1e-6


def test_maps_keep_their_channels_and_constants():
    rule = Preprocessing((30, 30), resize_to=40)
    maps = to_picture(np.full((30, 30, 5), 2.5, np.float32), rule, (80, 120))
    assert maps.shape == (80, 120, 5) and maps.dtype == np.float32
    assert set(np.unique(maps)) == {np.float32(0), np.float32(2.5)}
    assert (maps[..., 0] > 0).sum() == 60 * 60

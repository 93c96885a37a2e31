import cv2
import numpy as np
import pytest

from craft_onnx.errors import InputError
from craft_onnx.show.imgify import imgify
from craft_onnx.show.references import vis_img_heatmap, vis_opaque_img
from craft_onnx_models import birds

BIRDS = birds.draw_many(3, seed=3)
PICTURES = [bird.picture for bird in BIRDS]
HEATS = [bird.masks["beak"] - 0.3 * bird.masks["tail"] for bird in BIRDS]


def gaussian(size):
    """Weights of the kernel: the standard deviation is that of OpenCV and of torchvision, 0.15 size + 0.35."""
    weights = np.exp(-(((np.arange(size) - size // 2) / (0.15 * size + 0.35)) ** 2) / 2)
    return weights / weights.sum()


def blurred(heat, size):
    """The positive heat, convolved along rows and columns, mirrored at the border without repeating its pixels."""
    padded = np.pad(np.maximum(heat, 0), size // 2, mode="reflect")
    along = np.apply_along_axis(np.convolve, 0, padded, gaussian(size), "valid")
    return np.apply_along_axis(np.convolve, 1, along, gaussian(size), "valid")


def slowly(picture, heat, rf, alpha, vis_th, crop_th, size):
    soft = blurred(heat, size)
    rows, columns = np.nonzero(soft > crop_th * soft.max())
    drawn = picture.copy()
    for i in range(picture.shape[0]):
        for j in range(picture.shape[1]):
            if not soft[i, j] > vis_th * soft.max():
                drawn[i, j] = np.rint(np.float32(alpha) * picture[i, j])
    return drawn[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] if rf else drawn


@pytest.mark.parametrize("rf", [False, True])
@pytest.mark.parametrize(("alpha", "vis_th", "crop_th", "size"), [(0.3, 0.2, 0.1, 19), (0, 0.5, 0.4, 7)])
def test_what_the_heat_lies_on_stays_bright(rf, alpha, vis_th, crop_th, size):
    found = vis_opaque_img(PICTURES, HEATS, rf, alpha, vis_th, crop_th, size)
    for drawn, picture, heat in zip(found, PICTURES, HEATS, strict=True):
        np.testing.assert_array_equal(drawn, slowly(picture, heat, rf, alpha, vis_th, crop_th, size))


def test_heat_in_a_corner_leaves_the_corner_bright():
    heat = np.zeros((96, 96))
    heat[:10, :10] = 2.0
    (drawn,) = vis_opaque_img(PICTURES[:1], [heat])
    np.testing.assert_array_equal(drawn[:10, :10], PICTURES[0][:10, :10])
    np.testing.assert_array_equal(drawn[40:], np.rint(np.float32(0.3) * PICTURES[0][40:]))


def test_the_crop_is_exactly_the_box_of_the_heat():
    heat = np.zeros((96, 96))
    heat[20:31, 40:66] = 1.0
    (drawn,) = vis_opaque_img(PICTURES[:1], [heat], rf=True, kernel_size=1)
    np.testing.assert_array_equal(drawn, PICTURES[0][20:31, 40:66])


def test_a_crop_at_the_border_stays_within_the_picture():
    heat = np.zeros((96, 96))
    heat[-1, -1] = 1.0
    (drawn,) = vis_opaque_img(PICTURES[:1], [heat], rf=True, kernel_size=1)
    np.testing.assert_array_equal(drawn, PICTURES[0][-1:, -1:])


@pytest.mark.parametrize("rf", [False, True])
@pytest.mark.parametrize("heat", [np.zeros((96, 96)), np.full((96, 96), -1.0)])
def test_no_heat_leaves_all_dark(rf, heat):
    (drawn,) = vis_opaque_img(PICTURES[:1], [heat], rf)
    np.testing.assert_array_equal(drawn, np.rint(np.float32(0.3) * PICTURES[0]))


def test_pictures_and_heatmaps_have_sizes_of_their_own():
    pictures = [np.full((40, 60, 3), 200, np.uint8), np.full((96, 30, 3), 200, np.uint8)]
    heat = np.zeros((6, 6))
    heat[0, 0] = 1
    for drawn, picture in zip(vis_opaque_img(pictures, [heat, heat], kernel_size=3), pictures, strict=True):
        assert drawn.shape == picture.shape and (drawn[0, 0] == 200).all() and (drawn[-1, -1] == 60).all()


def test_tensors_of_floats_are_pictures_too():
    scaled = np.stack(PICTURES).transpose(0, 3, 1, 2) / 255
    for drawn, one, heat in zip(vis_opaque_img(scaled, HEATS), scaled, HEATS, strict=True):
        np.testing.assert_array_equal(drawn, slowly(imgify(one), heat, False, 0.3, 0.2, 0.1, 19))


def test_pictures_come_with_their_heatmaps():
    shown, coloured = vis_img_heatmap(PICTURES, HEATS)
    for i in range(3):
        np.testing.assert_array_equal(shown[i], PICTURES[i])
        np.testing.assert_array_equal(coloured[i], imgify(HEATS[i].astype(np.float32), symmetric=True))


def test_both_are_cropped_alike_and_keep_their_scale():
    cropped, coloured = vis_img_heatmap(PICTURES, HEATS, rf=True, cmap="hot", symmetric=False, vmin=0)
    for i in range(3):
        soft = blurred(HEATS[i], 19)
        box = cv2.boundingRect((soft > 0.1 * soft.max()).astype(np.uint8))
        where = slice(box[1], box[1] + box[3]), slice(box[0], box[0] + box[2])
        np.testing.assert_array_equal(cropped[i], PICTURES[i][where])
        np.testing.assert_array_equal(coloured[i], imgify(HEATS[i].astype(np.float32), "hot", vmin=0)[where])


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="3 pictures and 2 heatmaps"):
        vis_opaque_img(PICTURES, HEATS[:2])
    with pytest.raises(InputError, match="no middle"):
        vis_opaque_img(PICTURES, HEATS, kernel_size=18)

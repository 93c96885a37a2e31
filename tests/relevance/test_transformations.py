"""Views of pictures against a literal bilinear loop and OpenCV; their adjoints against scalar products."""

import cv2
import numpy as np
import pytest

from craft_onnx.relevance.transformations import Transformations, pulled_back, sampling, seen_through, view

SIZE, SEEN = (11, 9), (7, 12)
RNG = np.random.default_rng(0)
PICTURES = RNG.random((2, *SIZE, 3)).astype(np.float32)
ANY = {"shift": (1.3, -0.7), "turn": 0.3, "zoom": 0.8}


def slowly(pictures, affine, seen):
    """Each pixel by its place in the picture: the four around it, weighted, grey outside."""
    result = np.full((len(pictures), *seen, 3), 0.5)
    for i, j in np.ndindex(*seen):
        row, column = affine @ (i, j, 1)
        for y in (int(np.floor(row)), int(np.floor(row)) + 1):
            for x in (int(np.floor(column)), int(np.floor(column)) + 1):
                if 0 <= y < pictures.shape[1] and 0 <= x < pictures.shape[2]:
                    result[:, i, j] += (1 - abs(row - y)) * (1 - abs(column - x)) * (pictures[:, y, x] - 0.5)
    return result


@pytest.mark.parametrize("mirror", [False, True])
def test_views_are_bilinear(mirror):
    affine = view(SIZE, SEEN, **ANY, mirror=mirror)
    found = seen_through(sampling(affine, SIZE, SEEN), PICTURES, SEEN)
    np.testing.assert_allclose(found, slowly(PICTURES, affine, SEEN), atol=1e-6)  # weights are float32


def test_the_way_back_is_the_adjoint():
    matrix = sampling(view(SIZE, SEEN, **ANY), SIZE, SEEN)
    cotangent = RNG.random((2, *SEEN, 3)).astype(np.float32)
    linear = (seen_through(matrix, PICTURES, SEEN) - 0.5).astype(np.float64)
    expected = (linear * cotangent).sum(axis=(1, 2, 3))
    actual = ((PICTURES - 0.5).astype(np.float64) * pulled_back(matrix, cotangent, SIZE)).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(actual, expected, rtol=1e-5)  # sums in float32


def straight(pictures, seen, **options):
    size = pictures.shape[1:3]
    return seen_through(sampling(view(size, seen, **options), size, seen), pictures, seen)


def test_a_straight_view_is_the_picture():
    np.testing.assert_array_equal(straight(PICTURES, SIZE), (PICTURES - 0.5) + 0.5)


def test_turns_mirrors_and_shifts_of_whole_pixels():
    square = PICTURES[:, :9]
    close = {"atol": 1e-5, "rtol": 0}
    np.testing.assert_allclose(straight(square, (9, 9), mirror=True), square[:, :, ::-1], **close)
    turned = straight(square, (9, 9), turn=np.pi / 2)
    assert any(np.allclose(turned, np.rot90(square, k, (1, 2)), **close) for k in (1, 3))
    shifted = straight(square, (9, 9), shift=(2.0, 0.0))
    np.testing.assert_allclose(shifted[:, :-2], square[:, 2:], **close)
    np.testing.assert_array_equal(shifted[:, -2:], 0.5)


def test_half_the_size_averages_fours():
    picture = PICTURES[:, :10, :8]
    expected = picture.reshape(2, 5, 2, 4, 2, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(straight(picture, (5, 4)), expected, atol=1e-6)


def test_a_small_magnification_is_surrounded_by_grey():
    seen = straight(np.ones((1, 20, 20, 3), np.float32), (20, 20), zoom=0.5)
    assert (seen[:, 6:14, 6:14] == 1).all() and (seen[:, :4] == 0.5).all() and (seen[:, :, -4:] == 0.5).all()


def test_opencv_sees_the_same():
    size = (40, 50)
    picture = cv2.GaussianBlur(RNG.random((*size, 3)).astype(np.float32), (0, 0), 2)
    affine = view(size, size, **ANY)
    swapped = affine[::-1][:, [1, 0, 2]]  # x before y
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    expected = cv2.warpAffine(picture, swapped, size[::-1], flags=flags, borderValue=(0.5, 0.5, 0.5))
    found = seen_through(sampling(affine, size, size), picture[None], size)[0]
    assert np.abs(found - expected).max() < 0.02  # it rounds positions to a 32nd of a pixel


def test_what_is_drawn_stays_within_its_bounds():
    views = Transformations(jitter=0.1, scale=(0.8, 1.25), rotation=20, flip=True)
    rng, mirrored = np.random.default_rng(3), 0
    for _ in range(200):
        affine = views.draw(rng, (50, 60), (50, 60))
        zoom = 1 / np.sqrt(abs(np.linalg.det(affine[:, :2])))
        turn = np.arctan2(affine[1, 0], affine[0, 0])
        shift = affine @ (24.5, 29.5, 1) - (24.5, 29.5)
        mirrored += np.linalg.det(affine[:, :2]) < 0
        assert 0.8 <= zoom <= 1.25 and abs(turn) <= np.deg2rad(20) + 1e-9 and np.abs(shift).max() <= 5
    assert 60 < mirrored < 140
    again = np.random.default_rng(3)
    first, second = (views.draw(rng, (5, 6), (5, 6)) for rng in (again, np.random.default_rng(3)))
    np.testing.assert_array_equal(first, second)

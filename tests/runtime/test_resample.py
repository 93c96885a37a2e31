import numpy as np
import pytest

from craft_onnx.runtime.resample import bicubic, keys, linear_taps, resample


def _keys(t):
    """R. Keys, 1981, equation 15: a = -0.5."""
    t = abs(t)
    if t <= 1:
        return 1.5 * t**3 - 2.5 * t**2 + 1
    return -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2 if t < 2 else 0.0


def _literal_bicubic(image, size):
    """Every output pixel from the 16 around it; those outside are left out and the others' weights scaled to 1."""
    height, width = image.shape[:2]
    out = np.zeros((*size, image.shape[2]))
    for i in range(size[0]):
        for j in range(size[1]):
            y, x = (i + 0.5) * height / size[0] - 0.5, (j + 0.5) * width / size[1] - 0.5
            total = 0.0
            for row in range(max(int(y) - 3, 0), min(int(y) + 5, height)):
                for column in range(max(int(x) - 3, 0), min(int(x) + 5, width)):
                    weight = _keys(y - row) * _keys(x - column)
                    out[i, j] += weight * image[row, column]
                    total += weight
            out[i, j] /= total
    return out


@pytest.mark.parametrize("size", [(14, 11), (20, 5), (3, 3), (7, 9)])
def test_bicubic_is_keys_cubic_convolution(size):
    image = np.random.default_rng(0).random((7, 9, 2))
    assert np.abs(bicubic(image, size) - _literal_bicubic(image, size)).max() < 1e-13


def test_keys_kernel_interpolates_quadratics_exactly():
    # Third-order convergence is what a = -0.5 is for; OpenCV's -0.75 misses this by 1e-2.
    for t in np.linspace(0, 1, 11):
        at = np.array([-1, 0, 1, 2])
        assert keys(np.abs(t - at)) @ at**2 == pytest.approx(t**2, abs=1e-14)


def test_the_same_size_is_the_same_picture():
    image = np.random.default_rng(0).random((7, 9, 3))
    assert np.abs(bicubic(image, (7, 9)) - image).max() < 1e-15


def test_linear_taps_interpolate_and_repeat_the_edge():
    values = np.array([1.0, 3.0, 7.0])
    positions = np.array([-5.0, -0.25, 0.0, 0.5, 1.75, 2.0, 2.4, 9.0])
    indices, weights = linear_taps(positions, 3)
    assert resample(values, indices, weights, 0) == pytest.approx([1, 1, 1, 2, 6, 7, 7, 7])

"""Pictures by their spectrum: derivatives by differences in float64; noise has the statistics of photographs."""

import numpy as np
import pytest

from craft_onnx.relevance.fourier import COLOUR_AXES, pictures_of, random_spectra, spectrum_shape

SIZES = [(8, 10), (7, 9), (6, 5), (2, 2)]


def normal(rng, size, count=2):
    parts = rng.standard_normal((2, count, *spectrum_shape(size)))
    return parts[0] + 1j * parts[1]


def columns(size):
    """Masks of the columns of the real FFT that are there once, and of those that stand for two."""
    once = np.zeros(size[1] // 2 + 1, bool)
    once[0] = True
    once[-1] |= size[1] % 2 == 0
    return [mask for mask in (once, ~once) if mask.any()]


@pytest.mark.parametrize("size", SIZES)
def test_cotangents_are_pulled_back_exactly(size):
    rng = np.random.default_rng(0)
    spectra, step = normal(rng, size), 1e-6
    pictures, pull = pictures_of(spectra, size)
    cotangent = rng.standard_normal(pictures.shape)
    pulled = pull(cotangent)
    for mask in columns(size):
        direction = normal(rng, size) * mask
        ahead, behind = (pictures_of(spectra + sign * step * direction, size)[0] for sign in (1, -1))
        expected = ((ahead - behind) / (2 * step) * cotangent).sum()
        actual = (pulled.real * direction.real + pulled.imag * direction.imag).sum()
        assert actual == pytest.approx(expected, rel=1e-6)  # differences of float64 with steps of 1e-6


def test_zeros_are_grey():
    pictures, _ = pictures_of(np.zeros((1, *spectrum_shape((6, 8))), np.complex64), (6, 8))
    assert pictures.shape == (1, 6, 8, 3) and pictures.dtype == np.float32
    np.testing.assert_array_equal(pictures, 0.5)


def latent(pictures):
    """What the sigmoid was taken of, channels last."""
    return np.log(pictures / (1 - pictures))


def test_noise_has_the_colours_and_the_contrast_of_photographs():
    rng, size = np.random.default_rng(1), (32, 48)
    noise = latent(pictures_of(np.concatenate([random_spectra(rng, size, 1.0) for _ in range(200)]), size)[0])
    noise = noise.reshape(-1, 3).astype(np.float64)
    # The lowest frequencies carry most: 200 pictures are few thousand independent numbers, good for a tenth.
    expected = 16 * COLOUR_AXES @ COLOUR_AXES.T
    assert np.abs(noise.T @ noise / len(noise) / expected - 1).max() < 0.15
    faint = latent(pictures_of(random_spectra(rng, size, 0.1), size)[0])
    assert faint.std() == pytest.approx(0.1 * noise.std(), rel=0.3)


def test_the_spectrum_of_noise_falls_with_the_frequency():
    rng, size = np.random.default_rng(2), (64, 64)
    noise = latent(pictures_of(np.concatenate([random_spectra(rng, size, 1.0) for _ in range(100)]), size)[0])
    power = (np.abs(np.fft.rfft2(noise[..., 1], axes=(1, 2))) ** 2).mean(0)
    for k in (3, 6, 12):
        assert np.sqrt(power[0, k] / power[0, 2 * k]) == pytest.approx(2, rel=0.25)  # of 100 draws
        assert np.sqrt(power[k, 0] / power[0, k]) == pytest.approx(1, rel=0.5)

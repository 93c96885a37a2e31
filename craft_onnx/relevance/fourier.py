"""Pictures by their spectrum, in which gradient ascent reaches pictures that look like some.

Olah, Mordvintsev and Schubert 2017, "Feature Visualization", section "Preconditioning and Parameterization": steps of
one size in all frequencies, each divided by its frequency, and in colours that do not correlate.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Pull = Callable[[Array], Array]

# Principal axes of the colours of 286 photographs (RGB from 0 to 1), one a column, as long as their standard deviation:
# brightness, blue against red, green against magenta.
COLOUR_AXES = np.array([[0.249, -0.101, 0.027], [0.262, -0.008, -0.050], [0.275, 0.099, 0.024]], np.float32)
# Four is one over the slope of the sigmoid at grey: there, a step in the latent picture is one in the picture.
_TO_LOGITS = 4 * COLOUR_AXES


def spectrum_shape(size: tuple[int, int]) -> tuple[int, int, int]:
    """Shape of the spectrum of a picture of some height and width."""
    return 3, size[0], size[1] // 2 + 1


def pictures_of(spectra: Array, size: tuple[int, int]) -> tuple[Array, Pull]:
    """Pictures of spectra, and what pulls their cotangents back.

    A spectrum of standard normal numbers makes a picture with the contrast, the colours and the falling spectrum of a
    photograph; zeros make grey.

    Parameters
    ----------
    spectra : complex array (n, 3, height, width // 2 + 1)
        In steps of one size; the frequencies of the real FFT.
    size : (int, int)
        Height and width, pixels.

    Returns
    -------
    pictures : array (n, height, width, 3)
        RGB from 0 to 1.
    pull : callable
        From a cotangent like the pictures to one like the spectra: derivatives by real and imaginary parts.
    """
    scales, twice = _scales(size), _multiplicity(size)
    latent = np.fft.irfft2(spectra * scales, s=size, axes=(-2, -1), norm="ortho").astype(spectra.real.dtype)
    pictures = 1 / (1 + np.exp(-np.moveaxis(latent, 1, -1) @ _TO_LOGITS.T))

    def pull(cotangent: Array) -> Array:
        of_latent = np.moveaxis((cotangent * pictures * (1 - pictures)) @ _TO_LOGITS, -1, 1)
        found = np.fft.rfft2(of_latent, axes=(-2, -1), norm="ortho") * (twice * scales)
        return found.astype(spectra.dtype)  # numpy before 2.0 computes FFTs in double precision

    return pictures, pull


def random_spectra(rng: np.random.Generator, size: tuple[int, int], contrast: float) -> Array:
    """The spectrum (1, 3, height, width // 2 + 1) of a random picture, of a share of a photograph's contrast."""
    parts = rng.standard_normal((2, 1, *spectrum_shape(size)))
    return (contrast * (parts[0] + 1j * parts[1]) / np.sqrt(2)).astype(np.complex64)


@functools.cache
def _scales(size: tuple[int, int]) -> Array:
    """One over the frequency, (height, width // 2 + 1), such that the latent picture has variance 1."""
    down, across = np.fft.fftfreq(size[0])[:, None], np.fft.rfftfreq(size[1])[None]
    falling = 1 / np.maximum(np.hypot(down, across), 1 / max(size))
    variance = (_multiplicity(size) * falling**2).sum() / (size[0] * size[1])
    return (falling / np.sqrt(variance)).astype(np.float32)


@functools.cache
def _multiplicity(size: tuple[int, int]) -> Array:
    """How often each column of the real FFT is in the whole one, (width // 2 + 1,)."""
    twice = np.full(size[1] // 2 + 1, 2, np.float32)
    twice[0] = 1
    if size[1] % 2 == 0:
        twice[-1] = 1
    return twice

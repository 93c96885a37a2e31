"""Which concepts of different layers are the same: those that are active in the same crops and at the same places.

Concept banks of two layers have other channels and cannot be compared. Their coefficients can: over the crops, which
are the same at every cut, and over the positions of the same images.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Array = NDArray[np.float64]
# From this similarity on, two concepts count as one that is seen at both layers.
SAME = 0.5


def correlations(u: Floats, others: Floats) -> Array:
    """Pearson correlations (k, k') of the columns of coefficients (n, k) and (n, k'); 0 for a constant column."""
    return _standardised(u).T @ _standardised(others)


def area_means(maps: Floats, size: tuple[int, int]) -> NDArray[np.float32]:
    """Maps (n, H, W, k) on a grid that is not finer, (n, *size, k): each cell is the mean of the area it covers."""
    rows, columns = (_overlaps(length, count) for length, count in zip(maps.shape[1:3], size, strict=True))
    return np.einsum("ah,bw,nhwk->nabk", rows, columns, maps, optimize=True).astype(np.float32)


def similarities(crops_u: tuple[Floats, Floats] | None, maps: tuple[Floats, Floats] | None) -> Array:
    """Similarities (k, k') of the concepts of two cuts: the mean of what they correlate over crops and over positions.

    Parameters
    ----------
    crops_u : (array (n, k), array (n, k')), optional
        Coefficients of the same crops at both cuts.
    maps : (array (N, h, w, k), array (N, h, w, k')), optional
        Maps of the same images on one grid.
    """
    pairs = [pair for pair in (crops_u, maps) if pair is not None]
    found = [correlations(*(u.reshape(-1, u.shape[-1]) for u in pair)) for pair in pairs]
    return np.asarray(np.mean(found, axis=0))


def _standardised(u: Floats) -> Array:
    """Columns of mean 0 and length 1, or of zeros."""
    centred = np.asarray(u, np.float64) - u.mean(axis=0, dtype=np.float64)
    lengths = np.linalg.norm(centred, axis=0)
    # Of a constant column rounding leaves something.
    noise = 1e-6 * np.sqrt(len(u)) * np.abs(u).max(axis=0, initial=0.0)
    return np.where(lengths > noise, centred / np.where(lengths > 0, lengths, 1.0), 0.0)


def _overlaps(length: int, count: int) -> Array:
    """Of each of `count` cells, the shares (count, length) that the positions have in it."""
    edges, positions = np.linspace(0, length, count + 1), np.arange(length)
    covered = np.minimum(edges[1:, None], positions + 1) - np.maximum(edges[:-1, None], positions)
    return np.maximum(covered, 0) * count / length

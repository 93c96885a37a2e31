import numpy as np
import pytest
from scipy import ndimage

from craft_onnx.attribution.rise import ShiftedGrids, enlarging, rise
from craft_onnx.errors import InputError

RNG = np.random.default_rng(0)


def literal_masks(masks, size, feature_res):
    """Masks as the original and DIANNA make them, from the same grids and shifts.

    Theirs is skimage.transform.resize(grid, up_size, order=1, mode="reflect", anti_aliasing=False), which calls
    scipy.ndimage.zoom so.
    """
    cell = np.ceil(np.array(size) / feature_res).astype(int)
    up_size = (feature_res + 1) * cell
    made = []
    for grid, (y, x) in zip(masks.grids, masks.shifts, strict=True):
        up = ndimage.zoom(grid.astype(float), up_size / feature_res, order=1, mode="mirror", grid_mode=True)
        made.append(up[y : y + size[0], x : x + size[1]])
    return np.array(made)


@pytest.mark.parametrize("size, feature_res", [((24, 24), 8), ((17, 30), 4), ((9, 5), 1), ((10, 12), 7)])
def test_masks_are_those_of_the_original(size, feature_res):
    masks = ShiftedGrids(size, 20, feature_res, 0.4, 1)
    np.testing.assert_allclose(masks(0, slice(0, 20)), literal_masks(masks, size, feature_res), atol=1e-6)
    assert np.array_equal(masks(0, slice(5, 9)), masks(3, slice(0, 20))[5:9])


def test_grids_and_shifts_are_uniform():
    masks = ShiftedGrids((32, 40), 4000, 8, 0.3, 0)
    assert masks.grids.mean() == pytest.approx(0.3, abs=0.005)  # 256 000 cells: four standard deviations
    for axis, cell in enumerate((4, 5)):
        counts = np.bincount(masks.shifts[:, axis], minlength=cell)
        assert len(counts) == cell and counts.min() > 0.8 * 4000 / cell


def test_rows_of_the_enlargement_are_means_of_cells():
    np.testing.assert_allclose(enlarging(5, 7).sum(axis=1), 1, rtol=1e-6)


def quadratic(x):
    flat = x.reshape(len(x), -1)
    return np.stack([flat.sum(1) ** 2, flat.std(1)], axis=1)


@pytest.mark.parametrize("normalize", ["expected", "observed"])
def test_it_is_what_a_mask_by_mask_loop_finds(normalize):
    """The original's `explain`, and the mean of equation 3 over the masks drawn."""
    x = RNG.normal(size=(2, 3, 14, 10)).astype(np.float32)
    maps = rise(quadratic, x, [0, 1], n_masks=60, feature_res=3, p_keep=0.6, seed=4, normalize=normalize)
    masks = literal_masks(ShiftedGrids((14, 10), 60, 3, 0.6, 4), (14, 10), 3)
    for i in range(2):
        scores = np.array([quadratic((x[i] * mask)[None])[0, i] for mask in masks])
        kept = 60 * 0.6 if normalize == "expected" else masks.sum(axis=0)
        expected = (scores[:, None, None] * masks).sum(axis=0) / kept
        np.testing.assert_allclose(maps[i], expected, rtol=1e-5)


def test_what_matters_stands_out():
    x = np.ones((1, 3, 32, 32), np.float32)
    maps = rise(lambda rows: rows[:, :, 20:24, 8:12].mean(axis=(1, 2, 3))[:, None], x, 0, n_masks=1000)
    top, left = np.unravel_index(maps[0].argmax(), (32, 32))
    assert 18 <= top < 26 and 6 <= left < 14


@pytest.mark.parametrize("options", [{"n_masks": 0}, {"feature_res": 0}, {"p_keep": 0.0}, {"p_keep": 1.5}])
def test_masks_that_show_nothing_are_refused(model, inputs, options):
    with pytest.raises(InputError, match="none to explain with"):
        rise(model, inputs, 0, **options)


def test_unknown_normalisations_are_refused(model, inputs):
    with pytest.raises(InputError, match="'p'"):
        rise(model, inputs, 0, normalize="p")

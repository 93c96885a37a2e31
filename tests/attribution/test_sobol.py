import numpy as np
import pytest

from craft_onnx.attribution.sobol import sobol
from craft_onnx.attribution.total_indices import design, masks, total_indices

RNG = np.random.default_rng(0)


def at_centres(map_, cells):
    """Values of a map of 16 cells' side at the centres of cells; an odd side has a pixel there."""
    side = map_.shape[0] // cells
    return map_[side // 2 :: side, side // 2 :: side]


def test_additive_functions_have_a_closed_form():
    """y = sum c_i m_i, m uniform: ST_i = c_i^2 / sum c^2."""
    weights = RNG.normal(size=(3, 3))
    x = np.ones((1, 3, 15, 15), np.float32)
    pixels = weights.repeat(5, 0).repeat(5, 1)
    maps = sobol(lambda rows: (rows * pixels).sum(axis=(1, 2, 3))[:, None], x, 0, grid_size=3, nb_design=1024)
    # At the centre of a cell the interpolation is the cell's own value; 1024 points sample to some 1e-3.
    np.testing.assert_allclose(at_centres(maps[0], 3), weights**2 / (weights**2).sum(), atol=3e-3)


@pytest.mark.parametrize("sampler, estimator", [("sobol", "jansen"), ("lhs", "janon"), ("halton", "homma")])
def test_it_is_what_a_mask_by_mask_loop_finds(model, inputs, sampler, estimator):
    points = masks(design(sampler, 9, 8, seed=5))
    outputs = []
    for point in points:
        mask = np.kron(point.reshape(3, 3), np.ones((4, 4), np.float32))
        outputs.append(model.predict((inputs[:1] * mask + 0.3 * (1 - mask)).astype(np.float32))[0, 2])
    indices = total_indices(np.reshape(outputs, (10, 8)), estimator, ddof=0 if sampler == "sobol" else 1)
    maps = sobol(
        model, inputs[:1], 2, grid_size=3, nb_design=8, sampler=sampler, estimator=estimator, seed=5, baseline=0.3
    )
    # Cells of 4 pixels have no pixel at their centre: the mean over a cell's 4 middle pixels is close to it.
    middle = maps[0].reshape(3, 4, 3, 4)[:, 1:3, :, 1:3].mean(axis=(1, 3))
    assert np.corrcoef(middle.ravel(), indices)[0, 1] > 0.99
    exact = sobol(
        model, inputs[:1], 2, grid_size=12, nb_design=4, sampler="lhs", estimator=estimator, seed=5, baseline=0.3
    )
    assert exact.shape == (1, 12, 12)


def test_cells_of_one_pixel_are_not_interpolated(model, inputs):
    points = masks(design("sobol", 144, 4, seed=1))
    values = model.predict((inputs[:1] * points.reshape(-1, 1, 12, 12)).astype(np.float32))[:, 0]
    indices = total_indices(values.reshape(145, 4), ddof=0)
    maps = sobol(model, inputs[:1], 0, grid_size=12, nb_design=4, seed=1)
    np.testing.assert_allclose(maps[0].ravel(), indices, rtol=1e-3, atol=1e-7)  # tiny differences of float32 logits

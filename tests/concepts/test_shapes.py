"""Images and activations of every shape, from fit to the plots, against literal loops."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from craft_onnx.concepts.craft import Craft, DisplayImportancesOrder
from craft_onnx.concepts.nnls import nnls
from craft_onnx.errors import InputError

# Images (N, C, H, W), patch size, concepts.
SHAPES = {
    "one channel": ((5, 1, 24, 24), 8, 2),
    "many channels": ((5, 5, 24, 24), 8, 4),
    "high": ((4, 3, 41, 20), 8, 3),
    "wide": ((4, 3, 20, 41), 8, 3),
    "an odd patch": ((4, 3, 24, 24), 7, 3),
    "odd sides and patch": ((3, 3, 25, 33), 11, 3),
    "a patch as large as the image": ((6, 3, 16, 16), 16, 3),
    "one image": ((1, 3, 24, 24), 8, 3),
    "one concept": ((5, 3, 24, 24), 8, 1),
    "one of each": ((1, 1, 23, 17), 5, 1),
}


def g(x):
    """Activations (N, 2 C, H / 3, W / 3), not negative, that change with the place."""
    return np.concatenate([x, np.abs(x - 0.5)], axis=1)[:, :, ::3, ::3]


def h(a):
    pooled = a.mean(axis=(2, 3))
    return np.stack([np.log1p(pooled).sum(axis=1), -np.square(pooled).sum(axis=1)], axis=1)


def pictures(shape):
    return np.random.default_rng(0).random(shape, np.float32)


@pytest.fixture(scope="module", params=SHAPES)
def case(request):
    shape, patch, k = SHAPES[request.param]
    craft = Craft(g, h, number_of_concepts=k, patch_size=patch, batch_size=4, data_format="NCHW", nb_design=16)
    images = pictures(shape)
    craft.fit(images, class_id=1)
    craft.estimate_importance()
    return craft, images


def test_crops_lie_on_their_grid(case):
    craft, images = case
    patch, stride = craft.patch_size, int(0.8 * craft.patch_size)
    expected = [
        image[:, top : top + patch, left : left + patch]
        for image in images
        for top in range(0, images.shape[2] - patch + 1, stride)
        for left in range(0, images.shape[3] - patch + 1, stride)
    ]
    assert np.array_equal(np.asarray(craft.crops_), np.stack(expected))
    assert craft.crops_u_.shape == (len(expected), craft.number_of_concepts)
    assert craft.concept_bank_.shape == (craft.number_of_concepts, 2 * images.shape[1])


def test_coefficients_are_least_squares_at_every_position(case):
    craft, images = case
    u, a = craft.transform(images), g(images)
    assert u.shape == (len(images), *a.shape[2:], craft.number_of_concepts)
    for i, y, x in ((0, 0, 0), (len(images) - 1, a.shape[2] - 1, a.shape[3] - 1), (0, 1, a.shape[3] - 2)):
        assert np.allclose(u[i, y, x], nnls(a[i, :, y, x][None], craft.concept_bank_)[0], rtol=1e-5, atol=1e-6)
    assert np.allclose(craft.transform(images[0]), u[:1], rtol=1e-5, atol=1e-6)


def test_importances_are_of_every_concept(case):
    craft, images = case
    k = craft.number_of_concepts
    assert craft.importance_.values.shape == (k,) and craft.importance_.intervals.shape == (k, 2)
    assert craft.estimate_importance(images[0]).shape == (k,)
    if k == 1:  # 16 points
        assert craft.importance_.values == pytest.approx([1], abs=0.1)


def test_every_plot_is_drawn(case, tmp_path):
    craft, images = case
    most = craft.sensitivity.most_important_concepts
    figures = [
        craft.plot_concepts_importances(),
        craft.plot_concepts_crops(nb_crops=10, nb_most_important_concepts=1),  # some have fewer
        craft.plot_concept_attribution_legend(),
        craft.plot_concept_attribution_map(images[0], most),
        craft.plot_concept_attribution_maps(images[:2]),
        craft.plot_image_concepts(images[0], DisplayImportancesOrder.LOCAL, filepath=tmp_path / "all.png"),
    ]
    assert all(isinstance(figure, Figure) for figure in figures)
    assert figures[3].axes[0].images[0].get_array().shape == (*images.shape[2:], 3)
    assert (tmp_path / "all.png").stat().st_size > 5000


@pytest.mark.parametrize("count", [1, 5])
def test_activations_without_positions(count):
    """Plots but for the maps, and local importances, need no positions."""
    images = pictures((count, 3, 24, 24))
    craft = Craft(
        lambda x: g(x).mean(axis=(2, 3)),
        lambda a: a @ np.ones((6, 2)),
        number_of_concepts=2,
        patch_size=9,
        nb_design=16,
    )
    _, u, w = craft.fit(images, class_id=1)
    assert u.shape == (9 * count, 2) and w.shape == (2, 6)
    assert craft.transform(images).shape == (count, 2)
    craft.estimate_importance()
    assert craft.estimate_importance(images[0]).shape == (2,)
    for plot in (craft.plot_concepts_importances, craft.plot_concept_attribution_legend):
        assert isinstance(plot(), Figure)
    assert isinstance(craft.plot_concepts_crops(nb_crops=2), Figure)
    with pytest.raises(InputError, match="have no place"):
        craft.plot_image_concepts(images[0])


def test_activations_of_one_position_and_of_one_image_given():
    craft = Craft(g, h, number_of_concepts=2, patch_size=8, data_format="NCHW", nb_design=16)
    craft.fit(pictures((3, 3, 24, 24)))
    rows = np.random.default_rng(1).random((7, 6))
    assert craft.transform(None, rows).shape == (7, 2)
    assert craft.transform(None, rows[:, None]).shape == (7, 1, 2)
    assert np.array_equal(craft.transform(None, rows[:, None, None])[:, 0, 0], craft.transform(None, rows))

import math

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from craft_onnx.concepts.craft import Craft, DisplayImportancesOrder
from craft_onnx.concepts.importance import Importance
from craft_onnx.concepts.pictures import displayed
from craft_onnx.description import Preprocessing
from craft_onnx.errors import InputError, NotFittedError
from craft_onnx.runtime.model import SplitModel
from craft_onnx.show.colours import concept_colours


@pytest.fixture(scope="module")
def craft(bundles, images):
    made = Craft(SplitModel(bundles["linear"]), number_of_concepts=6, batch_size=16, patch_size=16)
    made.fit(images, class_id=2)
    made.estimate_importance()
    made.names_ = {1: "disc"}
    return made


def bars(figure):
    return figure.axes[0].patches


def test_importances_of_all_concepts_in_their_own_order(craft, capsys):
    figure = craft.plot_concepts_importances(verbose=True)
    assert isinstance(figure, Figure)
    assert np.allclose([bar.get_height() for bar in bars(figure)], craft.importance_.values)
    assert figure.axes[0].get_title() == "Global Concept Importance"
    order = np.argsort(craft.importance_.values)[::-1]
    assert np.allclose([to_rgb(bars(figure)[i].get_facecolor()) for i in order], concept_colours(6) / 255)
    assert "Concept disc has an importance value of" in capsys.readouterr().out
    assert np.allclose([bar.get_height() for bar in figure.axes[1].patches], craft.importance_.contributions)


def test_local_importances_are_ordered_and_keep_their_colours(craft, images):
    local = craft.estimate_importance(images[3])
    figure = craft.plot_concepts_importances(local, DisplayImportancesOrder.LOCAL, nb_most_important_concepts=3)
    order = np.argsort(local)[::-1][:3]
    assert np.allclose([bar.get_height() for bar in bars(figure)], local[order])
    assert np.allclose([to_rgb(bar.get_facecolor()) for bar in bars(figure)], craft.colours()[order] / 255)
    assert figure.axes[0].get_title() == "Local Concept Importance"


def test_best_crops_are_those_with_the_largest_coefficients(craft):
    best = np.argsort(craft.crops_u_[:, 2])[::-1]
    crops = craft.best_crops(2, 3)
    assert len(crops) == 3
    for crop, index in zip(crops, best, strict=False):
        pixels = craft.crops_[int(index)].transpose(1, 2, 0)
        assert np.array_equal(crop, np.clip(np.rint(pixels * 255), 0, 255))
    assert len(craft.best_crops(2, 1000)) == 108


def test_crops_legend_and_maps(craft, images):
    assert len(craft.plot_concepts_crops(nb_crops=7, nb_most_important_concepts=2).subfigs) == 2
    assert isinstance(craft.plot_concepts_crops(200, 1), Figure)
    assert len(craft.plot_concept_attribution_legend(4).axes) == 4
    figure = craft.plot_concept_attribution_maps(images[:7], nb_most_important_concepts=3, interpolation="nearest")
    shown = [image for ax in figure.axes for image in ax.images]
    assert len(shown) == 7 and {image.get_interpolation() for image in shown} == {"nearest"}
    assert shown[0].get_array().shape == (48, 40, 3)
    local = craft.estimate_importance(images[0])
    assert isinstance(craft.plot_concept_attribution_maps(images[0], importances=local), Figure)


def test_a_map_lies_where_the_concept_is(craft, images):
    """Not square: the height is not the width anywhere on the way."""
    image = images[2]
    concept = int(craft.sensitivity.most_important_concepts[0])
    figure = craft.plot_concept_attribution_map(image, [concept])
    drawn = np.asarray(figure.axes[0].images[0].get_array(), float)
    changed = np.abs(drawn - displayed(image, "NCHW", craft.halves_.preprocessing)).sum(axis=2)
    heat = craft.transform(image)[0, ..., concept]
    y, x = np.unravel_index(changed.argmax(), changed.shape)
    position = heat[min(9, y * 10 // 48), min(7, x * 8 // 40)]
    assert position >= np.percentile(heat, 80)


@pytest.mark.parametrize("order", list(DisplayImportancesOrder))
def test_everything_about_one_image(craft, images, order, tmp_path):
    figure = craft.plot_image_concepts(images[1], order, filepath=tmp_path / "image.png")
    assert (tmp_path / "image.png").stat().st_size > 10_000
    titles = [ax.get_title() for ax in figure.axes]
    assert f"{order.name.capitalize()} Concept Importance" in titles
    assert "disc" in " ".join(titles)


def test_more_concepts_than_xplique_has_colours_for(bundles, images):
    made = Craft(SplitModel(bundles["linear"]), number_of_concepts=20, batch_size=16, patch_size=16)
    made.fit(images, class_id=2)
    made.estimate_importance()
    assert len(np.unique(made.colours(), axis=0)) == 20
    assert len(bars(made.plot_concepts_importances())) == 20


def test_layout_parameters_are_xpliques(images):
    """As in `BaseCraft.compute_subplots_layout_parameters`, with height and width the right way round."""
    found, rows, figwidth, figheight = Craft.compute_subplots_layout_parameters(images, cols=5)
    assert (rows, figwidth) == (3, pytest.approx(5 * 2 + 4 * 0.3 + 0.6))
    assert figheight == pytest.approx(3 * 2 * 48 / 40 + 2 * 0.3 + 0.6)
    expected = {
        "left": 0.3 / figwidth,
        "right": 1 - 0.3 / figwidth,
        "bottom": 0.3 / figheight,
        "top": 1 - 0.3 / figheight,
        "wspace": 0.15,
        "hspace": 0.15 * 40 / 48,
    }
    assert found == pytest.approx(expected)
    transposed = Craft.compute_subplots_layout_parameters(images.transpose(0, 2, 3, 1), cols=5)
    assert transposed[1:] == (rows, pytest.approx(figwidth), pytest.approx(figheight))


def test_plots_before_importances(bundles, images):
    made = Craft(SplitModel(bundles["linear"]), number_of_concepts=3, batch_size=16, patch_size=16)
    made.fit(images, class_id=2)
    for plot in (made.plot_concepts_importances, made.plot_concepts_crops, made.plot_concept_attribution_legend):
        with pytest.raises(NotFittedError, match="estimate_importance"):
            plot()
    with pytest.raises(NotFittedError, match="estimate_importance"):
        made.plot_image_concepts(images[0])


def test_maps_need_positions(images):
    made = Craft(lambda x: x.mean(axis=(2, 3)), lambda a: a, number_of_concepts=2, patch_size=16)
    made.fit(images)
    made.importance_ = Importance(np.array([0.4, 0.6]), None, np.zeros(2), 0.0, False, 1)
    with pytest.raises(InputError, match=r"\(1, 2\) have no place"):
        made.plot_concept_attribution_map(images[0], [0])


def test_images_without_known_preprocessing_are_scaled_to_their_extremes():
    image = np.linspace(-2, 5, 2 * 3 * 3, dtype=np.float32).reshape(3, 2, 3)
    shown = displayed(image, "NCHW", None)
    assert shown.shape == (2, 3, 3) and shown.min() == 0 and shown.max() == 255
    assert math.isclose(shown[0, 1, 1], 255 * (image[1, 0, 1] + 2) / 7, abs_tol=0.5)
    assert displayed(image[:1], "NCHW", None).shape == (2, 3, 3)
    assert displayed(np.zeros((2, 3, 4)), "NHWC", None).max() == 0
    rule = Preprocessing.preset("torch", (2, 3))
    assert np.array_equal(
        displayed((image * 0 + 0.5), "NCHW", rule)[0, 0], np.rint(255 * np.array([0.5985, 0.568, 0.5185]))
    )

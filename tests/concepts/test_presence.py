import numpy as np
import pytest

from craft_onnx.concepts.craft import Craft
from craft_onnx.concepts.presence import dominant_concepts, prevalence, reliability
from craft_onnx.errors import InputError, NotFittedError
from craft_onnx.runtime.model import SplitModel

SETTINGS = {"number_of_concepts": 6, "batch_size": 5, "patch_size": 16}


@pytest.fixture(scope="module")
def craft(bundles, images):
    made = Craft(SplitModel(bundles["linear"]), **SETTINGS)
    made.fit(images, class_id=2)
    made.estimate_importance()
    return made


def literal_prevalence(explanation):
    """`HolisticCraft.reduce_to_prevalence` of Xplique 2.0.2, by its docstring: how often a concept comes first."""
    k, winners = explanation.shape[-1], []
    for one in explanation:
        means = [one[..., i].mean() for i in range(k)]
        winners.append(means.index(max(means)))
    return [winners.count(i) / len(winners) for i in range(k)], winners


@pytest.mark.parametrize("shape", [(9, 4), (9, 3, 2, 4), (9, 5, 4)])
def test_prevalence_and_reliability_are_xpliques(shape):
    rng = np.random.default_rng(0)
    explanation, right = rng.normal(size=shape), rng.integers(0, 2, 9)
    explanation[..., 3] = -10  # dominates nowhere
    shares, winners = literal_prevalence(explanation)
    assert prevalence(explanation).tolist() == shares and dominant_concepts(explanation).tolist() == winners
    found = reliability(explanation, right)
    for concept in range(3):
        members = [right[i] for i in range(9) if winners[i] == concept]
        assert found[concept] == pytest.approx(np.mean(members)) if members else np.isnan(found[concept])
    assert np.isnan(found[3])  # Xplique says 0, as if the model were always wrong there
    assert reliability(explanation, right.astype(bool)) == pytest.approx(found, nan_ok=True)


def test_importances_of_images_are_the_local_ones(craft, images):
    found = craft.image_importances()
    assert found.shape == (12, 6)
    for image, row in zip(images, found, strict=True):
        assert np.allclose(craft.estimate_importance(image), row, rtol=1e-5, atol=1e-7)
    assert np.allclose(craft.image_importances(images[4:6]), found[4:6], rtol=1e-5, atol=1e-7)
    assert craft.prevalence().sum() == pytest.approx(1)
    assert np.array_equal(craft.prevalence(images[:3]), prevalence(found[:3]))
    right = np.arange(12) % 3 == 0
    assert np.array_equal(craft.reliability(right), reliability(found, right), equal_nan=True)
    with pytest.raises(InputError, match=r"shape \(5,\) do not fit 12"):
        craft.reliability(right[:5])


def test_importances_of_images_where_the_head_is_sampled(bundles, images):
    exact = Craft(SplitModel(bundles["linear"]), **SETTINGS)
    sampled = Craft(SplitModel(bundles["linear"]), **SETTINGS, exact=False)
    for each in (exact, sampled):
        each.fit(images, class_id=2)
    # One design of 256 points: the error of an index is about 0.01.
    assert np.abs(exact.image_importances() - sampled.image_importances()).max() < 0.04
    assert np.abs(exact.image_importances() - sampled.image_importances(nb_design=2048)).max() < 0.01


def test_top_images_have_the_largest_mean_coefficient(craft, images):
    means = craft.transform(images).mean(axis=(1, 2))
    for concept in range(6):
        top = craft.top_images(concept, 4)
        assert top.tolist() == np.argsort(means[:, concept])[::-1][:4].tolist()
    assert craft.top_images(1, 2, images[5:]).tolist() == np.argsort(means[5:, 1])[::-1][:2].tolist()
    assert len(craft.top_images(0, 100)) == 12
    with pytest.raises(InputError, match=r"no concept 6.*0 to 5"):
        craft.top_images(6)


def test_the_plot_shows_top_images_with_one_map_each(craft, images):
    figure = craft.plot_top_images(nb_images=2, nb_most_important_concepts=3)
    assert len(figure.subfigs) == 3
    order = np.argsort(craft.importance_.values)[::-1]
    for block, concept in zip(figure.subfigs, order, strict=False):
        shown = [image.get_array() for ax in block.axes for image in ax.images]
        expected = [craft.overlays(images[i], [concept], 80, 5)[0] for i in craft.top_images(concept, 2)]
        assert all(np.array_equal(a, b) for a, b in zip(shown, expected, strict=True))
    assert len(craft.plot_top_images(images[:2], nb_images=5).subfigs) == 6


def test_rows_without_positions(images):
    craft = Craft(lambda x: x.mean(axis=(2, 3)), lambda a: a, number_of_concepts=2, patch_size=16)
    craft.fit(images)
    means = craft.transform(images)
    assert craft.top_images(1, 3).tolist() == np.argsort(means[:, 1])[::-1][:3].tolist()
    assert craft.prevalence().sum() == pytest.approx(1)


def test_before_fit(images):
    for call in ("top_images", "prevalence", "image_importances", "reliability"):
        with pytest.raises(NotFittedError, match="fit"):
            getattr(Craft(lambda x: x), call)(0)
    fitted = Craft(lambda x: x, lambda a: a.mean(axis=(2, 3)), number_of_concepts=2, patch_size=16)
    fitted.fit(images)
    with pytest.raises(NotFittedError, match="estimate_importance"):
        fitted.plot_top_images()

import numpy as np
import pytest

from craft_onnx.concepts.craft import Craft
from craft_onnx.concepts.factorisation import factorise
from craft_onnx.concepts.positions import PositionCrops, position_corners
from craft_onnx.errors import InputError
from craft_onnx.runtime.model import SplitModel

SETTINGS = {"number_of_concepts": 5, "batch_size": 5, "patch_size": 13, "crops": None}


@pytest.fixture(scope="module")
def model(bundles):
    return SplitModel(bundles["linear"])


@pytest.fixture(scope="module")
def craft(model, images):
    made = Craft(model, **SETTINGS)
    made.fit(images, class_id=2)
    made.estimate_importance()
    return made


def test_every_position_of_the_images_is_a_row(craft, model, images):
    rows = model.g(images).transpose(0, 2, 3, 1).reshape(-1, 24)
    found = factorise(rows, 5)
    assert rows.shape[0] == 12 * 10 * 8 == len(craft.crops_)
    assert np.allclose(craft.concept_bank_, found.w, atol=1e-5)
    assert craft.factorisation_.relative_error == pytest.approx(found.relative_error, rel=1e-4)


def test_coefficients_of_the_fit_are_those_of_transform(craft, images):
    found = craft.factorization
    assert found.coeffs_u.shape == (12, 10, 8, 5) and found.crops_u.shape == (960, 5)
    assert np.allclose(found.coeffs_u, craft.transform(images), rtol=1e-4, atol=1e-5)
    grid = Craft(craft.input_to_latent_model, **SETTINGS | {"crops": "grid"})
    grid.fit(images, class_id=2)
    assert grid.factorization.coeffs_u is None


def test_patches_lie_around_their_positions(craft, images):
    assert craft.crops_.shape == (960, 3, 13, 13)
    image, top, left = craft.crops_.origin(3 * 80 + 4 * 8 + 5)  # row 4 of 10 over 48 pixels, column 5 of 8 over 40
    assert image == 3
    assert abs(top + 6.5 - 4.5 * 4.8) <= 0.5 and abs(left + 6.5 - 5.5 * 5) <= 0.5
    assert np.array_equal(craft.crops_[3 * 80 + 4 * 8 + 5], images[3, :, top : top + 13, left : left + 13])
    corners = position_corners((48, 40), (10, 8), 13)
    assert corners.shape == (80, 2) and corners.min() == 0 and corners.max(axis=0).tolist() == [35, 27]
    with pytest.raises(InputError, match="patch size 41 is larger"):
        position_corners((48, 40), (10, 8), 41)


def test_best_crops_are_of_different_images(craft):
    u = craft.coeffs_u_[..., 1].reshape(12, -1)
    images = np.argsort(u.max(axis=1))[::-1]
    crops = craft.best_crops(1, 100)
    assert len(crops) == 12
    for crop, i in zip(crops, images, strict=True):
        best = np.asarray(craft.crops_[int(i * 80 + u[i].argmax())])
        assert np.array_equal(crop, np.clip(np.rint(255 * best.transpose(1, 2, 0)), 0, 255))


def test_plots_and_storage(craft, make_bundle, images, tmp_path):
    assert len(craft.plot_concepts_crops(nb_crops=4).subfigs) == 5
    craft.plot_image_concepts(images[0])
    stored = Craft(make_bundle("linear"), **SETTINGS)
    stored.fit(images, class_id=2)
    stored.estimate_importance()
    stored.save()
    loaded = Craft.load(stored.halves_.model.bundle, class_id=2)
    assert loaded.crops is None and np.allclose(loaded.crops_u_, stored.crops_u_)
    assert len(loaded.best_crops(0, 10)) == 10 and loaded.best_crops(0, 1)[0].shape == (13, 13, 3)
    assert np.allclose(loaded.transform(images[:1]), stored.transform(images[:1]))


def test_channels_last_and_sequences(model, images, craft):
    made = Craft(lambda x: model.g(x.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1), **SETTINGS)

    class Lazy:
        def __len__(self):
            return len(images)

        def __getitem__(self, index):
            return images[index].transpose(1, 2, 0)

    crops, _, w = made.fit(Lazy(), class_id=2)
    assert isinstance(crops, PositionCrops) and crops.shape == (960, 13, 13, 3)
    assert np.allclose(w, craft.concept_bank_, atol=1e-5)


def test_mistakes(model, images):
    with pytest.raises(InputError, match=r"shape \(1, 24\) have no positions.*crops='grid'"):
        Craft(lambda x: model.g(x).mean(axis=(2, 3)), **SETTINGS).fit(images)
    with pytest.raises(InputError, match=r"negative \(lowest"):
        Craft(lambda x: model.g(x) - 1, **SETTINGS).fit(images)
    with pytest.raises(InputError, match=r"81 concepts .* 80"):
        Craft(model, **SETTINGS | {"number_of_concepts": 81}).fit(images[:1])

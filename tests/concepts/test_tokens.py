"""Concepts of a vision transformer: the patches lie on their grid, the tokens before them go to h and nowhere else."""

import shutil

import numpy as np
import pytest
import torch
from scipy.optimize import nnls as scipy_nnls
from support.token_nets import SmallViT, bundle_of

from craft_onnx.concepts.craft import Craft
from craft_onnx.concepts.semi_nmf import semi_nmf
from craft_onnx.concepts.tokens import Tokens, find_tokens
from craft_onnx.errors import InputError
from craft_onnx.runtime.crops import Crops, stream_crops
from craft_onnx.runtime.model import SplitModel

SETTINGS = {"number_of_concepts": 4, "batch_size": 5, "patch_size": 24, "nb_design": 16, "factoriser": "semi_nmf"}
REGISTERS = 1


@pytest.fixture(scope="module")
def net():
    return SmallViT(REGISTERS).eval()


@pytest.fixture(scope="module")
def bundle(net, tmp_path_factory):
    return bundle_of(net, ["blocks.1", "blocks.0"], tmp_path_factory.mktemp("vit"))


@pytest.fixture(scope="module")
def model(bundle):
    return SplitModel(bundle)


@pytest.fixture(scope="module")
def images(small_net):
    return small_net.pictures(6, 48, 64)


@pytest.fixture(scope="module")
def craft(model, images):
    made = Craft(model, **SETTINGS)
    made.fit(images, class_id=2)
    made.estimate_importance()
    return made


def encoded(a, w):
    """U of activations (..., p) by SciPy, row by row."""
    rows = [scipy_nnls(w.T.astype(float), row.astype(float))[0] for row in a.reshape(-1, a.shape[-1])]
    return np.stack(rows).reshape(*a.shape[:-1], len(w))


def test_the_model_is_cut_in_a_block_of_the_transformer(net, model, images):
    with torch.no_grad():
        tokens = net.blocks[:2](net.embedded(torch.from_numpy(images))).numpy()
    assert tokens.shape == (6, 50, 24) and tokens.min() < 0
    assert np.allclose(model.g(images), tokens, atol=1e-4)


def test_crops_are_pooled_over_the_patches_alone(craft, model, images):
    crops = Crops.grid(images, 24, "NCHW")
    a = np.concatenate([model.g(batch) for batch in stream_crops(crops, (48, 64), 16)])
    found = semi_nmf(a[:, 2:].mean(axis=1), 4)
    assert np.allclose(craft.concept_bank_, found.w, atol=1e-4)
    assert np.allclose(craft.crops_u_, encoded(a[:, 2:].mean(axis=1), craft.concept_bank_), atol=1e-4)
    assert craft.tokens_ == Tokens(2, (48, 64)) and craft.positions_ == (50,)


def test_maps_are_those_of_the_patches_on_their_grid(craft, model, images):
    a = model.g(images)
    literal = np.empty((6, 6, 8, 4))
    everywhere = encoded(a, craft.concept_bank_)
    for i in range(6):
        for row in range(6):
            for column in range(8):
                literal[i, row, column] = everywhere[i, 2 + 8 * row + column]
    assert np.allclose(craft.transform(images), literal, atol=1e-4)
    assert np.array_equal(craft.transform(None, a), craft.transform(images))


def test_h_gets_the_coefficients_of_all_tokens_and_masks_act_on_all(craft, model, images):
    u = np.concatenate(list(craft.coefficient_batches(images)))
    assert np.allclose(u, encoded(model.g(images), craft.concept_bank_), atol=1e-4)
    masks = np.random.default_rng(0).random((7, 4)).astype(np.float32)
    literal = np.stack([model.h((u[:1] * mask) @ craft.concept_bank_)[0, 2] for mask in masks])
    assert np.allclose(craft.head_.masked(u[0], masks), literal, atol=1e-4)
    importance = craft.importance_of(u[:1])
    full = model.h(u[:1] @ craft.concept_bank_)[0, 2]
    without = [model.h((u[:1] * (np.arange(4) != i)) @ craft.concept_bank_)[0, 2] for i in range(4)]
    assert np.allclose(importance.contributions, full - np.array(without), atol=1e-4)
    assert np.allclose(craft.estimate_importance(images[:1]), importance.values, atol=0.2)  # of another design


def test_coefficients_without_those_of_the_class_token_are_refused(craft, images):
    with pytest.raises(InputError, match="lack those of the 2 tokens before the patches"):
        craft.importance_of(craft.transform(images))


def test_explanations_have_maps_on_the_grid(craft, model, images):
    (one,) = craft.explain(images[:1])
    maps = craft.transform(images[:1])[0]
    assert np.allclose(one.maps, maps, atol=1e-6) and np.allclose(one.coefficients, maps.mean(axis=(0, 1)), atol=1e-6)
    u = np.concatenate(list(craft.coefficient_batches(images[:1])))
    assert one.reconstructed_logit == pytest.approx(model.h(u @ craft.concept_bank_)[0, 2], abs=1e-4)
    a = model.g(images[:1])
    rest = np.linalg.norm(a - u @ craft.concept_bank_) / np.linalg.norm(a)
    assert one.reconstruction_error == pytest.approx(rest, rel=1e-4)


@pytest.mark.parametrize("method", ["saliency", "gradcam", "occlusion"])
def test_the_target_of_an_attribution_is_the_mean_over_the_patches(method, craft, images):
    found = craft.attribute(images[:2], [1, 3], method)
    means = craft.transform(images[:2]).mean(axis=(1, 2))[:, [1, 3]]
    assert found.maps.shape == (2, 2, 48, 64) and np.allclose(found.values, means, rtol=1e-4, atol=1e-5)


def test_the_gradient_of_a_concept_is_that_of_its_mean_over_the_patches(craft, images):
    x = images[:1]
    gradient = craft.attribute(x, 0, "gradient_input").maps
    shift = 1e-2
    up, down = (craft.transform(x * np.float32(1 + sign * shift))[..., 0].mean() for sign in (1, -1))
    assert gradient.sum() == pytest.approx((up - down) / (2 * shift), rel=0.05)


def test_all_patches_can_be_factorised(model, images):
    craft = Craft(model, **SETTINGS | {"crops": None, "patch_size": 8})
    craft.fit(images, class_id=2)
    rows = model.g(images)[:, 2:].reshape(-1, 24)
    assert np.allclose(craft.concept_bank_, semi_nmf(rows, 4).w, atol=1e-4)
    assert craft.coeffs_u_.shape == (6, 6, 8, 4)
    assert np.allclose(craft.coeffs_u_, craft.transform(images), atol=1e-4)
    patch = craft.crops_[48 + 8 * 2 + 3]  # of the second image, row 2, column 3: patch and position are one
    assert np.array_equal(patch, images[1, :, 16:24, 24:32])
    assert craft.estimate_importance().shape == (4,)


def test_the_plots_lie_on_the_grid(craft, images):
    overlays = craft.overlays(images[:1], [0], filter_percentile=0)
    assert overlays[0].shape == (48, 64, 3)
    craft.plot_image_concepts(images[0])
    craft.plot_top_images(images)
    means = craft.transform(images).mean(axis=(1, 2))
    assert craft.top_images(1, 2, images).tolist() == np.argsort(means[:, 1])[::-1][:2].tolist()


def test_sub_concepts_of_an_earlier_block(craft, images):
    sub = craft.decompose(1, "blocks.0", 2, quantile=0.5)
    assert sub.factoriser == "semi_nmf" and sub.tokens_.prefix == 2
    values = sub.estimate_parent_importance(images[:2], nb_design=8)
    assert values.shape == (2,) and np.isfinite(values).all()
    u = np.concatenate(list(sub.coefficient_batches(images[:1])))
    a = np.asarray(sub.segment_.run(u @ sub.concept_bank_))
    expected = encoded(a[:, 2:].mean(axis=1), craft.concept_bank_)[:, 1]
    assert np.allclose(sub.parent_head_(u), expected, atol=1e-4)


def test_they_are_stored_with_the_factorisation_and_the_tokens(bundle, images, tmp_path):
    folder = shutil.copytree(bundle.folder, tmp_path / "bundle")
    craft = Craft(folder, **SETTINGS | {"prefix_tokens": 2})
    craft.fit(images, class_id=2)
    craft.estimate_importance()
    craft.save()
    loaded = Craft.load(folder, class_id=2)
    assert loaded.factoriser == "semi_nmf" and loaded.tokens_ == Tokens(2, (48, 64)) and loaded.prefix_tokens == 2
    assert np.array_equal(loaded.transform(images), craft.transform(images))
    assert np.allclose(loaded.explain(images[:1])[0].importance.values, craft.explain(images[:1])[0].importance.values)


@pytest.mark.parametrize("prefix", [0, 1, 2, 5])
def test_tokens_before_the_patches_are_found(prefix):
    assert find_tokens((prefix + 48,), (48, 64)) == Tokens(prefix, (48, 64))
    values = np.arange(2 * (prefix + 48) * 3).reshape(2, -1, 3)
    placed = find_tokens((prefix + 48,), (48, 64)).placed(values)
    assert placed.shape == (2, 6, 8, 3) and np.array_equal(placed[1, 2, 3], values[1, prefix + 19])


def test_tokens_that_are_no_grid_and_other_activations():
    assert find_tokens((41,), (48, 40)) == Tokens() and find_tokens((6, 8), (48, 64), 1) == Tokens()
    assert Tokens().placed(np.zeros((2, 41, 3))).shape == (2, 41, 3)
    assert find_tokens((42,), (48, 40), 1) == Tokens(1, None)  # told, though the others are no grid
    assert Tokens(1).placed(np.zeros((2, 42, 3))).shape == (2, 41, 3)
    assert Tokens(1).placed(np.zeros((2, 6, 8, 3))).shape == (2, 6, 8, 3)
    with pytest.raises(InputError, match="5 of 5 tokens"):
        find_tokens((5,), (48, 48), 5)


def test_tokens_of_patches_alone_are_taken_from_their_grid():
    u = np.random.default_rng(0).random((2, 48, 3))
    assert np.array_equal(Tokens(0, (48, 64)).flat(Tokens(0, (48, 64)).placed(u)), u)

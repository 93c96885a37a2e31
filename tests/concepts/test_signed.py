"""Signed activations from end to end: a ConvNeXt, and a net whose head is linear, with semi-NMF."""

import json
import shutil

import numpy as np
import pytest
from scipy.optimize import nnls as scipy_nnls
from support.token_nets import SmallConvNeXt, bundle_of

from craft_onnx.concepts.concept_target import ConceptTarget
from craft_onnx.concepts.craft import XPLIQUE, Craft
from craft_onnx.concepts.manager import CraftManager
from craft_onnx.concepts.semi_nmf import semi_nmf
from craft_onnx.concepts.store import EARLIER
from craft_onnx.concepts.surf import _directions
from craft_onnx.errors import InputError
from craft_onnx.runtime.bundle import Bundle
from craft_onnx.runtime.model import SplitModel

SETTINGS = {"number_of_concepts": 4, "batch_size": 5, "patch_size": 24, "nb_design": 32, "factoriser": "semi_nmf"}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return bundle_of(SmallConvNeXt(), ["blocks.1", "blocks.0"], tmp_path_factory.mktemp("convnext"))


@pytest.fixture(scope="module")
def model(bundle):
    return SplitModel(bundle)


@pytest.fixture(scope="module")
def images(small_net):
    return small_net.pictures(8, 48, 64)


@pytest.fixture(scope="module")
def craft(model, images):
    made = Craft(model, **SETTINGS)
    made.fit(images, class_id=2)
    made.estimate_importance()
    return made


@pytest.fixture(scope="module")
def linear(model, images):
    """With a head of pooling and a linear layer, as callables."""
    weight = np.random.default_rng(0).standard_normal((16, 3)).astype(np.float32)
    craft = Craft(model.g, lambda a: a.mean(axis=(2, 3)) @ weight + 1, **SETTINGS, data_format="NCHW")
    craft.fit(images, class_id=1)
    return craft, weight


def test_activations_and_concepts_are_signed_coefficients_are_not(craft, model, images):
    assert model.g(images).min() < 0 and craft.concept_bank_.min() < 0
    assert craft.crops_u_.min() >= 0 and craft.factorisation_.relative_error < 0.5
    a = model.g(images[:1])[0].transpose(1, 2, 0).reshape(-1, 16).astype(float)
    literal = np.stack([scipy_nnls(craft.concept_bank_.T.astype(float), row)[0] for row in a])
    assert np.allclose(craft.transform(images[:1]).reshape(-1, 4), literal, atol=1e-4)


def test_with_nmf_the_error_says_what_would_help(model, images, craft):
    with pytest.raises(InputError, match=r"negative \(lowest -.*factoriser='semi_nmf' \(--factoriser semi_nmf\)"):
        Craft(model, **SETTINGS | {"factoriser": "nmf"}).fit(images, class_id=2)
    positive = Craft(lambda x: np.maximum(model.g(x), 0), **SETTINGS | {"factoriser": "nmf"}, data_format="NCHW")
    positive.fit(images)
    with pytest.raises(InputError, match=r"negative \(lowest -1"):
        positive.transform(None, -np.ones((1, 3, 3, 16), np.float32))
    assert craft.transform(None, -np.ones((1, 3, 3, 16), np.float32)).shape == (1, 3, 3, 4)


@pytest.mark.parametrize("settings", [XPLIQUE, {"alpha_W": 0.1}, {"encoder": "sklearn"}, {"normalize": False}])
def test_settings_that_semi_nmf_does_not_have(settings, model, images):
    with pytest.raises(InputError, match="Semi-NMF cannot be had with"):
        Craft(model, **SETTINGS | settings).fit(images, class_id=2)


def test_an_unknown_factoriser(model, images):
    with pytest.raises(InputError, match="no factoriser 'pca'"):
        Craft(model, **SETTINGS | {"factoriser": "pca"}).fit(images, class_id=2)


def test_the_folded_head_computes_h(craft, model, images):
    u = craft.transform(images)
    expected = model.h((u @ craft.concept_bank_).transpose(0, 3, 1, 2))[:, 2]
    assert np.allclose(craft.head_(craft.head_.reduced(u)), expected, atol=1e-4)


def test_importances_of_linear_heads_are_those_of_the_closed_form(linear, images):
    craft, weight = linear
    u = craft.transform(images)
    effects = (u.mean(axis=(1, 2)) * (craft.concept_bank_ @ weight[:, 1])).astype(float)
    closed = (effects**2 / (effects**2).sum(axis=1, keepdims=True)).mean(axis=0)
    assert np.allclose(craft.estimate_importance(nb_design=256), closed, atol=0.03)
    assert np.allclose(craft.importance_.contributions, effects.mean(axis=0), atol=1e-4)


def test_signed_concepts_of_linear_heads_are_exact(bundles, small_net):
    pictures = small_net.pictures()
    craft = Craft(SplitModel(bundles["linear"]), **SETTINGS | {"patch_size": 16})
    craft.fit(pictures, class_id=2)
    exact = craft.estimate_importance()
    assert craft.importance_.exact and craft.concept_bank_.min() < 0 and exact.sum() == pytest.approx(1)
    reconstructed = craft.halves_.model.h((craft.transform(pictures) @ craft.concept_bank_).transpose(0, 3, 1, 2))[:, 2]
    assert craft.importance_.contributions.sum() + craft.importance_.bias == pytest.approx(reconstructed.mean())


def test_the_implicit_derivative_is_that_of_finite_differences(craft, model, images):
    target = ConceptTarget(craft.concept_bank_, 1)
    y = model.g(images[:1]).astype(np.float64)
    direction = np.random.default_rng(0).standard_normal(y.shape)
    step = 1e-6 * direction
    rows = np.arange(1)
    expected = (target.value(y + step, rows) - target.value(y - step, rows)) / 2e-6
    assert np.allclose((target.cotangent(y, rows) * direction).sum(), expected, rtol=1e-5)


@pytest.mark.parametrize("method", ["integrated_gradients", "gradcam", "rise"])
def test_attributions_of_signed_concepts(method, craft, images):
    options = {"rise": {"n_masks": 20}, "integrated_gradients": {"steps": 4}}.get(method, {})
    found = craft.attribute(images[:1], [0, 2], method, **options)
    assert found.maps.shape == (1, 2, 48, 64) and np.isfinite(found.maps).all()


def test_how_far_to_trust_them(craft, images):
    curve = craft.deletion()
    u = craft.transform(images)
    assert np.allclose(curve.values[:, 0], craft.head_(craft.head_.reduced(u)), atol=1e-4)
    assert np.isfinite(craft.insertion(ranking="tcav").values).all()
    surf = craft.surf(repeats=2)
    assert np.isfinite([surf.mae, surf.emd]).all()
    assert craft.stability(repeats=2).similarities.max() <= 1
    assert craft.choose_number_of_concepts(numbers=[2, 3], repeats=2).best in (2, 3)
    assert craft.prevalence().sum() == pytest.approx(1)


def test_random_concepts_of_surf_are_signed_where_the_concepts_are():
    rng = np.random.default_rng(0)
    assert _directions(rng, np.array([[0.6, -0.8]] * 20)).min() < 0 <= _directions(rng, np.ones((20, 2))).min()


def test_sub_concepts_are_semi_nmfs_too(craft, images):
    sub = craft.decompose(0, "blocks.0", 2, quantile=0.5)
    a, _ = sub._pooled_activations(sub.crops_, "NCHW")
    assert sub.factoriser == "semi_nmf" and np.allclose(sub.concept_bank_, semi_nmf(a, 2).w, atol=1e-5)
    assert np.isfinite(sub.estimate_parent_importance(nb_design=8)).all()


def test_the_factorisation_of_sub_concepts_can_be_another_one(model, images):
    craft = Craft(lambda x: np.maximum(model.g(x), 0), **SETTINGS | {"factoriser": "nmf"}, data_format="NCHW")
    craft.fit(images)
    with pytest.raises(InputError, match="factoriser='semi_nmf'"):
        craft.decompose(0, model.g, 2, quantile=0.5)
    sub = craft.decompose(0, model.g, 2, quantile=0.5, factoriser="semi_nmf")
    assert sub.factoriser == "semi_nmf" and sub.concept_bank_.min() < 0


def test_plots_and_storage(bundle, images, tmp_path):
    folder = shutil.copytree(bundle.folder, tmp_path / "bundle")
    craft = Craft(folder, **SETTINGS)
    craft.fit(images, class_id=2)
    craft.estimate_importance()
    craft.plot_concepts_importances()
    craft.plot_concepts_crops(nb_crops=2)
    craft.plot_image_concepts(images[0])
    craft.save()
    loaded = Craft.load(folder, class_id=2)
    assert loaded.factoriser == "semi_nmf"
    assert np.array_equal(loaded.transform(images), craft.transform(images))
    assert loaded.summary()["factoriser"] == "semi_nmf"
    json.dumps(loaded.explain(images[:1])[0].to_json(), allow_nan=False)


def test_concepts_stored_before_there_was_a_choice_are_nmfs(bundle, images, tmp_path):
    folder = shutil.copytree(bundle.folder, tmp_path / "bundle")
    craft = Craft(folder, **SETTINGS)
    craft.fit(images, class_id=2)
    craft.estimate_importance()
    craft.save()
    (facts,) = folder.glob("concepts/*/concepts.json")
    stored = json.loads(facts.read_text())
    del stored["tokens"], stored["settings"]["factoriser"], stored["settings"]["prefix_tokens"]
    facts.write_text(json.dumps(stored))
    loaded = Craft.load(Bundle.open(folder, verify=False), class_id=2)
    assert loaded.factoriser == EARLIER["factoriser"] == "nmf" and loaded.tokens_.prefix == 0


def test_a_manager_hands_the_factorisation_on(model, images):
    labels = model.predict(images).argmax(axis=1)
    manager = CraftManager.from_model(
        model, images, labels, [int(labels[0])], number_of_concepts=2, patch_size=24, factoriser="semi_nmf"
    )
    manager.fit()
    assert manager.craft_instances[int(labels[0])].factoriser == "semi_nmf"

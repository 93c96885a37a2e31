"""Craft.attribute: every method, all concepts at once as one by one, on bundles and on functions."""

import json

import numpy as np
import pytest

import craft_onnx as co
from craft_onnx.attribution.registry import methods
from craft_onnx.concepts.attributions import concept_target
from craft_onnx.concepts.craft import XPLIQUE, Craft
from craft_onnx.concepts.nnls import nnls
from craft_onnx.errors import InputError, NotFittedError
from craft_onnx.runtime.model import SplitModel

SETTINGS = {"number_of_concepts": 4, "batch_size": 16, "patch_size": 16}
FEW = {
    "integrated_gradients": {"steps": 8}, "smoothgrad": {"samples": 3}, "vargrad": {"samples": 3},
    "squaregrad": {"samples": 3}, "rise": {"n_masks": 30}, "sobol": {"nb_design": 2, "grid_size": 4},
    "kernel_shap": {"segments": 3, "n_samples": 60}, "lime": {"segments": 3, "n_samples": 60},
}  # fmt: skip  # a method and its options side by side


@pytest.fixture(scope="module")
def craft(bundles, images):
    craft = Craft(SplitModel(bundles["mlp"]), **SETTINGS)
    craft.fit(images, class_id=2)
    return craft


@pytest.fixture(scope="module")
def of_functions(small_net, weights, images):
    craft = Craft(small_net.first_half(weights), small_net.second_half(weights, "mlp"), **SETTINGS)
    craft.fit(images, class_id=2)
    return craft


@pytest.fixture(scope="module")
def some(images):
    return images[:3]


@pytest.mark.parametrize("method", methods())
def test_several_concepts_at_once_are_each_alone(craft, some, method):
    options = FEW.get(method, {})
    found = craft.attribute(some, [2, 0], method, batch_size=2, **options)
    assert found.maps.shape == (3, 2, *some.shape[2:]) and np.isfinite(found.maps).all()
    for j, concept in enumerate((2, 0)):
        alone = co.attribute(craft.halves_.model, some, concept_target(craft, concept), method, batch_size=2, **options)
        # Batches of a convolution differ where images go in groups of their own.
        scale = np.abs(alone.maps).max()
        np.testing.assert_allclose(found.maps[:, j], alone.maps, rtol=1e-4, atol=1e-5 * scale)
        np.testing.assert_allclose(found.values[:, j], alone.values, rtol=1e-6)
        assert (found.residual is None) == (alone.residual is None)
    assert np.ptp(found.maps) > 0


def test_the_value_is_the_mean_of_the_concept_map(craft, some):
    found = craft.attribute(some, method="gradcam")
    assert found.concepts == (0, 1, 2, 3) and found.maps.shape[1] == 4
    np.testing.assert_allclose(found.values, craft.transform(some).mean(axis=(1, 2)), rtol=1e-5)


@pytest.mark.parametrize(
    ("method", "options", "passes"),
    [("saliency", {}, 2), ("guided_backprop", {}, 2), ("integrated_gradients", {"steps": 2}, 3)],
)
def test_all_concepts_share_a_forward_pass(craft, some, method, options, passes, monkeypatch):
    seen, vjp = [], SplitModel.vjp
    monkeypatch.setattr(SplitModel, "vjp", lambda *args, **given: seen.append(len(args[1])) or vjp(*args, **given))
    craft.attribute(some, None, method, batch_size=2, **options)
    assert len(seen) == passes


@pytest.mark.parametrize("method", ["rise", "occlusion", "lime"])
def test_black_box_methods_run_the_model_for_one_concept_alone(craft, some, method, monkeypatch):
    runs, g = [], SplitModel.g
    monkeypatch.setattr(SplitModel, "g", lambda *args, **given: runs.append(len(args[1])) or g(*args, **given))
    counts = []
    for concepts in ([1], None):
        runs.clear()
        craft.attribute(some, concepts, method, **FEW.get(method, {}))
        counts.append(sum(runs))
    assert counts[0] == counts[1]


@pytest.mark.parametrize("method", ["occlusion", "rise", "gradcam", "gradcam_pp", "reciprocam"])
def test_functions_give_what_the_bundle_gives(craft, of_functions, some, method):
    options = FEW.get(method, {})
    expected = craft.attribute(some, None, method, **options)
    found = of_functions.attribute(some, None, method, **options)
    np.testing.assert_allclose(of_functions.concept_bank_, craft.concept_bank_, atol=1e-4)
    # Their concept banks agree to 1e-4.
    np.testing.assert_allclose(found.maps, expected.maps, rtol=1e-2, atol=2e-3 * np.abs(expected.maps).max())
    assert found.provider == "callable"


def test_functions_have_no_gradients(of_functions, some):
    with pytest.raises(InputError, match="saliency needs gradients") as caught:
        of_functions.attribute(some, 0, "saliency")
    assert "gradient graphs" in caught.value.remedy


def test_channels_last_and_positions(bundles, images):
    """Another head and cut of another layout give maps of the same size."""
    craft = Craft(SplitModel(bundles["positions"]), **SETTINGS)
    craft.fit(images, class_id=1)
    assert craft.attribute(images[:2], 1, "gradient_input").maps.shape == (2, 1, 48, 40)


def test_channels_none_keeps_the_input_s_shape(craft, some):
    assert craft.attribute(some, [0, 1], "saliency", channels=None).maps.shape == (3, 2, *some.shape[1:])


def test_gradcam_weighs_channels_with_the_mean_derivative(craft, some):
    found = craft.attribute(some, [1], "gradcam", upsample=False)
    a = np.moveaxis(craft.halves_.model.g(some), 1, -1).astype(np.float64)
    w, rows = craft.concept_bank_.astype(np.float64), a.reshape(-1, a.shape[-1])
    u = nnls(rows, w)
    derivative = np.zeros_like(rows)
    for row, s in enumerate(u > 0):
        if s[1]:
            derivative[row] = np.linalg.solve(w[s] @ w[s].T, w[s])[s[:1].sum()] / a[0, ..., 0].size
    weights = derivative.reshape(a.shape).mean(axis=(1, 2))
    expected = np.maximum(np.einsum("nhwc,nc->nhw", a, weights), 0)
    np.testing.assert_allclose(found.maps[:, 0], expected, rtol=1e-4, atol=1e-6 * expected.max())


def test_xplique_s_encoder_brings_its_ridge(bundles, images, some):
    pytest.importorskip("sklearn")
    craft = Craft(SplitModel(bundles["mlp"]), number_of_concepts=4, patch_size=16, **XPLIQUE)
    craft.fit(images, class_id=2)
    target = concept_target(craft, 1)
    assert target.ridge == pytest.approx(1e-2 * craft.concept_bank_.shape[1])
    found = craft.attribute(some, 1, "saliency")
    np.testing.assert_allclose(found.values[:, 0], craft.transform(some)[..., 1].mean(axis=(1, 2)), rtol=1e-5)
    assert found.maps.any()


def test_arrays_among_the_options_belong_to_all_images(craft, some):
    baseline = np.full_like(some, 0.3) * np.arange(1, 4, dtype=np.float32)[:, None, None, None]
    found = craft.attribute(some, [0, 3], "integrated_gradients", batch_size=4, steps=4, baseline=baseline)
    single = craft.attribute(some[2:], [3], "integrated_gradients", steps=4, baseline=baseline[2:])
    np.testing.assert_allclose(found.maps[2, 1], single.maps[0, 0], rtol=1e-4, atol=1e-6)


def test_what_is_random_does_not_depend_on_the_batches(craft, some):
    maps = [craft.attribute(some, 1, "smoothgrad", samples=2, batch_size=size).maps for size in (1, 16)]
    np.testing.assert_allclose(maps[0], maps[1], rtol=1e-4, atol=1e-6 * np.abs(maps[0]).max())


def test_the_result_as_json_and_of_one_concept(craft, some):
    found = craft.attribute(some, [3, 1], steps=4, seed=5)
    stated = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert stated["concepts"] == [3, 1] and stated["names"] == ["3", "1"] and stated["seed"] == 5
    assert np.shape(stated["values"]) == np.shape(stated["residual"]) == (3, 2)
    assert stated["options"]["steps"] == 4 and stated["provider"] == "cpu" and stated["method"] == found.method
    np.testing.assert_array_equal(found.of(1).maps, found.maps[:, 1])
    np.testing.assert_array_equal(found.of(1).residual, found.residual[:, 1])
    with pytest.raises(InputError, match="no map of concept 0"):
        found.of(0)


def test_progress_is_told_to_the_end(craft, some):
    told = []
    craft.attribute(some, [0, 1], steps=4, batch_size=4, progress=lambda *given: told.append(given))
    assert told == sorted(told) and told[-1][0] == told[-1][1] and len({total for _, total in told}) == 1


def test_a_lazy_sequence_of_images(craft, some):
    np.testing.assert_array_equal(
        craft.attribute(list(some), 0, "saliency").maps, craft.attribute(some, 0, "saliency").maps
    )


@pytest.mark.parametrize(
    ("concepts", "options", "problem"),
    [
        (4, {}, "no concept 4 among 4"),
        ([0, -1], {}, "no concept -1 among 4"),
        ([], {}, r"\[\] are no concepts"),
        ("ears", {}, "'ears' are no concepts"),
        (0, {"method": "magic"}, "'magic'"),
        (0, {"depth": 3}, "no option 'depth'"),
        (0, {"batch_size": 0}, "batch_size 0"),
    ],
)
def test_mistakes(craft, some, concepts, options, problem):
    with pytest.raises(InputError, match=problem):
        craft.attribute(some, concepts, **options)


def test_raw_pictures_are_refused(craft, pictures):
    with pytest.raises(InputError, match="floating-point inputs"):
        craft.attribute(pictures[:2], 0)


def test_before_fit(bundles, some):
    with pytest.raises(NotFittedError):
        Craft(SplitModel(bundles["mlp"])).attribute(some)


# Share of the maps whose maximum is on the tag, at least; cells and segments of the black-box methods are coarse.
ON_THE_TAG = {
    "gradient_input": 0.8, "smoothgrad": 0.8, "guided_backprop": 0.8, "integrated_gradients": 0.8, "gradcam": 0.8,
    "reciprocam": 0.8, "occlusion": 0.8, "rise": 0.8,
}  # fmt: skip  # a method and its share side by side


@pytest.fixture(scope="module")
def examined(tmp_path_factory):
    from craft_onnx_models.birds import audit

    return audit.examine(audit.prepare("shortcut", tmp_path_factory.mktemp("birds") / "bundle"), "shortcut")


@pytest.mark.parametrize("method", ON_THE_TAG)
def test_maps_of_the_concept_of_the_tag_lie_on_the_tag(examined, method):
    """On pictures that the concepts were not fitted on; the tag covers a hundredth of a picture."""
    from craft_onnx_models.birds import TAGGED, draw_many, pictures

    birds = [bird for bird in draw_many(8, [TAGGED], seed=99) if bird.shows("tag")]
    masks = np.stack([bird.masks["tag"] for bird in birds])
    options = {"steps": 16} if method == "integrated_gradients" else FEW.get(method, {}) | {"batch_size": 16}
    options = {"n_masks": 400} if method == "rise" else options
    tag = examined.audit.found("tag").concept
    found = examined.craft.attribute(examined.model.preprocess(pictures(birds)), tag, method, **options)
    assert masks.mean() < 0.02 and len(birds) >= 6
    assert co.pointing_game(found.maps[:, 0], masks, tolerance=4).mean() >= ON_THE_TAG[method]


def test_the_concept_goes_with_the_pixels_of_its_map(examined):
    from craft_onnx_models.birds import TAGGED, draw_many, pictures

    x = examined.model.preprocess(pictures(draw_many(4, [TAGGED], seed=99)))
    tag = examined.audit.found("tag").concept
    maps = examined.craft.attribute(x, tag, "gradcam").maps[:, 0]
    target, noise = concept_target(examined.craft, tag), np.random.default_rng(0).random(maps.shape)
    areas = [co.deletion(examined.model, x, each, target, steps=10).areas.mean() for each in (maps, noise)]
    assert areas[0] < areas[1] / 2
    areas = [co.insertion(examined.model, x, each, target, steps=10).areas.mean() for each in (maps, noise)]
    assert areas[0] > areas[1] * 1.5

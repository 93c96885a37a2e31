import inspect
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from craft_onnx.concepts.craft import Craft
from craft_onnx.concepts.nnls import nnls
from craft_onnx.errors import InputError, NotFittedError
from craft_onnx.runtime.bundle import create_bundle
from craft_onnx.runtime.model import SplitModel

SETTINGS = {"number_of_concepts": 6, "batch_size": 16, "patch_size": 16}


@pytest.fixture(scope="module")
def halves(small_net, weights):
    return small_net.first_half(weights), small_net.second_half(weights, "mlp")


@pytest.fixture(scope="module")
def fitted(halves, images):
    craft = Craft(*halves, **SETTINGS)
    craft.fit(images, class_id=2)
    return craft


def close(found, expected, share):
    return np.abs(found - expected).max() <= share * np.abs(expected).max()


def test_fit_gives_crops_u_and_w(fitted, halves, images):
    crops = fitted.crops_
    assert crops.shape == (108, 3, 16, 16)
    assert fitted.crops_u_.shape == (108, 6) and fitted.concept_bank_.shape == (6, 24)
    assert np.array_equal(crops[10], images[1, :, 0:16, 12:28])
    resized = [np.stack([_bilinear(plane, (48, 40)) for plane in crop]) for crop in crops[::12]]
    a = halves[0](np.stack(resized)).mean(axis=(2, 3))
    assert close(fitted.crops_u_[::12], nnls(a, fitted.concept_bank_), 1e-4)


def _bilinear(plane, size):
    """Half-pixel centres, edges repeated, literally."""
    out = np.empty(size, np.float32)
    for i in range(size[0]):
        for j in range(size[1]):
            y, x = (i + 0.5) * plane.shape[0] / size[0] - 0.5, (j + 0.5) * plane.shape[1] / size[1] - 0.5
            y0, x0 = int(np.floor(y)), int(np.floor(x))
            rows, columns = np.clip([y0, y0 + 1], 0, plane.shape[0] - 1), np.clip([x0, x0 + 1], 0, plane.shape[1] - 1)
            values = plane[np.ix_(rows, columns)]
            out[i, j] = [1 - y + y0, y - y0] @ values @ [1 - x + x0, x - x0]
    return out


def test_transform_is_nnls_at_every_position(fitted, halves, images):
    a = halves[0](images[:2])
    u = fitted.transform(images[:2])
    assert u.shape == (2, 10, 8, 6) and u.dtype == np.float32
    for i, y, x in ((0, 0, 0), (0, 9, 7), (1, 3, 5)):
        assert np.allclose(u[i, y, x], nnls(a[i, :, y, x][None], fitted.concept_bank_)[0], rtol=1e-5, atol=1e-6)


def test_a_row_of_u_does_not_change_with_the_others(fitted, images):
    assert np.allclose(fitted.transform(images)[4], fitted.transform(images[4])[0], rtol=1e-5, atol=1e-6)


def test_activations_can_be_given_channels_last(fitted, halves, images):
    a = halves[0](images[:2]).transpose(0, 2, 3, 1)
    assert np.array_equal(fitted.transform(None, a), fitted.transform(images[:2]))
    assert fitted.transform(None, a.reshape(2, -1, 24)).shape == (2, 80, 6)
    assert np.array_equal(fitted.transform(None, a[0, 0]), fitted.transform(images[:1])[0, 0])
    with pytest.raises(InputError, match=r"\(8, 10\).*\(6, 24\)"):
        fitted.transform(None, a[0, 0, :, :10])


def test_channels_last_models_give_the_same(halves, fitted, images):
    g, h = halves
    craft = Craft(
        lambda x: g(x.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1),
        lambda a: h(a.transpose(0, 3, 1, 2)),
        **SETTINGS,
    )
    crops, u, w = craft.fit(images.transpose(0, 2, 3, 1), class_id=2)
    assert crops.shape == (108, 16, 16, 3)
    assert np.allclose(w, fitted.concept_bank_, atol=1e-5) and close(u, fitted.crops_u_, 1e-4)
    assert close(craft.estimate_importance(), fitted.estimate_importance(), 1e-3)


@pytest.mark.parametrize("kind", ["rows", "tokens"])
def test_activations_without_a_grid(kind, halves, images):
    g = halves[0]

    def rows(x):
        return g(x).mean(axis=(2, 3))

    def tokens(x):
        return g(x).reshape(len(x), 24, -1).transpose(0, 2, 1)[:, :79]  # 80 are a grid

    def h(a):
        return (a if a.ndim == 2 else a.mean(axis=1)) @ np.linspace(-1, 2, 48).reshape(24, 2)

    craft = Craft({"rows": rows, "tokens": tokens}[kind], h, **SETTINGS)
    _, u, w = craft.fit(images, class_id=1)
    assert u.shape == (108, 6) and w.shape == (6, 24)
    assert craft.transform(images[:2]).shape == ((2, 6) if kind == "rows" else (2, 79, 6))
    assert craft.estimate_importance().sum() == pytest.approx(1, abs=0.02)  # h is linear


@pytest.mark.parametrize("head", ["linear", "positions"])
def test_exact_and_sampled_importances_agree_on_linear_heads(head, bundles, images):
    craft = Craft(SplitModel(bundles[head]), **SETTINGS)
    craft.fit(images, class_id=2)
    exact = craft.estimate_importance()
    assert craft.importance_.exact and exact.sum() == pytest.approx(1)
    craft.exact = False
    assert np.abs(craft.estimate_importance() - exact).max() < 5e-3
    assert not craft.importance_.exact


@pytest.mark.parametrize(("head", "cut"), [("channels_last", "Transpose_4"), ("linear", "Flatten_5")])
def test_cuts_whose_channels_are_the_last_axis(head, cut, bundles, make_model, tmp_path, images):
    bundle = create_bundle(make_model(head), [cut], tmp_path / "bundle")
    craft, plain = Craft(SplitModel(bundle), **SETTINGS), Craft(SplitModel(bundles["linear"]), **SETTINGS)
    for each in (craft, plain):
        each.fit(images, class_id=2)
    assert np.allclose(craft.concept_bank_, plain.concept_bank_, atol=1e-6)
    assert craft.estimate_importance().sum() == pytest.approx(1) and craft.importance_.exact
    assert craft.transform(images[:2]).shape == ((2, 10, 8, 6) if head == "channels_last" else (2, 6))
    if head == "channels_last":
        assert np.allclose(craft.importance_.values, plain.estimate_importance(), atol=1e-5)


@pytest.mark.parametrize("head", ["mlp", "conv"])
def test_a_folded_head_gives_what_the_callable_does(head, bundles, images):
    model = SplitModel(bundles[head])
    folded, plain = Craft(model, **SETTINGS), Craft(model.g, model.h, **SETTINGS)
    for craft in (folded, plain):
        craft.fit(images, class_id=1)
    assert np.allclose(folded.estimate_importance(), plain.estimate_importance(), atol=1e-5)
    assert folded.importance_.intervals.shape == (6, 2)
    assert np.allclose(folded.estimate_importance(images[:2]), plain.estimate_importance(images[:2]), atol=1e-5)


def test_local_importances_are_those_of_the_picture():
    """Images with one of k marks each, a channel per mark, and a head that weighs all alike."""
    k = 10
    images = np.zeros((k, 1, 8, 8), np.float32)
    images[:, 0] = np.arange(k)[:, None, None]

    def g(x):
        return np.eye(k, dtype=np.float32)[np.rint(x[:, 0]).astype(int)].transpose(0, 3, 1, 2) + 0.1

    def h(a):
        return np.log1p(a.mean(axis=(2, 3))).sum(axis=1, keepdims=True)

    craft = Craft(g, h, number_of_concepts=k, patch_size=4, data_format="NCHW")
    craft.fit(images)
    assert np.allclose(craft.estimate_importance(), 1 / k, atol=0.01)
    for image in images[::3]:
        local = craft.estimate_importance(image)
        assert local.argmax() == craft.transform(image)[0].mean(axis=(0, 1)).argmax()
        assert local.max() > 0.5


def test_a_lazy_sequence_is_an_array(fitted, halves, images):
    class Lazy:
        def __len__(self):
            return len(images)

        def __getitem__(self, index):
            return images[index]

    craft = Craft(*halves, **SETTINGS)
    crops, u, w = craft.fit(Lazy(), class_id=2)
    assert np.array_equal(w, fitted.concept_bank_) and np.array_equal(u, fitted.crops_u_)
    assert np.array_equal(crops[5], fitted.crops_[5])
    assert np.array_equal(craft.estimate_importance(), fitted.estimate_importance())
    assert np.array_equal(craft.fit(list(images), 2)[2], w)


def test_memory_does_not_grow_with_the_pictures():
    class Lazy:
        def __init__(self, count):
            self.count = count

        def __len__(self):
            return self.count

        def __getitem__(self, index):
            return np.random.default_rng(index).random((1, 64, 64), np.float32)

    def g(x):  # 8 maps of 64 x 64: 131 kB an image
        return np.concatenate([np.maximum(x - c / 8, 0) for c in range(8)], axis=1)

    def peak(count):
        craft = Craft(g, lambda a: a.mean(axis=(2, 3)), 3, 8, 64, data_format="NCHW", nb_design=4)
        tracemalloc.start()
        craft.fit(Lazy(count))
        result = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return result

    peak(20)  # what is imported on the way
    few, many = peak(40), peak(400)
    # The activations of 360 more images are 47 MB, A and U of theirs 0.1 MB.
    assert many - few < 1_000_000


def test_random_crops_are_seeded(halves, images):
    fits = [Craft(*halves, **SETTINGS, crops="random", crops_per_image=4, random_state=seed) for seed in (1, 1, 2)]
    crops = [np.asarray(craft.fit(images, 2)[0]) for craft in fits]
    assert crops[0].shape == (48, 3, 16, 16)
    assert np.array_equal(crops[0], crops[1]) and not np.array_equal(crops[0], crops[2])


def test_fitting_again_forgets_the_first_fit(halves, images):
    craft = Craft(*halves, **SETTINGS)
    craft.fit(images, class_id=2)
    first = craft.estimate_importance()
    craft.fit(images[:6], class_id=0)
    assert craft.importance_ is None and craft.sensitivity is None
    again = craft.estimate_importance()
    assert craft.class_id_ == 0 and np.abs(first - again).max() > 1e-3


def test_xpliques_names(fitted, images):
    importances = fitted.estimate_importance()
    factorization, sensitivity = fitted.factorization, fitted.sensitivity
    assert factorization.inputs is images and factorization.class_id == 2
    assert np.array_equal(factorization.reducer.components_, fitted.concept_bank_)
    rows = np.abs(np.random.default_rng(0).normal(size=(3, 24)))
    assert np.array_equal(factorization.reducer.transform(rows), nnls(rows, fitted.concept_bank_))
    assert np.array_equal(sensitivity.importances, importances)
    assert np.array_equal(sensitivity.most_important_concepts, np.argsort(importances)[::-1])
    assert sensitivity.cmaps.shape == (6, 3)


def test_before_fit():
    craft = Craft(lambda x: x)
    assert craft.factorization is None and craft.sensitivity is None
    for call in (craft.check_if_fitted, craft.estimate_importance, lambda: craft.transform(np.zeros((1, 3, 8, 8)))):
        with pytest.raises(NotFittedError, match="fit"):
            call()
    with pytest.raises(NotFittedError):
        craft.plot_concepts_importances()


def test_the_constructor_only_assigns():
    arguments = {name: object() for name in list(inspect.signature(Craft.__init__).parameters)[1:]}
    craft = Craft(**arguments)
    assert vars(craft) == arguments == craft.get_params()


def test_nb_design_of_the_call_comes_first(fitted, images, halves):
    craft = Craft(*halves, **SETTINGS, nb_design=16)
    craft.fit(images, class_id=2)
    craft.estimate_importance()
    designs = 12 + 12
    assert craft.importance_.evaluations == designs * 16 * 7 + 12 * 8
    craft.estimate_importance(nb_design=256)
    assert craft.importance_.evaluations == designs * 256 * 7 + 12 * 8


@pytest.mark.parametrize("shape", [(1, 1, 30, 22), (2, 4, 20, 20), (1, 3, 17, 33)])
def test_odd_shapes_and_one_concept(shape):
    images = np.random.default_rng(0).random(shape, np.float32)

    def g(x):
        return np.maximum(np.concatenate([x, 1 - x], axis=1)[:, :, ::3, ::3], 0)

    craft = Craft(g, lambda a: a.mean(axis=(2, 3)), number_of_concepts=1, patch_size=7, data_format="NCHW")
    crops, u, w = craft.fit(images, class_id=1)
    assert crops.shape[1:] == (shape[1], 7, 7) and u.shape == (len(crops), 1) and w.shape == (1, 2 * shape[1])
    assert craft.estimate_importance() == pytest.approx([1.0], abs=0.01)
    assert craft.transform(images[0]).shape[0] == 1


def test_mistakes(halves, images, weights):
    g, h = halves
    craft = Craft(g, h, **SETTINGS)
    with pytest.raises(InputError, match=r"patch size 41 is larger than the images \(48x40"):
        Craft(g, h, 6, 16, 41).fit(images)
    with pytest.raises(InputError, match=r"200 concepts .* 108 crops"):
        Craft(g, h, 200, 16, 16).fit(images)
    with pytest.raises(InputError, match=r"25 concepts .* 24 channels"):
        Craft(g, h, 25, 16, 16).fit(images)
    with pytest.raises(InputError, match=r"negative \(lowest -"):
        Craft(lambda x: g(x) - 0.01, h, **SETTINGS).fit(images)
    with pytest.raises(InputError, match=r"not finite .nan."):
        craft.fit(np.where(images == images[3, 1, 5, 5], np.nan, images))
    with pytest.raises(InputError, match="'pictures/'"):
        craft.fit("pictures/")
    with pytest.raises(InputError, match=r"There are no images"):
        craft.fit(images[:0])
    with pytest.raises(InputError, match="data_format"):
        craft.fit(np.zeros((2, 8, 8, 8), np.float32))
    with pytest.raises(InputError, match="'NWHC'"):
        Craft(g, h, data_format="NWHC").fit(images)
    with pytest.raises(InputError, match="'sliding'"):
        Craft(g, h, 6, 16, 16, crops="sliding").fit(images)
    with pytest.raises(InputError, match="A int is no model"):
        Craft(3).fit(images)
    only_g = Craft(g, **SETTINGS)
    only_g.fit(images)
    assert only_g.transform(images[:1]).shape == (1, 10, 8, 6)
    with pytest.raises(InputError, match="no second half"):
        only_g.estimate_importance()


def test_a_class_that_is_not_there(bundles, images):
    with pytest.raises(InputError, match=r"no class 5.*0 to 4"):
        Craft(SplitModel(bundles["linear"]), **SETTINGS).fit(images, class_id=5)


def test_negative_activations_in_transform(fitted, halves):
    with pytest.raises(InputError, match=r"negative \(lowest -1\)"):
        fitted.transform(None, -np.ones((2, 24)))


def test_negative_activations_of_images_after_the_fit(halves, images):
    g, h = halves
    craft = Craft(lambda x: g(x) - (x.max() > 2), h, **SETTINGS)
    craft.fit(images, class_id=2)
    for call in (craft.transform, craft.estimate_importance):
        with pytest.raises(InputError, match=r"negative \(lowest -.*Cut the model after a ReLU"):
            call(images * 3)


@pytest.mark.parametrize("wrong", ["pictures/a.jpg", Path("pictures"), 3, None, {"arr_0": np.ones((2, 3, 48, 40))}])
def test_what_is_no_array_of_images(wrong, fitted):
    calls = [fitted.fit, fitted.transform]
    if wrong is not None:  # the images of the fit
        calls.append(fitted.estimate_importance)
    for call in calls:
        with pytest.raises(InputError, match=r"is no array of images.*model.preprocess"):
            call(wrong)


def test_negative_activations_name_cuts_that_are_not(make_model, tmp_path, images):
    bundle = create_bundle(make_model("linear"), ["conv2_2"], tmp_path / "bundle")
    with pytest.raises(InputError, match=r"(?s)negative \(lowest -.*Relu_3.*never negative"):
        Craft(SplitModel(bundle), **SETTINGS).fit(images)


def test_tensors_and_paths_of_bundles(bundles, images):
    class Tensor:  # what PyTorch's has
        def __init__(self, array):
            self.array = array

        shape = property(lambda self: self.array.shape)

        def detach(self):
            return self

        def cpu(self):
            return self

        def __array__(self, dtype=None, copy=None):
            return self.array

        def __len__(self):
            return len(self.array)

        def __getitem__(self, key):
            return Tensor(self.array[key])

    craft = Craft(bundles["linear"].folder, **SETTINGS, device="cpu")
    crops, _, w = craft.fit(Tensor(images), class_id=2)
    again = Craft(bundles["linear"], **SETTINGS)
    assert np.array_equal(w, again.fit(images, class_id=2)[2])
    assert isinstance(crops[0], np.ndarray)
    assert craft.transform(Tensor(images[0])).shape == (1, 10, 8, 6)


def test_typical_coefficients_are_the_mean_of_the_best_crops(fitted):
    u = np.sort(fitted.crops_u_, axis=0)[::-1]
    np.testing.assert_allclose(fitted.typical_coefficients(3), u[:3].mean(axis=0), rtol=1e-6)


def test_a_second_half_beside_a_bundle_is_refused(bundles, images):
    with pytest.raises(InputError, match="h = 500 was given"):
        Craft(bundles["linear"], 500).fit(images, class_id=2)

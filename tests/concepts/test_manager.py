import warnings

import numpy as np
import pytest
from matplotlib.figure import Figure

from craft_onnx.concepts.craft import Craft
from craft_onnx.concepts.manager import CraftManager
from craft_onnx.errors import CraftWarning, InputError, NotFittedError
from craft_onnx.runtime.model import SplitModel

SIZES = {"number_of_concepts": 3, "batch_size": 5, "patch_size": 8}
PER_CLASS = {0: 7, 1: 4, 2: 5}  # images predicted as each class of four, in turns


class Counting:
    """g, and how many images it has seen."""

    def __init__(self):
        self.images = 0
        self.largest = 0

    def __call__(self, x):
        self.images += len(x)
        self.largest = max(self.largest, len(x))
        return np.concatenate([x, 1 - x], axis=1)[:, :, ::2, ::2]


def h(a):
    """Four logits: the class is the brightest channel of three; the fourth is never predicted."""
    means = a.mean(axis=(2, 3))
    return np.concatenate([means[:, :3], np.full((len(a), 1), -1.0)], axis=1) @ np.diag([3.0, 3.0, 3.0, 1.0])


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(4)
    made = 0.4 * rng.random((16, 3, 24, 16), np.float32)
    for image, class_id in zip(made, classes(), strict=True):
        image[class_id] += 0.5
    return made


def classes():
    left = dict(PER_CLASS)
    turns = [c for _ in range(7) for c in PER_CLASS if left.update({c: left[c] - 1}) or left[c] >= 0]
    return np.array(turns)


@pytest.fixture
def labels():
    """The classes predicted, but for two images."""
    found = classes()
    found[0], found[4] = 2, 0
    return found


@pytest.fixture
def manager(images, labels):
    return CraftManager(Counting(), h, images, labels, **SIZES)


def test_concepts_are_those_of_the_first_images_predicted_as_the_class(manager, images):
    assert manager.fit(nb_samples_per_class=4) is manager
    assert np.array_equal(manager.predictions_, classes())
    for class_id, craft in manager.craft_instances.items():
        chosen = np.flatnonzero(classes() == class_id)[:4]
        plain = Craft(Counting(), h, **SIZES)
        crops, u, w = plain.fit(images[chosen], class_id=class_id)
        assert craft.class_id_ == class_id and np.array_equal(craft.concept_bank_, w)
        assert np.array_equal(craft.crops_u_, u) and np.array_equal(craft.crops_, crops)
    importances = manager.estimate_importance(nb_design=32)
    assert list(importances) == [0, 1, 2]
    assert np.array_equal(importances[2], plain.estimate_importance(nb_design=32))


def test_g_sees_every_image_once_for_the_predictions(manager):
    assert np.array_equal(manager.compute_predictions(), classes())
    assert manager.input_to_latent_model.images == 16 and manager.input_to_latent_model.largest == 5
    manager.input_to_latent_model.images = 0
    manager.fit()
    crops = sum(len(craft.crops_) for craft in manager.craft_instances.values())
    assert manager.input_to_latent_model.images == 16 + crops


def test_classes_are_the_labels_or_those_asked_for(images, labels):
    assert list(CraftManager(Counting(), h, images, labels).craft_instances) == [0, 1, 2]
    assert CraftManager(Counting(), h, images, labels[:, None]).list_of_class_of_interest == [0, 1, 2]
    asked = CraftManager(Counting(), h, images, None, np.array([2, 0, 2]), **SIZES).fit()
    assert asked.list_of_class_of_interest == asked.fitted_classes_ == [2, 0]
    settings = CraftManager(Counting(), h, images, labels, None, 3, 5, 8, "cpu", random_state=3, crops="random")
    craft = settings.craft_instances[0]
    assert (craft.number_of_concepts, craft.batch_size, craft.patch_size, craft.device) == (3, 5, 8, "cpu")
    assert craft.random_state == 3 and craft.crops == "random"


def test_a_model_with_both_halves(bundles, tmp_path):
    model = SplitModel(bundles["linear"])
    images = np.random.default_rng(1).random((40, 3, 48, 40), np.float32) * np.linspace(0.1, 2, 40)[:, None, None, None]
    images = images.astype(np.float32)
    predicted = model.predict(images).argmax(axis=1)
    most = int(np.bincount(predicted).argmax())
    made = CraftManager.from_model(model, images, predicted, [most], 4, 16, 16).fit(3)
    assert np.array_equal(made.compute_predictions(), predicted)
    craft = made.of(most)
    assert craft.halves_.model is model
    plain = Craft(model, **SIZES | {"number_of_concepts": 4, "patch_size": 16})
    assert np.array_equal(craft.concept_bank_, plain.fit(images[predicted == most][:3], most)[2])
    made.estimate_importance()
    assert craft.importance_.exact
    from_path = CraftManager.from_model(bundles["linear"].folder, images, None, [most], device="cpu")
    assert np.array_equal(from_path.compute_predictions(), predicted)


def test_the_images_are_not_copied(images, labels):
    class Lazy:
        def __len__(self):
            return len(images)

        def __getitem__(self, index):
            return images[index]

    lazy = Lazy()
    made = CraftManager(Counting(), h, lazy, labels, **SIZES).fit()
    same = CraftManager(Counting(), h, images, labels, **SIZES).fit()
    for class_id, craft in made.fitted():
        assert craft.images_.images is lazy
        assert np.array_equal(craft.concept_bank_, same.of(class_id).concept_bank_)
    assert np.shares_memory(same.of(0).images_[0], images)
    assert len(same.of(0).images_[2:5]) == 3


def test_a_class_never_predicted(images, labels):
    strict = CraftManager(Counting(), h, images, labels, [0, 3], **SIZES)
    message = r"Class 3 is predicted for none of 16 images \(predicted: class 0 for 7, 2 for 5, 1 for 4\).*skip=True"
    with pytest.raises(InputError, match=message):
        strict.fit()
    lenient = CraftManager(Counting(), h, images, labels, [0, 3, 1], **SIZES, skip=True)
    with pytest.warns(CraftWarning, match=r"Class 3 is left out\. Class 3 is predicted for none"):
        lenient.fit()
    assert lenient.fitted_classes_ == [0, 1]
    assert list(lenient.estimate_importance(nb_design=16)) == [0, 1]
    with pytest.raises(InputError, match=r"Class 3 was left out when fitting.*0, 1"):
        lenient.plot_concepts_crops(3)
    with pytest.raises(InputError, match=r"Class 2 is no class of interest.*0, 1"):
        lenient.plot_concepts_importances(2)


def test_many_classes_in_an_error_are_few_words(labels, images):
    made = CraftManager(Counting(), lambda a: np.eye(20)[np.arange(len(a)) + 3], images, None, [0], 3, 16, 8)
    with pytest.raises(InputError, match=r"class 3 for 1, 4 for 1, 5 for 1, 6 for 1, 7 for 1 and 11 more classes\)"):
        made.fit()


def test_no_class_that_can_be_fitted(images, labels):
    made = CraftManager(Counting(), h, images, labels, [0, 3], 7, 5, 8, skip=True)  # g has six channels
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(InputError, match="None of the classes"):
            made.fit()
    assert len(caught) == 2 and "7 concepts cannot be found" in str(caught[0].message)


def test_before_fit_and_before_importances(manager, images):
    calls = (manager.estimate_importance, lambda: manager.plot_concepts_crops(0), lambda: manager.reliability(0))
    for call in calls:
        with pytest.raises(NotFittedError, match=r"fit\(\)"):
            call()
    manager.fit()
    for plot in (manager.plot_concepts_importances, manager.plot_concepts_crops):
        with pytest.raises(NotFittedError, match="estimate_importance"):
            plot(1)
    with pytest.raises(NotFittedError, match="estimate_importance"):
        manager.plot_image_concepts(images[0], 1)


def test_plots_are_those_of_the_class(manager, images, tmp_path, capsys):
    manager.fit(verbose=True)
    manager.estimate_importance(nb_design=16, verbose=True)
    printed = capsys.readouterr().out
    assert "Fitting CRAFT instance for class 1\n" in printed and "Estimating importances for class 2\n" in printed
    bars = manager.plot_concepts_importances(2, nb_most_important_concepts=2, verbose=True)
    values = np.sort(manager.of(2).importance_.values)[::-1]
    assert np.allclose([bar.get_height() for bar in bars.axes[0].patches], values[:2])
    assert capsys.readouterr().out.count("has an importance value of") == 2
    assert len(manager.plot_concepts_crops(1, nb_crops=4, nb_most_important_concepts=2).subfigs) == 2
    path = tmp_path / "image.png"
    figure = manager.plot_image_concepts(images[1], 1, filepath=path, interpolation="nearest")
    assert isinstance(figure, Figure) and path.stat().st_size > 10_000


def test_reliability_is_about_the_labels(manager, labels):
    manager.fit()
    craft = manager.of(0)
    chosen = np.flatnonzero(classes() == 0)
    dominant = craft.image_importances().argmax(axis=1)
    for concept, found in enumerate(manager.reliability(0)):
        right = labels[chosen][dominant == concept] == 0
        assert (np.isnan(found) and not len(right)) or found == pytest.approx(right.mean())


def test_mistakes(images, labels):
    with pytest.raises(InputError, match=r"Labels of shape \(15,\) do not fit 16 images"):
        CraftManager(Counting(), h, images, labels[:15])
    with pytest.raises(InputError, match="neither labels nor classes"):
        CraftManager(Counting(), h, images, None)
    with pytest.raises(InputError, match="no classes of interest"):
        CraftManager(Counting(), h, images, labels, [])
    with pytest.raises(InputError, match="'pictures/'"):
        CraftManager(Counting(), h, "pictures/", labels)
    with pytest.raises(InputError, match="nb_samples_per_class is 0"):
        CraftManager(Counting(), h, images, labels).fit(0)
    with pytest.raises(InputError, match="no second half"):
        CraftManager(Counting(), None, images, labels).fit()
    with pytest.raises(InputError, match=r"output of shape \(16, 6, 12, 8\)"):
        CraftManager(Counting(), lambda a: a, images, labels).fit()
    with pytest.raises(InputError, match="no finite row"):
        CraftManager(Counting(), lambda a: h(a) * np.nan, images, labels).fit()
    with pytest.raises(InputError, match="no labels"):
        CraftManager(Counting(), h, images, None, [0], **SIZES).fit().reliability(0)
    with pytest.raises(InputError, match="There are no images"):
        CraftManager(Counting(), h, images[:0], None, [0]).fit()

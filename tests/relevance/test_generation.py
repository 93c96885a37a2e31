"""Generated pictures: they excite more than any drawn one; the whole gradient by differences; the optimizer."""

import dataclasses

import numpy as np
import pytest

import craft_onnx as co
from craft_onnx.attribution.targets import Channel, LinearCombination, Logit
from craft_onnx.concepts.attributions import concept_target
from craft_onnx.description import Description, Preprocessing
from craft_onnx.errors import CraftWarning, InputError
from craft_onnx.graph.load import load, save, write_description
from craft_onnx.relevance.fourier import pictures_of, random_spectra
from craft_onnx.relevance.generation import _Adam, _Way, generate_maximal
from craft_onnx.relevance.objectives import RectifiedChannel, objective_of
from craft_onnx.relevance.transformations import Transformations
from craft_onnx_models.birds.draw import draw_many
from craft_onnx_models.birds.draw import pictures as of

CUT, FIRST = "features.9", "features.1"
DEAD = 5  # no bird excites this channel of the cut
STEPS = 24
STRAIGHT = Transformations(jitter=0, scale=(1, 1), rotation=0)


@pytest.fixture(scope="module")
def drawn(birds):
    return birds.preprocess(of(draw_many(64, seed=5)))


@pytest.fixture(scope="module")
def fitted(birds, drawn):
    craft = co.Craft(birds, number_of_concepts=4, patch_size=32, batch_size=32)
    craft.fit(drawn[:24])
    return craft


def test_a_logit_rises_above_that_of_any_bird(birds, drawn):
    result = generate_maximal(birds, [2, 6], steps=STEPS)
    assert result.pictures.shape == (2, 96, 96, 3) and result.pictures.dtype == np.uint8
    assert (result.after > 1.5 * birds.predict(drawn).max(axis=0)[[2, 6]]).all()
    assert result.curves.shape == (2, STEPS) and (result.curves[:, -5:].min(1) > result.curves[:, :5].max(1)).all()


def test_its_value_is_that_of_the_picture(birds):
    result = generate_maximal(birds, 3, steps=4)
    x = birds.preprocess(result.picture)
    np.testing.assert_allclose(birds.predict(x)[0, 3], result.after[0], rtol=1e-4)


@pytest.mark.parametrize(("layer", "channel"), [(CUT, 4), (FIRST, 3), ("features.8", 0)])
def test_a_channel_rises_above_that_of_any_bird(birds, drawn, layer, channel):
    result = generate_maximal(birds, channel, layer=layer, steps=STEPS)
    best = objective_of(birds, [channel] * len(drawn), layer).values(drawn).max()
    assert result.after[0] > 1.3 * best and result.after[0] > 4 * result.before[0]


def test_a_channel_at_the_cut_has_the_value_that_g_gives_it(birds, drawn):
    values = objective_of(birds, [4, 9], CUT).values(drawn[:2])
    means = birds.g(drawn[:2]).mean(axis=(2, 3))
    np.testing.assert_allclose(values, [means[0, 4], means[1, 9]], rtol=1e-4)


def test_a_concept_rises_above_that_of_any_bird(birds, drawn, fitted):
    result = generate_maximal(birds, [0, 3], craft=fitted, steps=STEPS)
    present = fitted.transform(drawn).mean(axis=(1, 2)).max(axis=0)[[0, 3]]
    assert (result.after > 1.5 * present).all()
    x = birds.preprocess(list(result.pictures))
    expected = fitted.transform(x).mean(axis=(1, 2))[[0, 1], [0, 3]]
    np.testing.assert_allclose(result.after, expected, rtol=1e-3)


def test_an_absent_concept_is_sought_along_its_direction(birds, fitted):
    objective = objective_of(birds, 1, craft=fitted)
    grey = np.zeros((1, 3, 96, 96), np.float32)
    a = np.zeros_like(birds.g(grey))
    pulled = []
    still = dataclasses.replace(objective, vjp=lambda x: (a, lambda dy: pulled.append(dy) or np.zeros_like(x)))
    still.ascent(grey)
    expected = fitted.concept_bank_[1] / (a.shape[2] * a.shape[3])
    np.testing.assert_allclose(pulled[0][0].mean(axis=(1, 2)), expected, rtol=1e-5)


@pytest.mark.parametrize("target", [Logit(1), LinearCombination([0, 1, 0, -1, 0, 0, 0, 0]), Channel(4)])
def test_any_target_of_an_attribution_goes(birds, target):
    result = generate_maximal(birds, target, steps=8)
    assert result.after[0] > result.before[0] + 0.1


def test_equal_seeds_give_equal_pictures(birds):
    first, again, other = (generate_maximal(birds, 2, steps=4, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.pictures, again.pictures)
    np.testing.assert_array_equal(first.curves, again.curves)
    assert (first.pictures != other.pictures).mean() > 0.5


def test_a_picture_does_not_depend_on_what_comes_with_it(birds):
    told = []
    together = generate_maximal(birds, [0, 3, 5], steps=4, batch_size=2, progress=lambda *done: told.append(done))
    for i, class_id in enumerate((0, 3, 5)):
        alone = generate_maximal(birds, class_id, steps=4)
        np.testing.assert_allclose(together.curves[i], alone.curves[0], rtol=1e-3)  # batches sum in another order
        assert np.abs(together.pictures[i].astype(int) - alone.picture).mean() < 0.5
    assert told == [(2 * step, 12) for step in (1, 2, 3, 4)] + [(8 + step, 12) for step in (1, 2, 3, 4)]


def test_pictures_may_have_a_size_of_their_own(birds):
    result = generate_maximal(birds, 2, steps=STEPS, size=(64, 80))
    assert result.picture.shape == (64, 80, 3) and result.after[0] > 15
    assert result.options["size"] == (64, 80) and result.options["steps"] == STEPS and result.seed == 0
    assert result.provider == "cpu"


def test_the_whole_gradient_is_that_of_differences(birds):
    way = _Way(birds.preprocessing, (90, 100), 1, 0.05, 0.3, Transformations(), 0)
    rng = np.random.default_rng(0)
    spectra = random_spectra(rng, way.size, 1.0)
    affine = way.views.draw(rng, way.size, way.rule.size)
    objective = objective_of(birds, 2)

    def value(at):
        return objective.values(way.seen(pictures_of(at, way.size)[0], affine)[0])[0]

    pictures, pull = pictures_of(spectra, way.size)
    x, pull_view = way.seen(pictures, affine)
    gradient = pull(pull_view(objective.ascent(x)[1]))
    length = np.linalg.norm(gradient)
    step = 1e-2 * gradient / length  # of a spectrum of length 200
    slope = (value(spectra + step) - value(spectra - step)) / 2e-2
    assert slope == pytest.approx(length, rel=0.05)  # of a network with kinks, in float32


def test_adam_is_that_of_the_paper():
    rng = np.random.default_rng(0)
    gradients = [
        (rng.standard_normal((1, 2)) + 1j * rng.standard_normal((1, 2))).astype(np.complex64) for _ in range(5)
    ]
    adam, m, v = _Adam(), np.zeros(4), np.zeros(4)
    for t, gradient in enumerate(gradients, 1):
        g = np.array([gradient[0, 0].real, gradient[0, 0].imag, gradient[0, 1].real, gradient[0, 1].imag], np.float64)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        expected = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        np.testing.assert_allclose(adam.direction(gradient).view(np.float32)[0], expected, rtol=1e-4)


def test_a_sleeping_channel_is_woken_in_the_direction_before_the_rectifier():
    y = np.random.default_rng(0).standard_normal((2, 3, 4, 5))
    y[1, 2] = -np.abs(y[1, 2])
    rows, target = np.arange(2), RectifiedChannel(2, upper=1.0)
    rectified = Channel(2).value(np.clip(y, 0, 1), rows)
    np.testing.assert_allclose(target.value(y, rows), rectified)
    dy = target.cotangent(y, rows)
    np.testing.assert_allclose(dy[0, 2], (y[0, 2] > 0) / 20)  # also where it clips
    np.testing.assert_allclose(dy[1, 2], np.full((4, 5), 1 / 20))
    assert not dy[:, :2].any()


def test_a_dead_channel_is_said_to_be(birds):
    with pytest.warns(CraftWarning, match="Nothing excites target 1 more"):
        result = generate_maximal(birds, [4, DEAD], layer=CUT, steps=6)
    assert result.after[1] == 0 < result.after[0]


@pytest.fixture(scope="module")
def channels_last(residual, tmp_path_factory):
    """The residual network with channels last, for grey-blue-red pictures."""
    graph = load(residual.bundle.path("model"))
    rule = Preprocessing((8, 6), "NHWC", "bgr", 1 / 255, (0.4, 0.5, 0.5), (0.2, 0.2, 0.3))
    write_description(graph, Description(preprocessing=rule))
    path = tmp_path_factory.mktemp("nhwc") / "net.onnx"
    save(graph, path)
    return co.load(path, cut="both")


@pytest.mark.parametrize("layer", ["positive", "conv1", "both"])
def test_channels_may_come_last(channels_last, layer):
    x = channels_last.preprocess(np.random.default_rng(0).integers(0, 256, (40, 8, 6, 3), dtype=np.uint8))
    result = generate_maximal(channels_last, [0, 5], layer=layer, steps=60, transformations=STRAIGHT)
    assert result.picture.shape == (8, 6, 3)
    for channel, after in zip((0, 5), result.after, strict=True):
        assert after > objective_of(channels_last, [channel] * 40, layer).values(x).max()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"target": 8}, "no class 8 among 8"),
        ({"target": "duck"}, "no class to explain"),
        ({"target": []}, "No target"),
        ({"target": 64, "layer": CUT}, "no channel 64 among 64"),
        ({"target": 1.5, "layer": CUT}, "no number of a channel"),
        ({"target": 0, "layer": "features.99"}, "no tensor or layer 'features.99'"),
        ({"target": 0, "steps": 0}, "too small"),
        ({"target": 0, "size": (1, 40)}, "too small"),
        ({"target": 0, "batch_size": 0}, "not positive"),
        ({"target": [Logit(0), Channel(0)]}, "at once"),
    ],
)
def test_what_cannot_be_generated(birds, arguments, problem):
    with pytest.raises(InputError, match=problem):
        generate_maximal(birds, **arguments)


def test_concepts_belong_to_the_model_at_their_cut(birds, residual, fitted):
    with pytest.raises(InputError, match="no concept 4 among 4"):
        generate_maximal(birds, 4, craft=fitted)
    with pytest.raises(InputError, match="Both a layer"):
        generate_maximal(birds, 0, craft=fitted, layer=CUT)
    with pytest.raises(InputError, match="concepts are of 64"):
        objective_of(residual, 0, craft=fitted)
    assert concept_target(fitted, 0).concept_bank.shape == (4, 64)


def test_preprocessing_must_be_known_and_outside_of_the_graph(residual, birds, tmp_path):
    from craft_onnx.graph.bake import bake_preprocessing

    with pytest.raises(InputError, match="not known how pictures"):
        generate_maximal(residual, 0)
    graph = bake_preprocessing(load(birds.bundle.path("model")), birds.preprocessing)
    rule = dataclasses.replace(birds.preprocessing, baked=True, layout="NHWC")
    write_description(graph, Description(preprocessing=rule))
    save(graph, tmp_path / "baked.onnx")
    with pytest.warns(CraftWarning, match="no gradient"):
        baked = co.load(tmp_path / "baked.onnx")
    with pytest.raises(InputError, match="takes bytes"):
        generate_maximal(baked, 0)

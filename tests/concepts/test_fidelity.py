"""Deletion and insertion of concepts against literal loops, and rankings whose answer is known."""

import itertools

import numpy as np
import pytest
from matplotlib.figure import Figure

from craft_onnx.concepts.craft import Craft
from craft_onnx.concepts.fidelity import concept_curve, gradient_input, step_masks
from craft_onnx.concepts.head import ConceptHead
from craft_onnx.errors import InputError, NotFittedError
from craft_onnx.runtime.model import SplitModel

WEIGHTS = np.array([0.5, 3.0, 1.0, 2.0])


def painted(count=12, seed=0):
    """Images (n, 4, 16, 16): every block of 8 x 8 pixels is bright in one of four channels, each at times."""
    rng = np.random.default_rng(seed)
    images = np.zeros((count, 4, 16, 16), np.float32)
    for i, y, x in np.ndindex(count, 2, 2):
        images[i, (i + 2 * y + x) % 4, 8 * y : 8 * y + 8, 8 * x : 8 * x + 8] = rng.uniform(0.5, 1.0)
    return images


def blocks(x):
    """g: means over cells of a quarter of the image's side."""
    n, channels, height, width = x.shape
    return x.reshape(n, channels, 4, height // 4, 4, width // 4).mean(axis=(3, 5))


def saturating(a):
    """h: the channels are the concepts; class 1 adds them up, each bent, with weights of its own."""
    logit = np.tanh(4 * a.mean(axis=(2, 3))) @ WEIGHTS
    return np.stack([-logit, logit], axis=1)


@pytest.fixture(scope="module")
def known():
    craft = Craft(blocks, saturating, number_of_concepts=4, patch_size=8, data_format="NCHW")
    craft.fit(painted(), class_id=1)
    craft.estimate_importance()
    return craft


def fitted(bundle, images):
    craft = Craft(SplitModel(bundle), number_of_concepts=6, batch_size=16, patch_size=16)
    craft.fit(images, class_id=2)
    craft.estimate_importance()
    return craft


@pytest.fixture(scope="module")
def crafts(bundles, images):
    return {head: fitted(bundles[head], images) for head in ("linear", "positions", "mlp", "conv")}


def literal(craft, images, order, inserted):
    """h(sum of the u_i W_i that are there), image by image and step by step."""
    u, curves = craft.transform(images), []
    for one in u:
        curve = []
        for step in range(len(order) + 1):
            kept = order[:step] if inserted else order[step:]
            activations = np.zeros((*one.shape[:-1], craft.concept_bank_.shape[1]), np.float32)
            for i in kept:
                activations += one[..., i, None] * craft.concept_bank_[i]
            curve.append(craft.halves_.logits(activations[None], craft.layout_)[0, craft.class_id_])
        curves.append(curve)
    return np.array(curves)


@pytest.mark.parametrize("inserted", [False, True])
@pytest.mark.parametrize("head", ["linear", "positions", "mlp", "conv"])
def test_curves_are_those_of_a_literal_loop(head, inserted, crafts, images):
    craft = crafts[head]
    curve = (craft.insertion if inserted else craft.deletion)(images[:3], [4, 0, 2, 5, 1, 3])
    expected = literal(craft, images[:3], [4, 0, 2, 5, 1, 3], inserted)
    assert curve.exact == (head in ("linear", "positions"))
    # float32 through the head's layers
    assert np.abs(curve.values - expected).max() < 2e-5 * np.abs(expected).max()
    assert np.allclose(curve.fractions, np.arange(7) / 6)
    assert np.allclose(curve.areas, np.trapezoid(expected, dx=1 / 6), rtol=1e-4, atol=1e-4)
    assert np.allclose(curve.mean, curve.values.mean(axis=0)) and np.isclose(curve.area, curve.areas.mean())


def test_deletion_falls_fastest_in_the_order_of_the_known_concepts(known):
    """Of all 24 orders none falls faster than that of the Sobol indices, which is that of the weights."""
    channels = known.concept_bank_.argmax(axis=1)
    curve = known.deletion()
    assert channels[curve.order].tolist() == np.argsort(WEIGHTS)[::-1].tolist()
    assert not curve.exact
    areas = {order: known.deletion(ranking=order).area for order in itertools.permutations(range(4))}
    assert min(areas, key=areas.get) == tuple(curve.order) and np.isclose(min(areas.values()), curve.area)
    random = [known.deletion(ranking="random", seed=seed).area for seed in range(20)]
    assert curve.area < 0.8 * np.mean(random)
    assert known.insertion().area > np.mean([known.insertion(ranking="random", seed=seed).area for seed in range(20)])


def test_a_ranking_by_contribution_knows_signs(crafts):
    craft = crafts["linear"]
    order = craft.deletion(ranking="contribution").order
    assert (np.diff(craft.importance_.contributions[order]) <= 0).all()
    # Nothing lowers a mean logit faster than the largest contributions first, where they only add up.
    random = [craft.deletion(ranking="random", seed=seed).area for seed in range(30)]
    assert craft.deletion(ranking="contribution").area <= min(random)


@pytest.mark.parametrize("head", ["linear", "mlp", "conv"])
def test_gradient_times_input_is_the_derivative_of_the_masks(head, crafts, images):
    """sum(u dy/du_i) = dy/dm_i at m = 1, by central differences of the masked head."""
    craft, step = crafts[head], 1e-2
    u = craft.head_.reduced(craft.transform(images[:4]))
    shifts = np.concatenate([1 + step * np.eye(6), 1 - step * np.eye(6)]).astype(np.float32)
    values = np.mean([craft.head_.masked(one, shifts) for one in u], axis=0)
    expected = (values[:6] - values[6:]) / (2 * step)
    # ReLUs bend at some of the steps, and float32 differences carry 1e-4 of the logit.
    assert np.abs(gradient_input(craft, images[:4]) - expected).max() < 2e-2 * np.abs(expected).max()


def test_gradient_times_input_of_a_linear_head_is_the_contribution(crafts, images):
    craft = crafts["positions"]
    assert np.allclose(gradient_input(craft), craft.importance_.contributions, rtol=1e-4, atol=1e-5)


def test_tcav_breaks_its_ties_by_the_mean_derivative(crafts):
    craft = crafts["linear"]
    order = craft.deletion(ranking="tcav").order
    found = craft.tcav()
    keys = [(found.scores[i], found.derivatives[:, i].mean()) for i in order]
    assert keys == sorted(keys, reverse=True)


def test_an_order_may_differ_from_image_to_image(crafts, images):
    craft = crafts["mlp"]
    orders = np.array([[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0]])
    values = craft.deletion(images[:2], orders).values
    for i in range(2):
        assert np.allclose(values[i], craft.deletion(images[i : i + 1], orders[i]).values[0], rtol=1e-5, atol=1e-5)


def test_step_masks():
    masks = step_masks(np.array([2, 0, 1]), inserted=False)
    assert masks.tolist() == [[1, 1, 1], [1, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert np.array_equal(step_masks(np.array([2, 0, 1]), inserted=True), 1 - masks)


def test_exact_curves_are_sampled_where_asked():
    head = ConceptHead(lambda u: u.astype(np.float64) @ [1.0, 2.0] + 3, 2, pooled=True, linear=True)
    u = np.random.default_rng(0).random((3, 2)).astype(np.float32)
    exact, evaluated = (concept_curve(head, u, np.array([1, 0]), False, exact=flag) for flag in (True, False))
    assert exact.exact and not evaluated.exact
    assert np.allclose(exact.values, evaluated.values, rtol=1e-6)


@pytest.mark.parametrize("ranking", [[0, 1], [0, 1, 2, 2], [0.0, 1.0, 2.0, 3.0], "alphabetical"])
def test_what_is_no_ranking(ranking, known):
    with pytest.raises(InputError, match=r"no order of 4|no ranking"):
        known.deletion(ranking=ranking)


def test_what_is_needed(known, crafts, images):
    with pytest.raises(InputError, match="gradient graph"):
        known.deletion(ranking="gradient_input")
    with pytest.raises(NotFittedError, match="fit"):
        Craft(blocks, saturating).deletion()
    craft = Craft(blocks, saturating, number_of_concepts=4, patch_size=8, data_format="NCHW")
    craft.fit(painted(), class_id=1)
    with pytest.raises(NotFittedError, match="estimate_importance"):
        craft.deletion()
    assert craft.deletion(ranking="random").values.shape == (12, 5)


def test_plot_of_several_rankings(crafts):
    craft = crafts["mlp"]
    figure = craft.plot_fidelity(rankings=("sobol", "tcav", "random", [0, 1, 2, 3, 4, 5]), repeats=3)
    assert isinstance(figure, Figure)
    left, right = figure.axes
    assert np.allclose(left.lines[0].get_ydata(), craft.deletion().mean)
    random = [craft.insertion(ranking="random", seed=seed).mean for seed in range(3)]
    assert np.allclose(right.lines[2].get_ydata(), np.mean(random, axis=0))
    labels = [text.get_text() for text in left.get_legend().get_texts()]
    assert [label.partition(":")[0] for label in labels] == ["Sobol", "TCAV", "random", "order 4"]
    assert f"{craft.deletion().area:.3g}" in labels[0]

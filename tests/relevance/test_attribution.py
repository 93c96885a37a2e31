"""Conditional attribution: zennit-crp's reference table, and what must hold of any conditions on any network."""

import itertools

import numpy as np
import pytest

import craft_onnx as co
from craft_onnx.graph.reverse.relevance.composites import EpsilonPlus

X = np.array([[-1, 1]], np.float32)
FREE = EpsilonPlus(zero_params="bias")
# Sums of some hundred float32 terms, in another order.
SAME = {"rtol": 1e-4, "atol": 1e-5}


@pytest.mark.parametrize(
    ("condition", "exclude_parallel", "heatmap", "layer1", "layer2"),
    [
        ({}, True, [-11, 21], [1, 4], [5, 0]),
        ({"layer1": [0], "layer2": []}, False, [-1, 2], [1, 4], [5, 0]),
        ({"layer1": [0]}, True, [-1, 2], [1, 4], [0, 0]),
        ({"layer2": [0], "layer1": [0]}, False, [-11, 17], [1, 4], [5, 0]),
        ({"y": [0], "layer1": [0]}, True, [-1, 2], [1, 4], [0, 0]),
    ],
)
def test_reference_table(side_by_side, condition, exclude_parallel, heatmap, layer1, layer2):
    attribution = co.CondAttribution(side_by_side)
    found = attribution(
        X, [{"y": [0], **condition}], "epsilon_plus", ["layer1", "layer2"], exclude_parallel=exclude_parallel
    )
    # The stabilizer, 1e-6, is all that the divisions are off by.
    for actual, expected in (
        (found.heatmap, heatmap),
        (found.relevances["layer1"], layer1),
        (found.relevances["layer2"], layer2),
        (found.prediction, [10]),
        (found.activations["layer1"], [1, 1]),
        (found.conserved, sum(heatmap) / 10),
    ):
        np.testing.assert_allclose(actual[0], expected, rtol=1e-5, atol=1e-5)


def two_steps(attribution, x, layer, ids, classes):
    """Relevance up to the layer, the others' set to zero by hand, and on from there."""
    reaching = attribution(x, [{"y": classes}], FREE, [layer], exclude_parallel=False).relevances[layer]
    masked = np.zeros_like(reaching)
    masked[:, ids] = reaching[:, ids]
    axis = attribution.layers[layer].channel_axis
    return attribution(
        x, [{}], FREE, start_layer=layer, init_rel=np.moveaxis(masked, 1, axis), exclude_parallel=False
    ).heatmap


@pytest.mark.parametrize(("layer", "ids"), [("both", [1]), ("both", [0, 3, 5]), ("positive", [2]), ("act1", [])])
def test_a_condition_is_a_mask_on_what_reaches_the_layer(residual, pictures, layer, ids):
    attribution = co.CondAttribution(residual)
    found = attribution(pictures, [{layer: ids, "y": [2]}], FREE).heatmap
    np.testing.assert_allclose(found, two_steps(attribution, pictures, layer, ids, [2]), **SAME)
    assert bool(np.abs(found).max() > 1e-3) == bool(ids)


def test_channels_come_first_whatever_the_layout(residual, pictures):
    found = co.CondAttribution(residual)(pictures, [{"y": [1]}], FREE, ["both", "positive"])
    assert found.heatmap.shape == (5, 8, 6)
    assert found.relevances["positive"].shape == found.activations["positive"].shape == (5, 6, 8, 6)
    np.testing.assert_allclose(found.relevances["positive"], found.relevances["both"], **SAME)
    np.testing.assert_allclose(found.activations["positive"], np.maximum(found.activations["both"], 0))


def test_concepts_of_one_list_add_up(birds, bird_inputs):
    attribution, layer = co.CondAttribution(birds), "features.9"
    each = [attribution(bird_inputs, [{layer: [i], "y": [3]}], "epsilon_plus").heatmap for i in (2, 30, 47)]
    union = attribution(bird_inputs, [{layer: [2, 30, 47], "y": [3]}], "epsilon_plus").heatmap
    np.testing.assert_allclose(union, sum(each), rtol=1e-4, atol=1e-5 * np.abs(union).max())
    assert np.abs(union).max() > 0


def test_layers_of_one_condition_must_all_let_it_pass(birds, bird_inputs):
    attribution, upper, lower = co.CondAttribution(birds), "features.9", "features.5"
    both = attribution(bird_inputs[:2], [{upper: [2, 30], lower: [7, 8], "y": [3]}], FREE, [lower])
    first = attribution(bird_inputs[:2], [{upper: [2, 30], "y": [3]}], FREE, [lower])
    np.testing.assert_allclose(both.relevances[lower], first.relevances[lower], rtol=1e-5, atol=1e-7)
    masked = np.zeros_like(first.relevances[lower])
    masked[:, [7, 8]] = first.relevances[lower][:, [7, 8]]
    on = attribution(bird_inputs[:2], [{}], FREE, start_layer=lower, init_rel=masked).heatmap
    np.testing.assert_allclose(both.heatmap, on, rtol=1e-4, atol=1e-5 * np.abs(on).max())


def test_records_are_taken_before_the_mask(birds, bird_inputs):
    attribution = co.CondAttribution(birds)
    free = attribution(bird_inputs, [{"y": [0]}], "epsilon_plus", ["features.9"])
    masked = attribution(bird_inputs, [{"y": [0], "features.9": [1]}], "epsilon_plus", ["features.9"])
    np.testing.assert_array_equal(masked.relevances["features.9"], free.relevances["features.9"])


CONDITIONS = [
    {"y": [0]},
    {"y": [3], "features.9": [2]},
    {"y": [3], "features.9": [30, 2], "features.5": [7]},
    {"y": [1, 5]},
    {"y": [0], "features.9": []},
]


def test_many_conditions_are_those_one_by_one(birds, bird_inputs):
    attribution, x = co.CondAttribution(birds), bird_inputs[:3]
    many = attribution(x, CONDITIONS, "epsilon_plus", ["features.5"], batch_size=2)
    single = [
        attribution(x[i : i + 1], [one], "epsilon_plus", ["features.5"])
        for i, one in itertools.product(range(3), CONDITIONS)
    ]
    assert_rows(many, single)


def test_as_many_conditions_as_samples_belong_to_one_each(birds, bird_inputs):
    attribution, x = co.CondAttribution(birds), bird_inputs[:5]
    pairs = attribution(x, CONDITIONS, "epsilon_plus", ["features.5"], batch_size=4)
    single = [attribution(x[i : i + 1], [one], "epsilon_plus", ["features.5"]) for i, one in enumerate(CONDITIONS)]
    assert_rows(pairs, single)


@pytest.mark.parametrize("batch_size", [1, 2, 9])
def test_conditions_one_after_the_other(birds, bird_inputs, batch_size):
    attribution, x = co.CondAttribution(birds), bird_inputs[:2]
    found = list(attribution.generate(x, CONDITIONS, "epsilon_plus", ["features.5"], batch_size=batch_size))
    assert len(found) == -(-len(CONDITIONS) // batch_size)
    for place, one in enumerate(found):
        some = CONDITIONS[place * batch_size : (place + 1) * batch_size]
        single = [
            attribution(x[i : i + 1], [condition], "epsilon_plus", ["features.5"])
            for i, condition in itertools.product(range(2), some)
        ]
        assert_rows(one, single)


def assert_rows(many, single):
    """All results agree, up to sums in an order that depends on the batch."""
    for read in (
        lambda one: one.heatmap,
        lambda one: one.relevances["features.5"],
        lambda one: one.activations["features.5"],
        lambda one: one.prediction,
    ):
        expected = np.concatenate([read(one) for one in single])
        np.testing.assert_allclose(read(many), expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_what_relevance_starts_from(birds, bird_inputs):
    attribution, x = co.CondAttribution(birds), bird_inputs[:2]
    logit = attribution(x, [{"y": [4]}], FREE)
    one = attribution(x, [{"y": [4]}], FREE, init_rel=1.0).heatmap
    by_function = attribution(x, [{"y": [4]}], FREE, init_rel=np.ones_like).heatmap
    by_array = attribution(x, [{}], FREE, init_rel=np.eye(8, dtype=np.float32)[4]).heatmap
    np.testing.assert_allclose(one * logit.prediction[:, 4, None, None], logit.heatmap, **SAME)
    np.testing.assert_array_equal(by_function, one)
    np.testing.assert_array_equal(by_array, one)


def test_relevance_without_biases_is_conserved(birds, bird_inputs):
    """What the stabilizer takes of a Relu net without biases is about 1e-6 of each quotient."""
    found = co.CondAttribution(birds)(bird_inputs, [{"y": [3]}], EpsilonPlus(zero_params="bias"))
    np.testing.assert_allclose(found.heatmap.sum(axis=(1, 2)) / found.prediction[:, 3], found.conserved, rtol=1e-4)
    np.testing.assert_allclose(found.conserved, 1, atol=5e-3)


def test_it_unpacks_as_zennit_crps_does(side_by_side):
    heatmap, activations, relevances, prediction = co.CondAttribution(side_by_side)(
        X, [{"y": [0]}], "epsilon_plus", record_layer=["layer1"]
    )
    assert heatmap.shape == (1, 2) and prediction.shape == (1, 1)
    assert list(activations) == list(relevances) == ["layer1"]


@pytest.mark.parametrize(
    ("conditions", "options", "message"),
    [
        ([], {}, "no list of conditions"),
        ("y", {}, "no list of conditions"),
        ([["y"]], {}, "is no condition"),
        ([{"layer1": [0]}], {}, "has no 'y'"),
        ([{"y": [1]}], {}, "no class 1 among 1"),
        ([{"y": ["cat"]}], {}, "no numbers of concepts"),
        ([{"y": [0], "layer1": [2]}], {}, "no channel 2 among 2"),
        ([{"y": [0], "layer1": [-1]}], {}, "no channel -1 among 2"),
        ([{"y": [0], "layer9": [0]}], {}, "no tensor or layer 'layer9'"),
        ([{"y": [0], "x": [0]}], {}, "'x' is the model's input"),
        ([{"y": [0]}], {"record_layer": ["layer9"]}, "no tensor or layer 'layer9'"),
        ([{"y": [0]}], {"composite": "epsilon"}, "no rule set 'epsilon'"),
        ([{"y": [0]}], {"composite": None}, "None is no composite"),
        ([{"y": [0]}], {"mask_map": 3}, "3 is no Concept"),
        ([{"y": [0]}], {"mask_map": {"layer1": 3}}, "3 is no Concept"),
        ([{"y": [0]}], {"mask_map": {"layer9": co.ChannelConcept()}}, "no tensor or layer 'layer9'"),
        ([{}], {"init_rel": np.ones((1, 7))}, r"init_rel has shape \(1, 7\)"),
        ([{"y": [0], "positive": [0]}], {"start_layer": "layer1"}, "'positive' does not lead to 'layer1'"),
        ([{"layer2": [0]}], {"start_layer": "layer1"}, "'layer2' does not lead to 'layer1'"),
    ],
)
def test_what_cannot_be_asked(side_by_side, conditions, options, message):
    with pytest.raises(co.InputError, match=message):
        co.CondAttribution(side_by_side)(X, conditions, **{"composite": "epsilon_plus", **options})


class Left(co.Concept):
    """Concept 0 is the left half of a layer: a mask with fewer axes than the layer has."""

    def mask(self, ids, activations):
        return np.arange(activations.shape[-1]) < activations.shape[-1] // 2


class Wrong(co.Concept):
    """A mask that does not fit."""

    def mask(self, ids, activations):
        return np.ones(activations.shape[-1] + 1)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_notion_of_ones_own(birds, bird_inputs, count):
    attribution, x = co.CondAttribution(birds), bird_inputs[:2]
    found = attribution(x, [{"features.9": [0], "y": [3]}] * count, FREE, mask_map=Left()).heatmap
    reaching = attribution(x, [{"y": [3]}], FREE, ["features.9"]).relevances["features.9"]
    reaching[..., reaching.shape[-1] // 2 :] = 0
    expected = attribution(x, [{}], FREE, start_layer="features.9", init_rel=reaching).heatmap
    expected = expected if count == 2 else np.repeat(expected, count, axis=0)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    with pytest.raises(co.InputError, match=r"A mask of shape \(25,\) does not fit"):
        attribution(x, [{"features.9": [0], "y": [3]}] * count, FREE, mask_map={"features.9": Wrong()})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x: x[:, :, :50], r"has shape \(12, 3, 50, 96\), the model takes"),
        (lambda x: x[0], "Add a batch axis"),
        (lambda x: x * np.nan, "not finite"),
    ],
)
def test_inputs_that_do_not_fit(birds, bird_inputs, spoil, message):
    with pytest.raises(co.InputError, match=message):
        co.CondAttribution(birds)(spoil(bird_inputs), [{"y": [0]}], "epsilon_plus")


def test_raw_pictures_are_refused(birds):
    with pytest.raises(co.InputError, match="uint8"):
        co.CondAttribution(birds)(np.zeros((1, 96, 96, 3), np.uint8), [{"y": [0]}], "epsilon_plus")


def test_graphs_are_made_once(birds, bird_inputs, monkeypatch):
    attribution, made = co.CondAttribution(birds), []
    opened = birds.session_of
    monkeypatch.setattr(birds, "session_of", lambda graph: made.append(graph) or opened(graph))
    for channel in range(3):
        attribution(bird_inputs[:1], [{"y": [channel], "features.9": [channel]}], EpsilonPlus())
    assert len(made) == 2

"""Relevance through the concepts of a Craft: shares of activations, by a literal loop; that they land on their part."""

import numpy as np
import pytest

import craft_onnx as co
from craft_onnx.relevance.nmf_concept import EPSILON
from craft_onnx_models.birds.audit import PARTS, TAGGED, part_lifts
from craft_onnx_models.birds.draw import draw_many, pictures

LAYER = "features.9"


@pytest.fixture(scope="module")
def craft(birds):
    craft = co.Craft(birds, number_of_concepts=8, patch_size=32)
    craft.fit(birds.preprocess(pictures(draw_many(120, [TAGGED], seed=1))), class_id=TAGGED)
    return craft


@pytest.fixture(scope="module")
def activations(birds, bird_inputs):
    return birds.g(bird_inputs)


def test_a_mask_is_the_share_of_a_concept_in_every_number(craft, activations):
    bank, u = craft.concept_bank_, craft.transform(None, np.moveaxis(activations[:1], 1, -1))[0]
    mask = co.NMFConcept(craft).mask([2, 4], activations[:1])
    floor = EPSILON * (u @ bank).max()
    for c, y, x in np.ndindex(*activations.shape[1:]):
        explained = sum(u[y, x, k] * bank[k, c] for k in range(len(bank)))
        share = sum(u[y, x, k] * bank[k, c] for k in (2, 4)) / (explained + floor)
        np.testing.assert_allclose(mask[0, c, y, x], share, rtol=1e-4, atol=1e-6)


def test_shares_are_what_the_masks_let_through(craft, activations):
    concept, relevance = co.NMFConcept(craft), np.random.default_rng(0).normal(size=activations.shape)
    shares = concept.shares(relevance, activations)
    for k in range(8):
        through = (relevance * concept.mask([k], activations)).sum(axis=1)
        np.testing.assert_allclose(shares[:, k], through, rtol=1e-4, atol=1e-5)


def test_all_concepts_together_let_everything_through_that_they_explain(craft, activations):
    mask = co.NMFConcept(craft).mask(range(8), activations)
    explained = craft.transform(None, np.moveaxis(activations, 1, -1)) @ craft.concept_bank_
    there = np.moveaxis(explained, -1, 1) > 1e-3 * explained.max()
    np.testing.assert_allclose(mask[there], 1, rtol=2e-3)
    assert mask.max() <= 1 + 1e-6


def test_heatmaps_of_concepts_add_up(birds, bird_inputs, craft):
    attribution, concept = co.CondAttribution(birds), co.NMFConcept(craft)
    each = [{LAYER: [k], "y": [0]} for k in range(8)]
    maps = attribution(bird_inputs[:2], each, "epsilon_plus", mask_map=concept).heatmap.reshape(2, 8, 96, 96)
    together = attribution(
        bird_inputs[:2], [{LAYER: list(range(8)), "y": [0]}], "epsilon_plus", mask_map={LAYER: concept}
    )
    scale = np.abs(together.heatmap).max()
    np.testing.assert_allclose(maps.sum(axis=1), together.heatmap, rtol=1e-4, atol=1e-5 * scale)


def test_the_relevance_of_a_concept_lands_on_its_part(birds, craft):
    """More sharply than its coefficients, whose cells are large; seen: 22 and 10 on the tag, 0.1 for the wing's."""
    drawn = [bird for bird in draw_many(60, [TAGGED], seed=9) if bird.shows("tag")][:10]
    x, tag = birds.preprocess(pictures(drawn)), PARTS.index("tag")
    coefficients = part_lifts(craft.transform(x), drawn)[:, tag]
    each = [{LAYER: [k], "y": [TAGGED]} for k in range(len(coefficients))]
    found = co.CondAttribution(birds)(x, each, "epsilon_plus", mask_map=co.NMFConcept(craft)).heatmap
    maps = np.maximum(found.reshape(len(x), len(each), 96, 96), 0).transpose(0, 2, 3, 1)
    lifts = part_lifts(maps, drawn)[:, tag]
    of_tag, elsewhere = int(coefficients.argmax()), int(coefficients.argmin())
    assert lifts[of_tag] > max(15, 1.5 * coefficients[of_tag])
    assert lifts[elsewhere] < 1


def test_what_it_needs(craft, activations):
    concept = co.NMFConcept(craft)
    with pytest.raises(co.InputError, match="depend on the activations"):
        concept.attribute(activations)
    with pytest.raises(co.InputError, match="3 channels, the concepts are of 64"):
        concept.mask([0], activations[:, :3])
    with pytest.raises(co.InputError, match="negative"):
        concept.mask([0], -activations)
    with pytest.raises(co.InputError, match="no concept 8 among 8"):
        concept.mask([8], activations)
    with pytest.raises(co.NotFittedError):
        co.NMFConcept(co.Craft(craft.halves_.model))


def test_what_a_concept_is_made_of(birds, bird_inputs, craft):
    """The channels of the layer before it in a tree are those that its relevance goes through."""
    concept, x = co.NMFConcept(craft), bird_inputs[:1]
    attribution = co.CondAttribution(birds)
    graph = co.trace_model_graph(birds, None, ["features.6", LAYER])
    tree = co.AttributionGraph(attribution, graph, {LAYER: concept})(
        x, "epsilon_plus", 5, LAYER, target=TAGGED, width=[3]
    )
    found = attribution(x, [{LAYER: [5], "y": [TAGGED]}], "epsilon_plus", ["features.6"], mask_map={LAYER: concept})
    shares = co.ChannelConcept().attribute(found.relevances["features.6"])[0]
    most = np.argsort(-np.abs(shares))[:3]
    _, connections = tree
    assert [channel for _, channel, _ in connections[LAYER, 5]] == most.tolist()
    np.testing.assert_allclose([share for *_, share in connections[LAYER, 5]], shares[most], rtol=1e-4)

"""Trees of concepts against a literal loop over single conditions; what flows into a concept is what it passes on."""

import json

import numpy as np
import onnx_ir as ir
import pytest

import craft_onnx as co
from craft_onnx.graph.load import save
from craft_onnx.graph.reverse.relevance.composites import EpsilonPlus
from craft_onnx.relevance.layers import Layers

FREE = EpsilonPlus(zero_params="bias")
CHAIN = ["features.2", "features.4", "features.6", "features.8"]

# Every layer sees those before it, as in a DenseNet; sizes are taken by Shape, through which no relevance flows.
DENSE = """<ir_version: 10, opset_import: ["" : 18]> agraph (float[n, 3, 4, 4] x) => (float[n, 3] y)
<float[3, 3, 3, 3] w1, float[2, 6, 1, 1] w2, float[3, 5, 1, 1] w3, float[11, 3] w4, int64[2] axes = {2, 3}> {
    conv1 = Conv<pads = [1, 1, 1, 1]>(x, w1)
    act1 = Relu(conv1)
    two = Concat<axis = 1>(x, act1)
    conv2 = Conv(two, w2)
    act2 = Relu(conv2)
    three = Concat<axis = 1>(act1, act2)
    conv3 = Conv(three, w3)
    act3 = Relu(conv3)
    size = Shape(conv1)
    sized = Reshape(act3, size)
    all = Concat<axis = 1>(x, act1, act2, sized)
    pooled = ReduceMean<keepdims = 0>(all, axes)
    y = Gemm(pooled, w4)
}"""
SHAPES = {"w1": (3, 3, 3, 3), "w2": (2, 6, 1, 1), "w3": (3, 5, 1, 1), "w4": (11, 3)}


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    rng = np.random.default_rng(3)
    weights = [ir.tensor(rng.normal(size=shape).astype(np.float32), name=name) for name, shape in SHAPES.items()]
    path = tmp_path_factory.mktemp("dense") / "net.onnx"
    save(ir.from_onnx_text(DENSE, initializers=weights), path)
    return co.load(path)


def test_which_layer_feeds_which_in_a_dense_net(dense):
    graph = co.trace_model_graph(dense, None, ["conv1", "conv2", "conv3", "y"])
    assert [graph.find_input_layers(name) for name in graph.layer_names] == [
        [], ["conv1"], ["conv1", "conv2"], ["conv1", "conv2", "conv3"],
    ]  # fmt: skip
    assert graph.find_input_layers("act3") == ["conv3"]


def test_two_names_of_one_tensor(residual):
    feeding = Layers(residual).feeding(["conv1", "both", "act2", "both"])
    assert feeding["both"] == ["conv1", "act2"] and feeding["act2"] == ["conv1"]


def literal(attribution, x, path, target, widths):
    """The tree below a path of concepts: (layer, concept, relevance, share, children), by conditions."""
    if not widths:
        return []
    before = CHAIN[CHAIN.index(path[-1][0]) - 1]
    condition = {layer: [concept] for layer, concept in path}
    found = attribution(x, [{**condition, "y": [target]}], FREE, [before])
    relevances = found.relevances[before][0].sum(axis=(1, 2))
    best = sorted(range(len(relevances)), key=lambda c: -relevances[c])[: widths[0]]
    return [
        (
            before,
            c,
            relevances[c],
            relevances[c] / np.abs(relevances).sum(),
            literal(attribution, x, [*path, (before, c)], target, widths[1:]),
        )
        for c in best
        if relevances[c] > 0
    ]


def assert_same(nodes, expected, scale):
    assert [(node.layer, node.concept) for node in nodes] == [one[:2] for one in expected]
    for node, (_, _, relevance, share, below) in zip(nodes, expected, strict=True):
        # The same float32 numbers, summed in another order.
        assert node.relevance == pytest.approx(relevance, abs=1e-4 * scale)
        assert node.share == pytest.approx(share, abs=1e-4)
        assert_same(node.children, below, scale)


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_the_tree_is_that_of_single_conditions(birds, bird_inputs, batch_size):
    attribution, x = co.CondAttribution(birds), bird_inputs[:1]
    tree = co.AttributionGraph(attribution, CHAIN)(x, FREE, 0, "features.8", 0, [3, 2, 2], batch_size=batch_size)
    expected = literal(attribution, x, [("features.8", 0)], 0, [3, 2, 2])
    reached = attribution(x, [{"y": [0]}], FREE, ["features.8"]).relevances["features.8"][0].sum(axis=(1, 2))
    assert tree.root.relevance == pytest.approx(reached[0], rel=1e-4)
    assert tree.root.share == pytest.approx(reached[0] / np.abs(reached).sum(), rel=1e-4)
    assert_same(tree.root.children, expected, tree.root.relevance)
    assert len(expected) == 3 and all(len(one[4]) == 2 for one in expected)


def test_what_concepts_below_have_adds_up(birds, bird_inputs):
    """Of a chain without biases; the stabilizer takes about 1e-6 of each quotient."""
    tree = co.AttributionGraph(co.CondAttribution(birds), CHAIN)(bird_inputs[:1], FREE, 0, "features.8", 0, [99, 1])
    assert sum(node.relevance for node in tree.root.children) == pytest.approx(tree.root.relevance, rel=2e-3)
    assert sum(node.share for node in tree.root.children) == pytest.approx(1, rel=1e-6)
    assert [node.passed for node in (tree.root, tree.root.children[0])] == pytest.approx([1, 1], abs=2e-3)


def test_what_flows_through_another_layer_is_not_counted_twice(dense):
    """conv1 feeds conv3 itself and through conv2; each path is measured by conditions that name its layers."""
    x = np.random.default_rng(0).uniform(size=(1, 3, 4, 4)).astype(np.float32)
    attribution, condition = co.CondAttribution(dense), {"conv3": [1], "y": [0]}
    tree = co.AttributionGraph(attribution, ["conv1", "conv2"])(x, FREE, 1, "conv3", 0, [99], heatmaps=True)

    def relevance(layer, **through):
        return attribution(x, [condition | through], FREE, [layer]).relevances[layer].sum(axis=(0, 2, 3))

    expected = {("conv2", i): value for i, value in enumerate(relevance("conv2"))}
    by_itself = relevance("conv1") - relevance("conv1", conv2=[0, 1])
    expected |= {("conv1", i): value for i, value in enumerate(by_itself)}
    found = {node.key: node.relevance for node in tree.root.children}
    assert {layer for layer, _ in found} == {"conv1", "conv2"}
    assert found == {key: pytest.approx(value, rel=1e-3) for key, value in expected.items() if abs(value) > 1e-4}
    assert tree.root.passed == pytest.approx(1, rel=1e-4)  # nothing else feeds conv3
    assert tree.root.heatmap.sum() == pytest.approx(tree.root.relevance, rel=1e-4)


def test_what_goes_past_all_layers_is_missing(dense):
    """conv2 sees the input itself beside conv1."""
    x = np.random.default_rng(0).uniform(size=(1, 3, 4, 4)).astype(np.float32)
    attribution = co.CondAttribution(dense)
    tree = co.AttributionGraph(attribution, ["conv1"])(x, FREE, 0, "conv2", 0, [99])
    past = attribution(x, [{"conv2": [0], "conv1": [], "y": [0]}], FREE, exclude_parallel=False).heatmap
    through = attribution(x, [{"conv2": [0], "y": [0]}], FREE, ["conv1"]).relevances["conv1"]
    assert tree.root.passed * tree.root.relevance == pytest.approx(through.sum(), rel=1e-4)
    assert abs(past.sum() / tree.root.relevance) > 0.01


def test_from_a_layer_or_through_a_parent(birds, bird_inputs):
    attribution, x = co.CondAttribution(birds), bird_inputs[:1]
    graph = co.AttributionGraph(attribution, CHAIN)
    activation = attribution(x, [{"y": [0]}], FREE, ["features.6"]).activations["features.6"]
    alone = graph(x, FREE, 9, "features.6", width=[2])
    assert alone.target is None and alone.root.relevance == pytest.approx(activation[0, 9].sum(), rel=1e-5)
    below = graph(x, FREE, 9, "features.6", 0, [2], parent_c_id=0, parent_layer="features.8")
    found = attribution(x, [{"features.8": [0], "y": [0]}], FREE, ["features.6"]).relevances["features.6"][0]
    assert below.root.relevance == pytest.approx(found[9].sum(), rel=1e-4)
    started = graph(x, FREE, 9, "features.6", width=[], parent_c_id=0, parent_layer="features.8")
    by_hand = attribution(x, [{"features.8": [0]}], FREE, ["features.6"], start_layer="features.8")
    assert started.root.relevance == pytest.approx(by_hand.relevances["features.6"][0, 9].sum(), rel=1e-4)


def test_layers_side_by_side(side_by_side):
    x = np.array([[-1, 1]], np.float32)
    attribution = co.CondAttribution(side_by_side)
    tree = co.AttributionGraph(attribution, ["layer1", "layer2", "y"])(x, FREE, 0, "y", 0, width=[3])
    assert [(node.key, round(node.relevance, 3)) for node in tree.root.children] == [
        (("layer2", 0), 5), (("layer1", 1), 4), (("layer1", 0), 1),
    ]  # fmt: skip
    assert [node.share for node in tree.root.children] == pytest.approx([0.5, 0.4, 0.1])


def test_a_concept_with_negative_relevance_is_made_of_what_is_against(birds, bird_inputs):
    """A class that the picture does not show: the concepts that are followed have relevances of the same sign."""
    attribution, x = co.CondAttribution(birds), bird_inputs[:1]
    logits = birds.predict(x)[0]
    tree = co.AttributionGraph(attribution, ["features.8"])(x, FREE, int(logits.argmin()), "head", width=[3])
    assert logits.min() < 0 and tree.root.relevance == pytest.approx(logits.min(), rel=1e-5)
    relevances = [node.relevance for node in tree.root.children]
    assert relevances == sorted(relevances) and max(relevances) < 0


def test_concepts_of_ones_own(birds, bird_inputs):
    """Pairs of channels: what a pair has is what its channels have."""

    class Pairs(co.Concept):
        def mask(self, ids, activations):
            mask = np.zeros((1, activations.shape[1], 1, 1), activations.dtype)
            mask[:, [channel for pair in ids for channel in (2 * pair, 2 * pair + 1)]] = 1
            return mask

        def shares(self, relevance, activations=None):
            assert activations is not None
            return relevance[:, ::2] + relevance[:, 1::2]

    attribution, x = co.CondAttribution(birds), bird_inputs[:1]
    layers = {"features.8": co.ChannelConcept(), "features.6": Pairs(), "features.4": co.ChannelConcept()}
    tree = co.AttributionGraph(attribution, layer_map=layers)(x, FREE, 0, "features.8", 0, [1, 1], abs_norm=False)
    (pair,) = tree.root.children
    found = attribution(x, [{"features.8": [0], "y": [0]}], FREE, ["features.6"]).relevances["features.6"]
    sums = found[0].sum(axis=(1, 2)).reshape(-1, 2).sum(axis=1)
    assert pair.concept == sums.argmax() and pair.relevance == pytest.approx(sums.max(), rel=1e-4)
    channels = [2 * pair.concept, 2 * pair.concept + 1]
    on = attribution(x, [{"features.8": [0], "features.6": channels, "y": [0]}], FREE, ["features.4"])
    assert pair.children[0].relevance == pytest.approx(on.relevances["features.4"][0].sum(axis=(1, 2)).max(), rel=1e-4)
    assert tree.connections[("features.6", pair.concept)][0][2] == pair.children[0].relevance


def test_nodes_connections_and_json(birds, bird_inputs):
    tree = co.AttributionGraph(co.CondAttribution(birds), CHAIN)(bird_inputs[:1], FREE, 0, "features.8", 0, [2, 2])
    nodes, connections = tree
    assert nodes[0] == ("features.8", 0) and len(set(nodes)) == len(nodes)
    assert [one[:2] for one in connections["features.8", 0]] == nodes[1:3]
    assert sum(map(len, connections.values())) == 6
    written = json.loads(json.dumps(tree.to_json(), allow_nan=False))
    assert written["target"] == 0 and written["root"]["children"][0]["concept"] == tree.root.children[0].concept


def test_heatmaps_are_those_of_the_whole_way(birds, bird_inputs):
    attribution, x = co.CondAttribution(birds), bird_inputs[:1]
    tree = co.AttributionGraph(attribution, CHAIN)(x, FREE, 0, "features.8", 0, [1, 2], heatmaps=True)
    child = tree.root.children[0]
    for way in ([tree.root], [tree.root, child], [tree.root, child, child.children[1]]):
        condition = {node.layer: [node.concept] for node in way}
        expected = attribution(x, [{**condition, "y": [0]}], FREE).heatmap[0]
        np.testing.assert_allclose(way[-1].heatmap, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_the_drawn_tree(birds, bird_inputs):
    picture = np.full((96, 96, 3), 200, np.uint8)
    graph = co.AttributionGraph(co.CondAttribution(birds), CHAIN)
    tree = graph(bird_inputs[:1], FREE, 0, "features.8", 0, [2, 1], heatmaps=True)
    (axes,) = tree.plot(picture, {tree.root.key: [picture, picture]}, {tree.root.key: "beak"}).axes
    assert len(axes.images) == 5 + 2
    texts = [text.get_text() for text in axes.texts]
    assert texts[:2] == ["class 0", "beak"] and f"features.6 · {tree.root.children[0].concept}" in texts
    (bare,) = tree.plot().axes
    assert not bare.images


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        ((0, "features.8"), {"parent_c_id": 0}, "are no concept"),
        ((0, "features.8"), {"parent_layer": "head"}, "are no concept"),
        ((64, "features.8"), {}, "no concept 64 among 64"),
        ((0, "features.11"), {}, "no tensor or layer"),
        ((0, "features.8", 8), {}, "no class 8"),
        ((0, "features.6"), {"parent_c_id": 99, "parent_layer": "features.8"}, "no channel 99"),
    ],
)
def test_what_cannot_be_asked(birds, bird_inputs, given, options, message):
    with pytest.raises(co.InputError, match=message):
        co.AttributionGraph(co.CondAttribution(birds), CHAIN)(bird_inputs[:1], FREE, *given, **options)


def test_a_tree_is_of_one_sample(birds, bird_inputs):
    with pytest.raises(co.InputError, match="There are 2 samples"):
        co.AttributionGraph(co.CondAttribution(birds))(bird_inputs[:2], FREE, 0, "features.8")

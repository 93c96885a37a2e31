"""Conditional relevance on the network of zennit-crp's own tests, by hand."""

import numpy as np
import onnx_ir as ir
import pytest
from support.gradient_oracle import run_all

from craft_onnx.errors import InputError
from craft_onnx.graph.reverse.pair import gradient_pair
from craft_onnx.graph.reverse.relevance.composites import EpsilonPlus, NameMapComposite
from craft_onnx.graph.reverse.relevance.conditions import Conditions
from craft_onnx.graph.reverse.relevance.rules import Epsilon, Flat
from craft_onnx.graph.reverse.vjp import gradient_graph
from craft_onnx.relevance.canonizers import ResNetCanonizer, SequentialMergeBatchNorm

TEXT = """<ir_version: 10, opset_import: ["" : 18]> agraph (float[n, 2] x) => (float[n, 1] y)
<float[2, 2] w1 = {1, 0, 2, 1}, float[2, 2] w2 = {2, 0, 3, 0}, float[4, 1] w3 = {1, 4, 5, 0}> {
    layer1 = Gemm(x, w1)
    layer2 = Gemm(x, w2)
    beside = Concat<axis = 1>(layer1, layer2)
    positive = Relu(beside)
    y = Gemm(positive, w3)
}"""
X = np.array([[-1, 1]], np.float32)
LAYERS = {"layer1": 2, "layer2": 2, "y": 1}
NOTHING, FIRST = [0, 0], [1, 0]


def conditioned(masks, exclude_parallel=True, model=None):
    """Heatmap and records of the network, by the graph and its two parts, which agree."""
    model = model or ir.from_onnx_text(TEXT)
    how = Conditions(tuple(masks), ("layer1", "layer2"), exclude_parallel)
    whole = gradient_graph(model, rules=EpsilonPlus(), carry=how)
    forward, backward = gradient_pair(model, rules=EpsilonPlus(), carry=how)
    values = run_all(forward, x=X)
    feeds = {"cotangent": values["y"]} | {f"mask/{name}": np.array([mask], np.float32) for name, mask in masks.items()}
    found = run_all(whole, x=X, **feeds)
    apart = run_all(backward, **values, **feeds)
    for name in found:
        np.testing.assert_array_equal(found[name], apart[name])
    return [found[name][0] for name in ("gradient", "relevance/layer1", "relevance/layer2")]


@pytest.mark.parametrize(
    ("masks", "exclude_parallel", "heatmap", "layer1", "layer2"),
    [
        ({}, True, [-11, 21], [1, 4], [5, 0]),
        ({"layer1": FIRST, "layer2": NOTHING}, False, [-1, 2], [1, 4], [5, 0]),
        ({"layer1": FIRST}, True, [-1, 2], [1, 4], [0, 0]),
        ({"layer2": FIRST, "layer1": FIRST}, False, [-11, 17], [1, 4], [5, 0]),
        ({"y": [1], "layer1": FIRST}, True, [-1, 2], [1, 4], [0, 0]),
        ({"layer2": FIRST, "layer1": FIRST}, True, [-11, 17], [1, 4], [5, 0]),
        ({"y": [0], "layer1": FIRST}, True, [0, 0], [0, 0], [0, 0]),
    ],
)
def test_reference_table(masks, exclude_parallel, heatmap, layer1, layer2):
    # The stabilizer, 1e-6, is all that the divisions are off by.
    for found, expected in zip(conditioned(masks, exclude_parallel), (heatmap, layer1, layer2), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_a_layer_that_is_not_there():
    model = ir.from_onnx_text(TEXT)
    for how in (Conditions(("layer9",)), Conditions((), ("layer9",))):
        with pytest.raises(InputError, match=r"no tensor or layer 'layer9'\. Did you mean layer"):
            gradient_graph(model, rules=EpsilonPlus(), carry=how)
    with pytest.raises(InputError, match="no tensor or layer 'layer9'"):
        gradient_graph(model, rules=NameMapComposite([("layer9", Flat())]))


def test_composites_take_none_where_zennits_do():
    none = EpsilonPlus(layer_map=None, first_map=None, zero_params=None, canonizers=None)
    model = ir.from_onnx_text(TEXT)
    feeds = {"x": X, "cotangent": np.ones((1, 1), np.float32)}
    found = [run_all(gradient_graph(model, rules=rules), **feeds)["gradient"] for rules in (none, EpsilonPlus())]
    np.testing.assert_array_equal(*found)


def test_canonizers_are_taken_and_not_needed():
    given = EpsilonPlus([SequentialMergeBatchNorm()], epsilon=1e-5)
    assert given == EpsilonPlus(epsilon=1e-5, canonizers=[ResNetCanonizer()]) == EpsilonPlus(epsilon=1e-5)
    assert NameMapComposite([], canonizers=[SequentialMergeBatchNorm()]) == NameMapComposite([])
    with pytest.raises(InputError, match=r"0\.1 are no canonizers\. Give other parameters by name"):
        EpsilonPlus(0.1)


@pytest.mark.parametrize("wrong", ["weights", ["bias", "weight"]])
def test_only_biases_are_left_out(wrong):
    assert Epsilon(zero_params=None) and Epsilon(zero_params=["bias"])
    with pytest.raises(InputError, match="zero_params"):
        Epsilon(zero_params=wrong)

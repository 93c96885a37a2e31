"""What relevance graphs compute, and what they do not: no more than the rules need, and the same numbers."""

import numpy as np
import onnx_ir as ir
import pytest
from support.gradient_oracle import evaluate, run_all
from support.precision import in_double

from craft_onnx.graph.reverse.pair import gradient_pair
from craft_onnx.graph.reverse.relevance.composite import LayerMapComposite
from craft_onnx.graph.reverse.relevance.composites import EpsilonPlus, EpsilonPlusFlat
from craft_onnx.graph.reverse.relevance.conditions import Conditions
from craft_onnx.graph.reverse.relevance.linear import Part, Share, none, ones, propagate
from craft_onnx.graph.reverse.relevance.rules import Flat
from craft_onnx.graph.reverse.vjp import gradient_graph

CHAIN = """<ir_version: 10, opset_import: ["" : 18]> agraph (float[n, 3, 7, 6] x) => (float[n, 2] y)
<float[4, 3, 3, 3] w1, float[4] b1, float[5, 4, 3, 3] w2, float[5] b2, float[2, 5, 1, 1] w3, int64[2] axes = {2, 3}> {
    conv1 = Conv<pads = [1, 1, 1, 1], strides = [2, 1]>(x, w1, b1)
    act1 = Relu(conv1)
    conv2 = Conv<pads = [1, 1, 1, 1]>(act1, w2, b2)
    act2 = Relu(conv2)
    conv3 = Conv(act2, w3)
    y = ReduceMean<keepdims = 0>(conv3, axes)
}"""
SHAPES = {"w1": (4, 3, 3, 3), "b1": (4,), "w2": (5, 4, 3, 3), "b2": (5,), "w3": (2, 5, 1, 1)}


@pytest.fixture(scope="module")
def chain():
    rng = np.random.default_rng(2)
    weights = [ir.tensor(rng.normal(size=shape).astype(np.float32), name=name) for name, shape in SHAPES.items()]
    return ir.from_onnx_text(CHAIN, initializers=weights)


def kinds(graph):
    return [node.op_type for node in graph.graph]


def test_what_cannot_be_negative_is_stabilized_by_its_bias(chain):
    """Only the average, which may be of either sign, is told by its sign."""
    forward, _ = gradient_pair(chain, rules=EpsilonPlusFlat())
    assert kinds(forward).count("HardSigmoid") == 1
    assert kinds(forward).count("Conv") == 3 + 2 + 1  # the model's, those with W+, and the first layer's with ones


def test_data_are_divided_once_for_all_that_is_carried_back(chain):
    """The way back takes the quotient of a layer's output, and neither that nor what it is divided by."""
    _, backward = gradient_pair(chain, rules=EpsilonPlus())
    taken = {value.name for value in backward.graph.inputs}
    assert taken.isdisjoint({"act1", "act2", "conv1", "conv2"})
    assert kinds(backward).count("Div") == 1  # of what relevance starts from


def test_recorded_relevance_is_that_before_the_division(chain):
    x = np.random.default_rng(0).normal(size=(2, 3, 7, 6)).astype(np.float32)
    carry = Conditions(recorded=("act1", "act2"))
    graph = gradient_graph(chain, rules=EpsilonPlus(), carry=carry)
    found = run_all(graph, x=x, cotangent=np.ones((2, 2), np.float32))
    for name in ("act1", "act2"):
        on = gradient_graph(chain, of=name, rules=EpsilonPlus())
        rest = run_all(on, x=x, cotangent=found[f"relevance/{name}"])["gradient"]
        np.testing.assert_allclose(rest, found["gradient"], rtol=1e-4, atol=1e-6)


def test_a_flat_first_layer_is_carried_through_one_plane(chain):
    """The same numbers as by ones for all channels."""

    class Literal(Flat):
        def __call__(self, step, relevance):
            parts = [Share(lambda step, relevance: relevance, [Part(ones, ones, none)])]
            return [propagate(step, parts, relevance, self.epsilon, True), *[None] * (len(step.inputs) - 1)]

    model = in_double(chain.clone())
    x = np.random.default_rng(0).normal(size=(2, 3, 7, 6))
    feeds = {"x": x, "cotangent": np.ones((2, 4, 4, 6))}
    graphs = [
        gradient_graph(model, of="conv1", rules=LayerMapComposite([("Conv", rule())])) for rule in (Flat, Literal)
    ]
    found, expected = (evaluate(graph, **feeds) for graph in graphs)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert all(node.outputs[0].shape[1] == 1 for node in graphs[0].graph if node.op_type.startswith("Conv"))

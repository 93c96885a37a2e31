"""Gradient graphs as models: names, notes, residuals, errors."""

import numpy as np
import onnx_ir as ir
import pytest
from support.gradient_oracle import assert_close, evaluate, one_node, run

from craft_onnx.errors import InputError, UnsupportedOperator
from craft_onnx.graph.load import check
from craft_onnx.graph.names import record_layers
from craft_onnx.graph.reverse.pair import gradient_pair
from craft_onnx.graph.reverse.rules import Rules
from craft_onnx.graph.reverse.tensor import FORWARD_KEY, LAYER_KEY, RULE_KEY, op
from craft_onnx.graph.reverse.vjp import gradient_graph

RNG = np.random.default_rng(0)
X = RNG.standard_normal((3, 4)).astype(np.float32)
DY = RNG.standard_normal((3, 4)).astype(np.float32)
W = RNG.standard_normal((4, 4)).astype(np.float32)
HEADER = '<ir_version: 10, opset_import: ["" : 18]> agraph '


def model_of(text, **arrays):
    """A model from ONNX text without its header; initializers are the inputs that `arrays` has."""
    model = ir.from_onnx_text(HEADER + text)
    for value in list(model.graph.inputs):
        if value.name in arrays:
            value.const_value = ir.tensor(arrays[value.name], name=value.name)
            model.graph.inputs.remove(value)
            model.graph.register_initializer(value)
    for index, node in enumerate(model.graph):
        node.name = node.name or f"node_{index}"
    record_layers(model)
    return model


def network():
    """Two paths from x: both join in a sum."""
    return model_of(
        """(float[n, 4] x, float[4, 4] w) => (float[n, 4] y) {
            dense = MatMul(x, w)
            hidden = Tanh(dense)
            gate = Sigmoid(x)
            gated = Mul(hidden, gate)
            y = Add(gated, hidden)
        }""",
        w=W,
    )


def run_pair(pair, x, cotangent):
    """The gradient by forward and backward graph."""
    forward, backward = pair
    outputs = [value.name for value in forward.graph.outputs]
    values = dict(zip(outputs, all_outputs(forward, **{forward.graph.inputs[0].name: x}), strict=True))
    feeds = {value.name: values[value.name] for value in backward.graph.inputs if value.name != "cotangent"}
    return run(backward, cotangent=cotangent, **feeds)


def all_outputs(model, **feeds):
    from onnx.reference import ReferenceEvaluator

    return ReferenceEvaluator(ir.serde.serialize_model(model)).run(None, feeds)


def content(model):
    return ir.serde.serialize_model(model).SerializeToString()


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_inputs_and_outputs():
    graph = gradient_graph(network()).graph
    assert [(value.name, str(value.shape)) for value in graph.inputs] == [("x", "[n,4]"), ("cotangent", "[n,4]")]
    assert [(value.name, str(value.shape)) for value in graph.outputs] == [("gradient", "[n,4]")]


def test_inner_tensors():
    """From any tensor to any tensor before it."""
    hidden = np.tanh(X @ W)
    expected = DY * sigmoid(X) + DY
    found = run(gradient_graph(network(), wrt="hidden"), x=X, cotangent=DY)
    assert_close(found, expected, 1e-5, "wrt hidden")
    found = run(gradient_graph(network(), of="hidden", wrt="dense"), x=X, cotangent=DY)
    assert_close(found, DY * (1 - hidden**2), 1e-5, "of hidden, wrt dense")
    found = run(gradient_graph(network(), of="gated"), x=X, cotangent=DY)
    gate = sigmoid(X)
    assert_close(found, (DY * gate * (1 - hidden**2)) @ W.T + DY * hidden * gate * (1 - gate), 1e-5, "of gated")


def test_a_tensor_by_itself():
    graph = gradient_graph(network(), of="hidden", wrt="hidden")
    np.testing.assert_array_equal(run(graph, x=X, cotangent=DY), DY)
    same = gradient_graph(model_of("(float[n, 4] x) => (float[n, 4] y) { y = Identity(x) }"))
    np.testing.assert_array_equal(run(same, x=X, cotangent=DY), DY)


def test_every_node_emitted_says_where_it_comes_from():
    model = network()
    names = {node.name for node in model.graph}
    for part in (gradient_graph(model), *gradient_pair(model)):
        for node in part.graph:
            if node.name not in names and node.op_type != "Identity":
                assert node.metadata_props[RULE_KEY] == "gradient"
                op_type, name = node.metadata_props[FORWARD_KEY].split()
                assert next(one for one in model.graph if one.name == name).op_type == op_type
                assert node.metadata_props[LAYER_KEY]


def test_names_that_are_taken():
    """ "cotangent" and "gradient" are ours, and so are the names that emitted nodes would have."""
    model = model_of(
        """(float[n, 4] cotangent, float[4, 4] gradient) => (float[n, 4] constant) {
            residual = MatMul(cotangent, gradient)
            reverse = Tanh(residual)
            constant = Mul(reverse, cotangent)
        }""",
        gradient=W,
    )
    next(iter(model.graph)).name = "reverse/Mul/node"
    plain = gradient_graph(model)
    assert [value.name for value in plain.graph.outputs] == ["gradient"]
    image = plain.graph.inputs[0].name
    assert image != "cotangent"
    hidden = np.tanh(X @ W)
    expected = DY * hidden + (DY * X * (1 - hidden**2)) @ W.T
    assert_close(run(plain, **{image: X, "cotangent": DY}), expected, 1e-5, "taken names")
    assert_close(run_pair(gradient_pair(model), X, DY), expected, 1e-5, "taken names, in a pair")


def test_the_model_is_not_changed():
    model = network()
    before = content(model)
    gradient_graph(model)
    gradient_pair(model, wrt="hidden")
    assert content(model) == before


def test_the_same_bytes_every_time():
    first, second = gradient_graph(network()), gradient_graph(network())
    assert content(first) == content(second)
    assert [content(part) for part in gradient_pair(network())] == [content(part) for part in gradient_pair(network())]


def test_weights_are_shared():
    model = network()
    for part in (gradient_graph(model), *gradient_pair(model)):
        assert part.graph.initializers["w"].const_value is model.graph.initializers["w"].const_value


PAIRS = {
    "x is a residual": "(float[n, 4] x) => (float[n, 4] y) { y = Mul(x, x) }",
    "y is a residual": "(float[n, 4] x) => (float[n, 4] y) { y = Tanh(x) }",
    "y goes back with the cotangent": "(float[n, 4] x) => (float[n, 4] y) { y = Softmax(x) }",
    "y is x": "(float[n, 4] x) => (float[n, 4] y) { y = Identity(x) }",
    "no residuals": "(float[n, 4] x, float[4, 4] w) => (float[n, 4] y) { y = MatMul(x, w) }",
    "x and y": "(float[n, 4] x) => (float[n, 4] y) { a = Tanh(x) b = Sin(x) y = Mul(a, b) }",
    "used twice": "(float[n, 4] x) => (float[n, 4] y) { a = Tanh(x) b = Mul(a, a) y = Add(a, b) }",
}


@pytest.mark.parametrize("name", PAIRS)
def test_pairs(name):
    """What forward hands over is what backward takes; both are models of their own."""
    arrays = {"w": W} if " w)" in PAIRS[name] else {}
    model = model_of(PAIRS[name], **arrays)
    forward, backward = gradient_pair(model)
    check(forward)
    check(backward)
    handed = [value.name for value in forward.graph.outputs]
    assert handed[0] == "y"
    assert len(handed) == len(set(handed))
    assert backward.graph.inputs[0].name == "cotangent"
    taken = [value.name for value in backward.graph.inputs[1:]]
    assert set(taken) == set(handed[1:]) | ({"y"} & set(taken))
    whole = gradient_graph(model)
    expected = evaluate(whole, **{value.name: {"x": X, "cotangent": DY}[value.name] for value in whole.graph.inputs})
    assert_close(run_pair((forward, backward), X, DY), expected, 1e-6, name)


def test_backward_does_not_repeat_what_depends_on_x_alone():
    _, backward = gradient_pair(network())
    assert not {node.op_type for node in backward.graph} & {"Tanh", "Sigmoid"}


def test_values_beside_the_way_are_not_differentiated():
    """Neither an operator without a rule beside the way, nor one that only asks for a shape."""
    model = model_of(
        """(float[n, 4] x, float[3, 3] square) => (float[m, 4] y) {
            factor = Det(square)
            scaled = Mul(x, factor)
            shape = Shape(x)
            y = Reshape(scaled, shape)
        }""",
        square=np.eye(3, dtype=np.float32) * 2,
    )
    np.testing.assert_array_equal(run(gradient_graph(model), x=X, cotangent=DY), 8 * DY)


def test_an_operator_without_a_rule_is_named_with_its_layer():
    model = model_of("(float[n, 3, 3] x) => (float[n] y) { a = Tanh(x) y = Det(a) }")
    list(model.graph)[1].name = "/head/Det"
    for node in model.graph:
        node.metadata_props.clear()
    record_layers(model)
    with pytest.raises(UnsupportedOperator, match=r"ai\.onnx::Det \(node '/head/Det', layer 'head") as error:
        gradient_graph(model)
    assert "gradient_rule('Det', domain='')" in error.value.remedy
    assert error.value.exit_code == 3


def test_what_a_subgraph_reads_from_outside_is_a_way_too():
    """The If has a condition for an input alone; a gradient without its part would be wrong, and nobody would see."""
    model = model_of(
        """(float[n, 4] x) => (float[n, 4] y) {
            total = ReduceSum <keepdims = 0> (x)
            zero = Constant <value_float = 0.0> ()
            positive = Greater(total, zero)
            chosen = If (positive) <
                then_branch = one () => (float[n, 4] a) { a = Mul(x, x) },
                else_branch = other () => (float[n, 4] b) { b = Neg(x) }
            >
            y = Add(chosen, x)
        }"""
    )
    with pytest.raises(UnsupportedOperator, match=r"ai\.onnx::If \("):
        gradient_graph(model)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"of": "nowhere"}, "has no tensor 'nowhere'"),
        ({"wrt": "w2"}, "has no tensor 'w2'"),
        ({"of": "gate", "wrt": "hidden"}, "No derivative leads from 'gate' to 'hidden'"),
    ],
)
@pytest.mark.parametrize("function", [gradient_graph, gradient_pair])
def test_errors(function, options, message):
    with pytest.raises(InputError, match=message):
        function(network(), **options)


def test_an_input_that_the_output_does_not_depend_on():
    model = model_of("(float[n, 4] x, float[4] w) => (float[n, 4] y) { s = Shape(x) y = Expand(w, s) }", w=W[0])
    with pytest.raises(InputError, match="No derivative leads from 'y' to 'x'"):
        gradient_graph(model)


def test_several_inputs_are_refused():
    with pytest.raises(InputError, match="2 inputs"):
        gradient_graph(model_of("(float[n, 4] x, float[4, 4] w) => (float[n, 4] y) { y = MatMul(x, w) }"))


def test_a_gradient_that_is_zero_everywhere_has_the_shape_of_x():
    model = model_of(
        "(float[n, 4] x, float[4] zero) => (float[n, 4] y) { y = Mul(x, zero) }", zero=np.zeros(4, np.float32)
    )
    np.testing.assert_array_equal(run(gradient_graph(model), x=X, cotangent=DY), np.zeros_like(X))


def test_a_rule_set_of_ones_own():
    """Its rules go before those of the base; their name is in the notes."""
    from craft_onnx.graph.reverse.gradients import GRADIENTS

    mine = Rules("mine", {"Tanh": lambda step, dy: [2 * dy]}, base=GRADIENTS)
    graph = gradient_graph(one_node("Tanh", [X], dtype=np.float32), rules=mine)
    np.testing.assert_array_equal(run(graph, input_0=X, cotangent=DY), 2 * DY)
    assert {node.metadata_props[RULE_KEY] for node in graph.graph} == {"mine"}


def test_a_rule_for_an_operator_of_ones_own():
    """Registered by a decorator, for an operator of another domain that a function would not be."""
    rules = Rules("mine", {})

    @rules.rule("Cube", domain="my.domain")
    def cube(step, dy):
        return [3 * step.x * step.x * dy]

    model = one_node("Identity", [X], dtype=np.float32)
    node = next(iter(model.graph))
    node.domain, node.op_type = "my.domain", "Cube"
    assert rules.find(node) is cube
    assert rules.operators == frozenset()
    assert op.Cube  # any operator's name is one of `op`

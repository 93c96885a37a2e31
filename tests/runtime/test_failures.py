"""Errors of onnxruntime name the forward node, the layer and the rule that the failing node comes from."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

from craft_onnx.errors import CraftError, InputError, UnsupportedOperator
from craft_onnx.graph.normalize import normalize
from craft_onnx.graph.reverse.gradients import GRADIENTS
from craft_onnx.graph.reverse.rules import Rules
from craft_onnx.graph.reverse.tensor import op
from craft_onnx.graph.reverse.vjp import gradient_graph
from craft_onnx.runtime.failures import origin
from craft_onnx.runtime.sessions import Session

FROM = r"Node 'reverse/{}[^']*' is part of the bad of Relu relu \(layer 'relu'\)\."


@pytest.fixture
def write(classifier, tmp_path):
    """Write the gradient graph of the classifier with a rule for Relu, unchecked by ONNX."""

    def write(rule, changed=lambda proto: None):
        model = gradient_graph(
            normalize(ir.serde.deserialize_model(classifier())), rules=Rules("bad", {"Relu": rule}, base=GRADIENTS)
        )
        proto = ir.serde.serialize_model(model)
        changed(proto)
        onnx.save(proto, tmp_path / "bad.onnx")
        return tmp_path / "bad.onnx"

    return write


def made_by_relu(proto):
    return [
        node
        for node in proto.graph.node
        if any(prop.value == "bad" for prop in node.metadata_props) and node.name.startswith("reverse/Tanh")
    ]


def tanh(step, dy):
    return [op.Tanh(dy)]


def test_a_node_that_fails_when_it_runs(write):
    path = write(lambda step, dy: [op.Reshape(dy, op.Shape(step.x) * 2).shaped_like(step.x)])
    session = Session(path)
    feeds = {"x": np.ones((2, 3, 8, 8), np.float32), "cotangent": np.ones((2, 5), np.float32)}
    message = r"bad\.onnx failed on x float32 \(2, 3, 8, 8\), cotangent float32 \(2, 5\): .*" + FROM.format("Reshape")
    with pytest.raises(CraftError, match=message):
        session.run(feeds)
    with pytest.raises(CraftError, match=message):
        session.run_values(feeds)


def test_a_node_that_onnxruntime_does_not_know(write):
    def rename(proto):
        for node in made_by_relu(proto):
            node.op_type = "Tanhh"

    with pytest.raises((InputError, UnsupportedOperator), match=FROM.format("Tanh")):
        Session(write(tanh, rename))


def test_a_node_whose_shapes_do_not_fit(write):
    def wrong(proto):
        for node in made_by_relu(proto):
            node.op_type = "Concat"
            node.attribute.append(helper.make_attribute("axis", 7))

    path = write(tanh, wrong)
    with pytest.raises(InputError, match=FROM.format("Tanh")):
        Session(path)
    with pytest.raises(InputError, match=FROM.format("Tanh")):
        Session(path.read_bytes())


def test_other_nodes_have_no_origin(write):
    path = write(tanh)
    assert origin(path, "while running Conv node. Name:'conv' Status Message: no") == ""
    assert origin(path, "something else") == ""
    assert origin(path.with_name("gone.onnx"), "Name:'conv'") == ""

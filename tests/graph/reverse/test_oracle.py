"""The checker itself: it must fail on what is wrong."""

import numpy as np
import pytest
from support.gradient_oracle import check_node, one_node

from craft_onnx.errors import InputError, UnsupportedOperator
from craft_onnx.graph.reverse.gradients import GRADIENTS
from craft_onnx.graph.reverse.rules import Rules
from craft_onnx.graph.reverse.tensor import op
from craft_onnx.graph.reverse.vjp import gradient_graph

X = np.random.default_rng(1).standard_normal((3, 4))


def with_rule(op_type, rule):
    return Rules("wrong", {op_type: rule}, base=GRADIENTS)


def test_a_right_rule_passes():
    check_node("Tanh", [X], torch=lambda x: x.tanh())


def test_a_rule_wrong_by_a_thousandth_fails():
    wrong = with_rule("Tanh", lambda step, dy: [1.001 * dy * (1 - step.y * step.y)])
    with pytest.raises(AssertionError, match="along a random direction is off by"):
        check_node("Tanh", [X], rules=wrong)


def test_a_rule_that_forgets_to_sum_over_a_broadcast_axis_fails():
    first_row = with_rule("Add", lambda step, dy: [op.Slice(dy, [0], [1], [0]), dy])
    with pytest.raises(AssertionError, match="along a random direction is off by"):
        check_node("Add", [X[:1], X], rules=first_row)


def test_a_cotangent_of_a_shape_that_broadcasting_cannot_give_fails():
    half = with_rule("Tanh", lambda step, dy: [op.Slice(dy, [0], [2], [0])])
    with pytest.raises(AssertionError, match="Tensor"):
        check_node("Tanh", [X], rules=half, dynamic=[False])


def test_a_rule_with_a_cotangent_too_few_fails():
    with pytest.raises(AssertionError, match="Add: 1 cotangents for 2 inputs"):
        check_node("Add", [X, X], rules=with_rule("Add", lambda step, dy: [dy]))


def test_a_wrong_peer_fails():
    with pytest.raises(AssertionError, match="the other implementation: off by"):
        check_node("Tanh", [X], torch=lambda x: 1.000001 * x.tanh())


def test_an_operator_without_a_rule_is_named():
    with pytest.raises(UnsupportedOperator, match=r"ai.onnx::Det \(node 'node'"):
        gradient_graph(one_node("Det", [X[:, :3]]))


def test_no_derivative_leads_through_rounding():
    with pytest.raises(InputError, match="No derivative leads from 'output_0' to 'input_0'"):
        gradient_graph(one_node("Round", [X]))


def test_a_rule_can_be_given_to_what_stops_derivatives():
    straight_through = with_rule("Round", lambda step, dy: [dy])
    graph = gradient_graph(one_node("Round", [X]), rules=straight_through)
    assert [node.op_type for node in graph.graph] == ["Identity"]

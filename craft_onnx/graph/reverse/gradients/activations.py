"""Gradients of activation functions."""

from craft_onnx.graph.reverse.gradients.arithmetic import elementwise
from craft_onnx.graph.reverse.rules import Rule
from craft_onnx.graph.reverse.tensor import op

RULES: dict[str, Rule] = {
    "Relu": elementwise(lambda x, y, dy: op.Where(y > 0, dy, 0)),
    "Sigmoid": elementwise(lambda x, y, dy: dy * y * (1 - y)),
    "Tanh": elementwise(lambda x, y, dy: dy * (1 - y * y)),
}

"""Gradients of convolutions."""

from craft_onnx.graph.reverse.rules import Rule

RULES: dict[str, Rule] = {}

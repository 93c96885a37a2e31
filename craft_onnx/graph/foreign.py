"""Operators that nobody taught us: what to say of them."""

import onnx_ir as ir

from craft_onnx.errors import UnsupportedOperator
from craft_onnx.graph.names import layer_of


def unsupported(node: ir.Node, problem: str, way_out: str) -> UnsupportedOperator:
    """The error that names a node's operator, domain and layer, and the decorator that registers a rule for it.

    Parameters
    ----------
    node : onnx_ir.Node
        With layers recorded, where there are any.
    problem, way_out : str
        The begin of either sentence.
    """
    name, layer = f"{node.domain or 'ai.onnx'}::{node.op_type}", layer_of(node.outputs[0])
    decorator = f"@craft_onnx.gradient_rule({node.op_type!r}, domain={node.domain!r})"
    return UnsupportedOperator(
        f"{problem} {name} (node {node.name!r}, layer {layer!r}).",
        f"{way_out}, or register a rule for it with {decorator}.",
    )

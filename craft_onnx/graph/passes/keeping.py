"""What every pass has in common: its argument stays as it is, layer names are carried over, nothing unused is left."""

import functools
from collections.abc import Callable

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from craft_onnx.graph.names import carry_layers

Pass = Callable[[ir.Model], ir.Model]


def pure(change: Pass) -> Pass:
    """Make a pass of a function that may change its argument and returns the changed model."""

    @functools.wraps(change)
    def run(model: ir.Model) -> ir.Model:
        after = change(model.clone())
        RemoveUnusedNodesPass()(after)
        carry_layers(model, after)
        return after

    return run


def take_over(node: ir.Node, source: ir.Value) -> None:
    """Remove a node with one used output: `source` stands for that output from now on, under its name."""
    graph, output = node.graph, node.outputs[0]
    assert isinstance(graph, ir.Graph)
    name, shape, kind = output.name, output.shape, output.type
    output.replace_all_uses_with(source, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    source.name = name
    source.shape, source.type = shape or source.shape, kind or source.type


def is_internal(value: ir.Value) -> bool:
    """True for a value that one node alone uses and nobody outside sees."""
    return len(value.uses()) == 1 and not value.is_graph_output() and not value.is_graph_input()

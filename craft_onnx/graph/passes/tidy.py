"""First of all: one flat list of named nodes over initializers, and nothing of the exporter's machine."""

import onnx_ir as ir
from onnx_ir.passes import common

from craft_onnx.graph.names import LAYERS_KEY, record_layers
from craft_onnx.graph.passes.keeping import pure

# The first version that has metadata on nodes.
_IR_VERSION = 10


def tidy(model: ir.Model) -> ir.Model:
    """Record layer names, inline functions, lift constants, drop exporters' notes.

    Requires: a valid model. Ensures: no functions; constants are initializers, and no initializer is an input, as it
    had to be before IR version 4; nodes are sorted, named and used; their metadata holds layer names alone
    (exporters write stack traces with the paths of their machine there).
    """
    recorded = model.clone()
    record_layers(recorded)
    return _tidy(recorded)


@pure
def _tidy(model: ir.Model) -> ir.Model:
    for step in (
        common.InlinePass(),
        common.RemoveInitializersFromInputsPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.TopologicalSortPass(),
        common.RemoveUnusedFunctionsPass(),
        common.RemoveUnusedOpsetsPass(),
        common.NameFixPass(),
    ):
        step(model)
    _strip_notes(model)
    model.ir_version = max(model.ir_version, _IR_VERSION)
    return model


def _strip_notes(model: ir.Model) -> None:
    graph = model.graph
    model.doc_string = graph.doc_string = None
    graph.metadata_props.clear()
    for node in ir.traversal.RecursiveGraphIterator(graph):
        node.doc_string = None
        for key in node.metadata_props.keys() - {LAYERS_KEY}:
            del node.metadata_props[key]
        for value in node.outputs:
            value.doc_string = None
            value.metadata_props.clear()
    for value in [*graph.inputs, *graph.initializers.values()]:
        value.doc_string = None
        value.metadata_props.clear()

"""Small readings and edits of a graph that its analyses share."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass, RemoveUnusedOpsetsPass, ShapeInferencePass

from craft_onnx.graph.inference import note_types, stand_in


def constant(value: ir.Value | None) -> np.ndarray | None:
    """The array of an initializer or of a Constant node, None for anything else."""
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def attribute(node: ir.Node, name: str, default: Any = None) -> Any:
    """The value of an attribute, `default` where the node does not have it."""
    attr = node.attributes.get(name)
    return default if attr is None else attr.value


def integers(node: ir.Node, name: str, position: int) -> tuple[int, ...] | None:
    """Integers that are an attribute in old opsets and a constant input in new ones (axes, pads, ...).

    None where they are given by neither, or by an input that is no constant.
    """
    if name in node.attributes:
        return tuple(int(number) for number in node.attributes[name].value)
    array = constant(node.inputs[position]) if position < len(node.inputs) else None
    return None if array is None else tuple(int(number) for number in array.ravel())


def has_input(node: ir.Node, position: int) -> bool:
    """True where the node's optional input at `position` is given."""
    return position < len(node.inputs) and node.inputs[position] is not None


def used_values(node: ir.Node) -> Iterator[ir.Value]:
    """Values that a node reads: its inputs, and what its subgraphs capture from outside."""
    yield from (value for value in node.inputs if value is not None)
    for graph in _subgraphs(node):
        inside = {value for inner in graph.all_nodes() for value in inner.outputs} | set(graph.inputs)
        for inner in graph.all_nodes():
            yield from (value for value in inner.inputs if value is not None and value not in inside)
        yield from (value for value in graph.outputs if value not in inside)


def _subgraphs(node: ir.Node) -> Iterator[ir.Graph]:
    for attr in node.attributes.values():
        if attr.type == ir.AttributeType.GRAPH:
            yield attr.as_graph()
        elif attr.type == ir.AttributeType.GRAPHS:
            yield from attr.as_graphs()


def dimensions(value: ir.Value) -> tuple[int | str | None, ...] | None:
    """The shape of a value: integers, names of symbolic dimensions, None for unknown ones; None without a shape."""
    if value.shape is None:
        return None
    return tuple(size if isinstance(size, int) else size.value for size in value.shape)


def rank(value: ir.Value) -> int | None:
    """Number of axes, None where it is not known."""
    return None if value.shape is None else len(value.shape)


def with_shapes(model: ir.Model) -> ir.Model:
    """A copy in which every value has the type and shape that ONNX shape inference finds."""
    copy = model.clone()
    note_shapes(copy)
    return copy


def note_shapes(model: ir.Model) -> None:
    """Note on every value of a model the type and shape that ONNX shape inference finds."""
    # Not strict: what cannot be inferred stays unknown, and that is an answer too.
    ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)
    missed = [node for node in model.graph if stand_in(node) and node.outputs[0].shape is None]
    known = [node for node in missed if (x := node.inputs[0]) is not None and x.shape is not None]
    for node in known:
        note_types(node, model.opset_imports[""], model.ir_version)
    if any(node.outputs[0].shape is not None for node in known):
        note_shapes(model)


def without_unused(model: ir.Model) -> ir.Model:
    """The same model object after its unused nodes, initializers and opsets are removed."""
    RemoveUnusedNodesPass()(model)
    RemoveUnusedOpsetsPass()(model)
    return model


def operators(names: str) -> frozenset[str]:
    """A set of operators from their names, separated by spaces."""
    return frozenset(names.split())


class Builder:
    """Inserts nodes before a given one (or at the end), under names that the graph does not use yet."""

    def __init__(self, graph: ir.Graph, before: ir.Node | None = None) -> None:
        self.graph = graph
        self.before = before
        self._taken = _names(graph)

    def name(self, wish: str) -> str:
        """`wish`, with a number behind it where the graph uses it already."""
        name, number = wish, 1
        while name in self._taken:
            name, number = f"{wish}_{number}", number + 1
        self._taken.add(name)
        return name

    def constant(self, wish: str, array: np.ndarray) -> ir.Value:
        """A new initializer."""
        name = self.name(wish)
        tensor = ir.tensor(np.array(array, order="C"), name=name)
        value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
        self.graph.register_initializer(value)
        return value

    def op(
        self,
        op_type: str,
        inputs: list[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
        wish: str | None = None,
        like: ir.Node | None = None,
    ) -> ir.Value:
        """A new node's only output; `like` is the node whose metadata (layer names) it takes over."""
        name = self.name(wish or op_type.lower())
        output = ir.Value(name=name)
        metadata = None if like is None else dict(like.metadata_props)
        node = ir.node(
            op_type, inputs, attributes, outputs=[output], name=self.name(f"node_{name}"), metadata_props=metadata
        )
        if self.before is None:
            self.graph.append(node)
        else:
            self.graph.insert_before(self.before, node)
        return output


def _names(graph: ir.Graph) -> set[str]:
    """Names of all values and nodes, those inside subgraphs too."""
    names = {value.name or "" for value in [*graph.inputs, *graph.initializers.values()]}
    for node in graph.all_nodes():
        names.update(value.name or "" for value in node.outputs)
        names.add(node.name or "")
        for inner in _subgraphs(node):
            names.update(value.name or "" for value in [*inner.inputs, *inner.initializers.values()])
    return names


def take_name(graph: ir.Graph, name: str) -> None:
    """Rename whatever in the graph is called `name`, so that something new can be."""
    if name not in _names(graph):
        return
    fresh = Builder(graph).name(name)
    for value in [*graph.inputs, *graph.initializers.values(), *(v for n in graph.all_nodes() for v in n.outputs)]:
        if value.name == name:
            value.name = fresh

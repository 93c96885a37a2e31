"""The layers of a model: their names, their tensors, where their channels are, which of them feed which."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from craft_onnx.errors import InputError
from craft_onnx.graph.layout import channel_axes
from craft_onnx.graph.load import image_input, load, logits_output
from craft_onnx.graph.names import find_tensor, layers_of
from craft_onnx.graph.reverse.gradients import GRADIENTS
from craft_onnx.graph.values import dimensions, used_values, with_shapes
from craft_onnx.runtime.model import SplitModel

# What PyTorch and Keras call the operators of ONNX.
OPERATORS = {
    "Conv": ("Conv1d", "Conv2d", "Conv3d", "Conv1D", "Conv2D", "Conv3D", "DepthwiseConv2D"),
    "ConvTranspose": ("ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d", "Conv2DTranspose"),
    "Gemm": ("Linear", "Dense"),
    "MatMul": ("Linear", "Dense"),
    "Relu": ("ReLU",),
    "MaxPool": ("MaxPool2d", "MaxPooling2D"),
    "AveragePool": ("AvgPool2d", "AveragePooling2D"),
}


@dataclass(frozen=True)
class Layer:
    """A layer as the user calls it.

    Attributes
    ----------
    name : str
        The user's name.
    tensor : str
        The tensor that it computes.
    channel_axis : int
        Axis of the channels there.
    shape : tuple of int, str or None
        Sizes of the tensor, as far as they are known.
    """

    name: str
    tensor: str
    channel_axis: int
    shape: tuple[int | str | None, ...]

    @property
    def positions(self) -> tuple[int | str | None, ...]:
        """Sizes of the other axes behind the batch."""
        return tuple(size for axis, size in enumerate(self.shape) if axis not in (0, self.channel_axis))

    @property
    def channels(self) -> int | None:
        """How many, where it is known."""
        size = self.shape[self.channel_axis] if self.channel_axis < len(self.shape) else None
        return size if isinstance(size, int) else None


class Layers:
    """The layers of a whole model, by the user's names.

    Parameters
    ----------
    model : SplitModel or onnx_ir.Model
        The model; in memory, normalized.

    Attributes
    ----------
    graph : onnx_ir.Model
        The whole model.
    """

    def __init__(self, model: Any) -> None:
        self.graph = whole_model(model)
        self._axes = channel_axes(self.graph)
        self._found: dict[str, Layer] = {}

    def __getitem__(self, name: str) -> Layer:
        """The layer of a name; InputError if there is none, or it is the model's input."""
        if name not in self._found:
            value = find_tensor(self.graph, name)
            if value is image_input(self.graph):
                raise InputError(f"{name!r} is the model's input.", "The heatmap is what reaches it; name a layer.")
            self._found[name] = self._layer(name, value)
        return self._found[name]

    def names(self, kinds: Iterable[Any]) -> list[str]:
        """Names of the layers of some kinds, in the order of execution; see `get_layer_names`."""
        asked = [_kind(kind) for kind in kinds]
        wanted = {operator for kind in asked for operator in _operators(kind)}
        nodes = [node for node in self._on_the_way() if node.op_type in wanted]
        if not nodes:
            there = ", ".join(sorted({node.op_type for node in self.graph.graph}))
            raise InputError(f"The model has no layer of {', '.join(asked) or 'no kind'}.", f"It has {there}.")
        return [self._name(node) for node in nodes]

    def feeding(self, names: Sequence[str]) -> dict[str, list[str]]:
        """For each of some layers those of them that feed it with none of the others between, in the order given.

        Of several names of one tensor the first one feeds others.
        """
        first = {self[name].tensor: name for name in reversed(names)}
        sources: dict[ir.Value, set[str]] = {}
        found: dict[str, list[str]] = {}
        for node in self.graph.graph:
            passing = () if GRADIENTS.stops(node) else used_values(node)
            before = {name for value in passing for name in sources.get(value, ())}
            for value in node.outputs:
                name = first.get(str(value.name))
                sources[value] = before if name is None else {name}
                if name is not None:
                    found[name] = [each for each in names if each in before]
        return {name: found[first[self[name].tensor]] for name in names}

    def require_feeding(self, names: Iterable[str], tensor: str) -> None:
        """InputError unless all of some layers are, or lead to, a tensor."""
        needed = {find_tensor(self.graph, tensor)}
        for node in reversed(list(self.graph.graph)):
            _need(node, needed)
        there = {str(value.name) for value in needed}
        for name in names:
            if self[name].tensor not in there:
                raise InputError(
                    f"Layer {name!r} does not lead to {tensor!r}, where relevance starts.", "Name layers before it."
                )

    def _layer(self, name: str, value: ir.Value) -> Layer:
        tensor = str(value.name)
        return Layer(name, tensor, self._axes.get(tensor, 1), dimensions(value) or ())

    def _on_the_way(self) -> list[ir.Node]:
        """Nodes between the input and the logits: others carry no relevance."""
        reached: set[ir.Value] = {image_input(self.graph)}
        nodes = [node for node in self.graph.graph if _reach(node, reached)]
        needed = {logits_output(self.graph)}
        return [node for node in reversed(nodes) if _need(node, needed)][::-1]

    def _name(self, node: ir.Node) -> str:
        """The layer's name where that means this node's output, else the tensor's."""
        tensor = node.outputs[0]
        for name in reversed(layers_of(node)):
            if find_tensor(self.graph, name) is tensor:
                return name
        return str(tensor.name)


def get_layer_names(model: SplitModel, types: Iterable[Any]) -> list[str]:
    """Names of the layers of some kinds, in the order of execution.

    Parameters
    ----------
    model : SplitModel
        The model.
    types : iterable of str or type
        Operators of ONNX such as "Conv" and "Gemm", or what PyTorch and Keras call them, such as `nn.Conv2d`.

    Returns
    -------
    list of str
        Names as the other functions take them.

    Raises
    ------
    InputError
        If the model has none.
    """
    return Layers(model).names(types)


def whole_model(model: Any) -> ir.Model:
    """The graph of a whole model, its shapes inferred.

    Raises
    ------
    InputError
        If it is no SplitModel.
    """
    if isinstance(model, ir.Model):
        return with_shapes(model)
    if not isinstance(model, SplitModel):
        raise InputError(
            f"A {type(model).__name__} has no graph to carry relevance through.", "Give a model of craft_onnx.load."
        )
    return with_shapes(load(model.bundle.path("model", None)))


def _kind(kind: Any) -> str:
    return kind if isinstance(kind, str) else str(getattr(kind, "__name__", kind))


def _operators(kind: str) -> list[str]:
    return [kind, *(operator for operator, names in OPERATORS.items() if kind in names)]


def _reach(node: ir.Node, reached: set[ir.Value]) -> bool:
    """Whether a node depends on what was reached; it is, then, too."""
    depends = not reached.isdisjoint(used_values(node))
    if depends:
        reached.update(node.outputs)
    return depends


def _need(node: ir.Node, needed: set[ir.Value]) -> bool:
    """Whether what a node computes is needed; what it takes is, then, too."""
    leads = not needed.isdisjoint(node.outputs)
    if leads:
        needed.update(used_values(node))
    return leads

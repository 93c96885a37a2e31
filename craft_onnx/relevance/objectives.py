"""What a generated picture is to raise: logits, channels of any layer, concepts of a Craft."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from craft_onnx.attribution.targets import Channel, Target, as_target, check_range
from craft_onnx.concepts.attributions import concept_target
from craft_onnx.concepts.concept_target import ConceptTarget
from craft_onnx.errors import InputError
from craft_onnx.graph.reverse.pair import gradient_pair
from craft_onnx.graph.values import constant
from craft_onnx.relevance.layers import Layer, Layers
from craft_onnx.runtime.model import SplitModel
from craft_onnx.runtime.pullback import Chain, Pair, Pullback

if TYPE_CHECKING:
    from craft_onnx.concepts.craft import Craft

Array = NDArray[Any]
_ROW = np.zeros(1, np.intp)  # each target sees one row at a time


@dataclass(frozen=True)
class Objective:
    """Numbers to raise, and how they depend on the model's input.

    Attributes
    ----------
    targets : sequence of Target
        One a picture.
    vjp : callable
        From input to the tensor that they are read from, and its pullback.
    provider : callable
        Gives the name of the provider that ran it.
    """

    targets: Sequence[Target]
    vjp: Callable[[Array], tuple[Array, Pullback]]
    provider: Callable[[], str]

    def some(self, rows: NDArray[np.intp]) -> Objective:
        """Some of the targets."""
        return replace(self, targets=[self.targets[row] for row in rows])

    def values(self, x: Array) -> Array:
        """The numbers (n,) of input (n, ...), a row for each target."""
        return self._values(self.vjp(x)[0])

    def ascent(self, x: Array) -> tuple[Array, Array]:
        """The numbers (n,), and the direction (n, ...) of the input that raises them."""
        y, pull = self.vjp(x)
        return self._values(y), pull(np.concatenate([_upwards(t, y[i : i + 1]) for i, t in enumerate(self.targets)]))

    def _values(self, y: Array) -> Array:
        return np.array([float(t.value(y[i : i + 1], _ROW)[0]) for i, t in enumerate(self.targets)])


def objective_of(model: SplitModel, target: Any, layer: str | None = None, craft: Craft | None = None) -> Objective:
    """The objective of what a user names: classes, channels of a layer, concepts, or targets.

    Parameters
    ----------
    model : SplitModel
        The model.
    target : int, Target, or sequence of these
        One a picture.
    layer : str, optional
        Where numbers are channels; by default they are classes.
    craft : Craft, optional
        Fitted, whose concepts the numbers are.

    Raises
    ------
    InputError
        If there is no such class, layer, channel or concept, targets are read from different tensors, or no gradient
        leads from there to the input.
    UnsupportedOperator
        If an operator on the way has no rule.
    """
    chosen = _listed(target)
    if layer is not None and craft is not None:
        raise InputError(f"Both a layer, {layer!r}, and a craft were given.", "Give the one the numbers belong to.")
    if layer is not None:
        return _of_layer(model, layer, chosen)
    if craft is not None:
        return _at(model, [_of_concept(model, craft, number) for number in chosen])
    return _at(model, [as_target(one, model) for one in chosen])


def _listed(target: Any) -> list[Any]:
    """Single targets, at least one."""
    single = hasattr(target, "cotangent") or np.ndim(target) == 0
    chosen = [target] if single else list(target)
    if not chosen:
        raise InputError("No target was given.", "Give a class, a channel or a concept, or several.")
    return chosen


def _at(model: SplitModel, targets: list[Target]) -> Objective:
    """Targets at the logits or at the cut."""
    of = {target.of for target in targets}
    if len(of) > 1:
        raise InputError("Targets at the logits and at the cut were given at once.", "Generate them one by one.")
    return Objective(targets, partial(model.vjp, of=of.pop()), lambda: model.session("vjp_g_forward").provider)


def _of_concept(model: SplitModel, craft: Craft, number: Any) -> ConceptTarget:
    target = concept_target(craft, _number(number, "concept"))
    channels, known = model.cut.shape[model.cut.channel_axis], target.concept_bank.shape[1]
    if channels != known:
        problem = f"At the cut {model.cut.name!r} are {channels} channels, the concepts are of {known}."
        raise InputError(problem, "Give the model that the concepts were found with.")
    check_range(np.array(number), len(target.concept_bank), "concept")
    return replace(target, channel_axis=model.cut.channel_axis)


def _of_layer(model: SplitModel, name: str, numbers: list[Any]) -> Objective:
    """The channels of a layer; what a rectifier there puts out is taken before it."""
    layers = Layers(model)
    layer = layers[name]
    chosen = [_number(number, "channel") for number in numbers]
    if layer.channels is not None:
        check_range(np.array(chosen), layer.channels, "channel")
    tensor, upper = _before_rectifier(layers.graph, layer)
    forward, backward = (model.session_of(graph) for graph in gradient_pair(layers.graph, of=tensor))
    targets = [_channel(layer, number, upper) for number in chosen]
    return Objective(targets, Chain(Pair(forward, backward)).vjp, lambda: forward.provider)


def _channel(layer: Layer, number: int, upper: float | None) -> Target:
    if upper is None:
        return Channel(number, channel_axis=layer.channel_axis)
    return RectifiedChannel(number, layer.channel_axis, upper)


def _number(given: Any, noun: str) -> int:
    if np.asarray(given).dtype.kind not in "iu" or np.ndim(given):
        raise InputError(f"{given!r} is no number of a {noun}.", "Give an int, or several.")
    return int(given)


def _before_rectifier(graph: ir.Model, layer: Layer) -> tuple[str, float | None]:
    """The tensor before a Relu, or a Clip from 0 on, and what it clips at; the layer's own and None elsewhere."""
    (node,) = [node for node in graph.graph if any(value.name == layer.tensor for value in node.outputs)]
    bounds = [constant(value) for value in node.inputs[1:3]]
    if node.op_type == "Relu":
        return str(node.inputs[0].name), np.inf  # type: ignore[union-attr]  # a Relu has an input
    if node.op_type == "Clip" and bounds and bounds[0] is not None and float(bounds[0]) == 0:
        upper = np.inf if len(bounds) < 2 or bounds[1] is None else float(bounds[1])
        return str(node.inputs[0].name), upper  # type: ignore[union-attr]
    return layer.tensor, None


@dataclass(frozen=True)
class RectifiedChannel:
    """The mean of a channel behind a rectifier, read from the tensor before it.

    Where the channel is silent everywhere, its derivative is zero, and nothing would ever wake it: there, the direction
    is that of the tensor before the rectifier. So it is where the rectifier clips, or the picture would stay what it
    was when the channel was first full.

    Parameters
    ----------
    index : int
        The channel.
    channel_axis : int
        Axis of the channels.
    upper : float
        Where the rectifier clips.
    """

    index: int
    channel_axis: int = 1
    upper: float = np.inf
    of: Literal["activations"] = "activations"

    def value(self, y: Array, rows: NDArray[np.intp]) -> Array:
        """The means (m,) of what the rectifier makes of y."""
        return Channel(self.index, channel_axis=self.channel_axis).value(np.clip(y, 0, self.upper), rows)

    def cotangent(self, y: Array, rows: NDArray[np.intp]) -> Array:
        """One over the number of positions, where the channel is awake, or everywhere if it is nowhere."""
        dy = Channel(self.index, channel_axis=self.channel_axis).cotangent(y, rows)
        passing = np.where(y > 0, dy, 0)
        asleep = ~(np.where(dy > 0, y, 0) > 0).reshape(len(y), -1).any(axis=1)
        passing[asleep] = dy[asleep]
        return passing


def _upwards(target: Target, y: Array) -> Array:
    """The cotangent of a row; that of an absent concept, which is zero, is its direction in the bank."""
    dy = target.cotangent(y, _ROW)
    if not isinstance(target, ConceptTarget) or dy.any():
        return dy
    channels_last = np.moveaxis(dy, target.channel_axis, -1)
    channels_last[...] = target.concept_bank[target.concepts] / (channels_last.size / channels_last.shape[-1])
    return dy

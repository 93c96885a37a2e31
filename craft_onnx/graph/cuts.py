"""The places where a model can be cut in two, and what a user's name for one means."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from craft_onnx.errors import InputError
from craft_onnx.graph.flow import Flow
from craft_onnx.graph.layout import channel_axes
from craft_onnx.graph.names import find_tensor, layer_of
from craft_onnx.graph.nonnegative import nonnegative_tensors
from craft_onnx.graph.values import dimensions, operators, used_values

WEIGHTED = operators("Conv ConvTranspose Gemm MatMul")


@dataclass(frozen=True)
class Cut:
    """A tensor that every path from image to logits goes through.

    Attributes
    ----------
    index : int
        Place in execution order.
    tensor, layer, op_type : str
        Its name in the graph, the user's name of the layer that computes it, that layer's operator.
    shape : tuple of int, str or None
        Sizes, names of symbolic dimensions, None where unknown. The first axis is the batch.
    channel_axis : int
        Axis of the channels.
    channels : int, optional
        Their number, where known.
    nonnegative : bool
        Provably non-negative for every picture: concepts can be found there.
    recommended : bool
        The last non-negative feature map (rank 4, more than one position) that a layer with weights follows.
    """

    index: int
    tensor: str
    layer: str
    op_type: str
    shape: tuple[int | str | None, ...]
    channel_axis: int
    channels: int | None
    nonnegative: bool
    recommended: bool

    def __str__(self) -> str:
        return f"{self.tensor!r} ({self.layer}, {self.op_type}, {'x'.join(map(str, self.shape[1:]))})"


def find_cuts(model: ir.Model) -> list[Cut]:
    """All cuts of a model in execution order, without its input and output.

    Parameters
    ----------
    model : onnx_ir.Model
        From image to logits.

    Raises
    ------
    InputError
        If the model has several inputs or outputs.
    """
    return _cuts_of(Flow(model))


def recommended_cut(model: ir.Model, cuts: Sequence[Cut] | None = None) -> Cut:
    """The last non-negative feature map before the positions are pooled.

    Parameters
    ----------
    model : onnx_ir.Model
        From image to logits.
    cuts : sequence of Cut, optional
        Those of the model, if they are known already.

    Raises
    ------
    InputError
        If no feature map is provably non-negative; it names the cuts that there are.
    """
    cuts = find_cuts(model) if cuts is None else cuts
    for cut in cuts:
        if cut.recommended:
            return cut
    advice = _advice(cuts, signed_cut(model, cuts))
    raise InputError(f"No feature map of the model is provably non-negative. {_others(cuts)}", advice)


def signed_cut(model: ir.Model, cuts: Sequence[Cut] | None = None) -> Cut | None:
    """The place to cut where signs do not matter: the last feature map or sequence of tokens before they are pooled.

    Where the head reads the class token alone, it is the last one before an attention: behind that, what the other
    tokens hold is lost.

    Parameters
    ----------
    model : onnx_ir.Model
        From image to logits.
    cuts : sequence of Cut, optional
        Those of the model, if they are known already.

    Returns
    -------
    Cut or None
        None where no cut has positions.
    """
    cuts = find_cuts(model) if cuts is None else cuts
    flow = Flow(model)
    axes = {cut.tensor: cut.channel_axis for cut in cuts}
    maps = [flow.values[name] for name, axis in axes.items() if _has_positions(flow.values[name], axis)]
    attention = _last_attention(flow)
    last = attention if attention and _reads_one_token(flow.nodes[attention:]) else len(flow.nodes)
    best = _best(flow, [value for value in maps if flow.position[value] < last])
    return next((cut for cut in cuts if best is not None and cut.tensor == best.name), None)


def resolve_cut(model: ir.Model, at: str | int, cuts: Sequence[Cut] | None = None) -> Cut:
    """The cut that a user means by the name of a tensor, the name of a layer or an index of `find_cuts`.

    The name of a layer or module stands for the last tensor that it computes.

    Parameters
    ----------
    model : onnx_ir.Model
        From image to logits.
    at : str or int
        Name or index (also as decimal digits, where no tensor is called so).
    cuts : sequence of Cut, optional
        Those of the model, if they are known already.

    Raises
    ------
    InputError
        If there is no such tensor or layer (it offers near matches), or it is no cut (it says why, and which are near).
    """
    cuts = find_cuts(model) if cuts is None else cuts
    exact = [cut for cut in cuts if cut.tensor == at]
    if exact:
        return exact[0]
    if isinstance(at, int) or (at.isdecimal() and not _is_tensor(model, at)):
        return _by_index(int(at), cuts)
    tensor = str(find_tensor(model, at).name)
    found = [cut for cut in cuts if cut.tensor == tensor]
    if found:
        return found[0]
    flow = Flow(model)
    value = flow.values[tensor]
    name = at if at == tensor else f"{at} ({tensor})"
    raise InputError(f"{name} is no cut: {_why_not(flow, value)}.", _nearest(flow, value, cuts))


def _cuts_of(flow: Flow) -> list[Cut]:
    values = [value for value in flow.separators if _fault(flow, value) is None]
    axes, nonnegative = channel_axes(flow.model), nonnegative_tensors(flow.model)
    maps = [value for value in values if value.name in nonnegative and _is_map(value, axes.get(value.name, 1))]
    best = _best(flow, maps)
    return [
        _cut(index, value, axes.get(value.name or "", 1), value.name in nonnegative, value is best)
        for index, value in enumerate(values)
    ]


def _cut(index: int, value: ir.Value, axis: int, nonnegative: bool, recommended: bool) -> Cut:
    shape, node = dimensions(value) or (), value.producer()
    assert value.name is not None and node is not None
    channels = shape[axis] if axis < len(shape) else None
    return Cut(
        index=index,
        tensor=value.name,
        layer=layer_of(value),
        op_type=node.op_type,
        shape=shape,
        channel_axis=axis,
        channels=channels if isinstance(channels, int) else None,
        nonnegative=nonnegative,
        recommended=recommended,
    )


def _is_map(value: ir.Value, channel_axis: int) -> bool:
    """A feature map of more than one position: global pooling leaves one."""
    shape = dimensions(value) or ()
    return len(shape) == 4 and any(size != 1 for axis, size in enumerate(shape) if axis not in (0, channel_axis))


def _has_positions(value: ir.Value, channel_axis: int) -> bool:
    shape = dimensions(value) or ()
    tokens = len(shape) == 3 and shape[3 - channel_axis] != 1
    return tokens or _is_map(value, channel_axis)


def _last_attention(flow: Flow) -> int:
    """Index of the last product of two values that depend on the picture; 0 where there is none."""
    products = [
        i
        for i, node in enumerate(flow.nodes)
        if node.op_type == "Attention" or (node.op_type == "MatMul" and all(map(flow.carries_image, used_values(node))))
    ]
    return max(products, default=0)


def _reads_one_token(nodes: Sequence[ir.Node]) -> bool:
    """Whether one of some nodes takes a single token of several."""
    picks = [(node.inputs[0], node.outputs[0]) for node in nodes if node.op_type in ("Gather", "Slice", "Split")]
    return any(source and _is_one_of(dimensions(source), dimensions(picked)) for source, picked in picks)


def _is_one_of(tokens: tuple[Any, ...] | None, picked: tuple[Any, ...] | None) -> bool:
    """Whether a shape (N, p) or (N, 1, p) is that of one of several tokens (N, T, p)."""
    if tokens is None or len(tokens) != 3 or tokens[1] == 1:
        return False
    return picked in ((tokens[0], tokens[2]), (tokens[0], 1, tokens[2]))


def _best(flow: Flow, maps: Sequence[ir.Value]) -> ir.Value | None:
    """The last map that a layer with weights follows: without one, as in SqueezeNet, the channels are the classes."""
    weighted = max((i for i, node in enumerate(flow.nodes) if node.op_type in WEIGHTED), default=-1)
    found = [value for value in maps if flow.position[value] < weighted] or maps
    return _origin(found[-1], maps) if found else None


def _origin(value: ir.Value, maps: Sequence[ir.Value]) -> ir.Value:
    """The map that a value only repeats, in another layout: the one that a layer of the user's computes."""
    node = value.producer()
    if node is None or node.op_type not in ("Transpose", "Identity", "Dropout"):
        return value
    before = node.inputs[0]
    return value if before is None or before not in maps else _origin(before, maps)


def _fault(flow: Flow, value: ir.Value) -> str | None:
    """Why a tensor that separates the graph holds no activations, None if it does."""
    shape = dimensions(value)
    if value.dtype is not None and not value.dtype.is_floating_point():
        return f"it holds {value.dtype.name.lower()}, not floating-point numbers"
    if shape is not None and len(shape) < 2:
        return f"it has no channels, its shape is {_text(shape)}"
    if not flow.batch_first(value):
        return f"its first axis is not the batch, its shape is {_text(shape or ())}"
    return None


def _why_not(flow: Flow, value: ir.Value) -> str:
    if value is flow.image or value is flow.logits:
        return f"it is the model's {'input' if value is flow.image else 'output'}"
    if not flow.carries_image(value):
        return "it does not depend on the picture"
    if value not in flow.last_use:
        return "it does not lead to the logits"
    needed = flow.also_needed(value)
    if needed:
        return f"it lies inside a branch, what follows it also needs {_names(needed)}"
    return _fault(flow, value) or "another output of the same node is needed beside it"


def _nearest(flow: Flow, value: ir.Value, cuts: Sequence[Cut]) -> str:
    places = [(flow.position[flow.values[cut.tensor]], cut) for cut in cuts]
    here = flow.position.get(value, -1)
    offers = [f"{cut} before it" for place, cut in places if place < here][-1:]
    offers += [f"{cut} after it" for place, cut in places if place > here][:1]
    return f"The nearest: {' and '.join(offers)}." if offers else "The model has no other cut."


def _by_index(index: int, cuts: Sequence[Cut]) -> Cut:
    if not 0 <= index < len(cuts):
        known = f"from 0 to {len(cuts) - 1}" if cuts else "none"
        raise InputError(f"There is no cut number {index}.", f"The model's cuts are numbered {known}.")
    return cuts[index]


def _is_tensor(model: ir.Model, name: str) -> bool:
    return any(value.name == name for node in model.graph for value in node.outputs)


def _others(cuts: Sequence[Cut]) -> str:
    nonnegative = [cut for cut in cuts if cut.nonnegative]
    kind = "Non-negative cuts of another kind" if nonnegative else "Cuts whose sign is not known"
    listed = ", ".join(str(cut) for cut in (nonnegative or cuts)[-3:])
    return f"{kind}: {listed}." if cuts else "It has no cuts at all."


def _advice(cuts: Sequence[Cut], signed: Cut | None) -> str:
    where = f" at {signed.tensor!r}" if signed else ""
    semi = f"semi-NMF takes activations of any sign{where}: --factoriser semi_nmf (factoriser='semi_nmf')."
    nonnegative = [cut for cut in cuts if cut.nonnegative]
    if not nonnegative:
        return f"Choose a layer yourself, behind a ReLU or a Sigmoid if there is one; or {semi}"
    with_positions = [cut for cut in nonnegative if len(cut.shape) > 2 and cut.shape[1:].count(1) < len(cut.shape) - 2]
    return f"Cut at {(with_positions or nonnegative)[-1].tensor!r}, or at another layer behind a ReLU; or {semi}"


def _names(values: Sequence[ir.Value]) -> str:
    """The last of several tensors by name, and how many more there are."""
    more = f" and {len(values) - 1} more" if len(values) > 1 else ""
    return f"{values[-1].name!r}{more}"


def _text(shape: tuple[int | str | None, ...]) -> str:
    return f"({', '.join('?' if size is None else str(size) for size in shape)})"

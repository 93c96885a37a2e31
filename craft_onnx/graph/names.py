"""A user's layer names: recorded on every node, carried through every pass, looked up as paths."""

import difflib
import json
import re
from collections.abc import Callable, Iterable, Iterator

import onnx_ir as ir

from craft_onnx.errors import InputError
from craft_onnx.graph.paths import components, is_keras3, node_paths

LAYERS_KEY = "craft_onnx.layers"
_INTEGER_TYPES = {ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL, ir.DataType.STRING}
Components = tuple[str, ...]


def record_layers(model: ir.Model) -> None:
    """Write into every node's metadata, in place, the paths of the layers it answers to, as a JSON list.

    They come from PyTorch's name scopes, from the names of tensors and nodes (Keras, TorchScript) and from the names
    of the node's weights. A node that has the list already keeps it.
    """
    for node, layers in _named_layers(model).items():
        if LAYERS_KEY not in node.metadata_props:
            _write_layers(node, layers)


def layers_of(node: ir.Node) -> list[str]:
    """Paths of the layers that a recorded node answers to, the most telling one last."""
    return list(json.loads(node.metadata_props.get(LAYERS_KEY, "[]")))


def add_layers(node: ir.Node, other: ir.Node) -> None:
    """Let `node` answer to the layers of `other` too; its own stay the more telling ones."""
    _write_layers(node, [*layers_of(other), *layers_of(node)])


def layer_of(value: ir.Value) -> str:
    """The most telling layer name of a tensor's producer, for listings; the tensor's own name where it has none."""
    producer = value.producer()
    layers = [] if producer is None else layers_of(producer)
    return layers[-1] if layers else str(value.name)


def carry_layers(before: ir.Model, after: ir.Model) -> None:
    """Give the nodes of `after`, in place, the layers they had in `before`, the model that a pass started from.

    A node of the same operator with the same output keeps its own. A new node answers to all layers of the old nodes
    between the tensors around it that are in both models, known by their names: a Conv with a merged
    BatchNormalization answers to both.
    """
    old = {output.name: node for node in before.graph for output in node.outputs}
    inputs = {value.name for value in before.graph.inputs}
    order = {node: index for index, node in enumerate(before.graph)}
    alive = set(_value_names(after))
    for node in after.graph:
        same = old.get(node.outputs[0].name)
        if same is not None and same.op_type == node.op_type:
            region = {same}
        else:
            region = _region(_surviving_outputs(node, old.keys() | inputs) & old.keys(), old, alive)
        layers = [layer for part in sorted(region, key=order.__getitem__) for layer in layers_of(part)]
        _write_layers(node, [*layers, *layers_of(node)])


def find_tensor(model: ir.Model, name: str) -> ir.Value:
    """Find the tensor that a user means by a name.

    Looked for in this order: a tensor or node of exactly this name; the last tensor, in execution order, of a layer
    whose path begins with the name (`layer4`, `layer4.2`, `layer4.2.conv3`); the last one of a layer whose path has it
    inside (`conv3`, `activation_48`); the last one whose own name has it inside. Whole components only.

    Raises
    ------
    InputError
        If there is none; with near matches.
    """
    wanted = components(name)
    answering = _answering(model)
    searches: tuple[Callable[[], Iterable[ir.Value]], ...] = (
        lambda: _exact(model, name),
        lambda: (value for value, paths in answering if any(path[: len(wanted)] == wanted for path in paths)),
        lambda: (value for value, paths in answering if any(_contains(path, wanted) for path in paths)),
        lambda: (value for value, _ in answering if _contains(components(_plain(value)), wanted)),
    )
    for search in searches if wanted else ():
        if matches := list(search()):
            return matches[-1]
    raise InputError(f"The model has no tensor or layer {name!r}.", _suggest(model, name, answering))


def _write_layers(node: ir.Node, layers: Iterable[str]) -> None:
    node.metadata_props[LAYERS_KEY] = json.dumps(list(dict.fromkeys(layers)))


def _value_names(model: ir.Model) -> Iterator[str]:
    values = [*model.graph.inputs, *model.graph.initializers.values(), *(v for n in model.graph for v in n.outputs)]
    return (value.name for value in values if value.name)


def _named_layers(model: ir.Model) -> dict[ir.Node, list[str]]:
    """Layers of every node, as the exporter's names tell them."""
    keras3 = is_keras3(name for name in _value_names(model) if "/" in name)
    layers = {node: node_paths(node, keras3) for node in model.graph}
    known = {layer for found in layers.values() for layer in found}
    return {node: [*_reused_modules(node, found, known), *found] for node, found in layers.items()}


def _reused_modules(node: ir.Node, layers: list[str], known: set[str]) -> list[str]:
    """TorchScript numbers the calls of a module (`relu`, `relu_1`): the later ones answer to the module's name too.

    Only where the node has no weights: two modules with weights are two modules.
    """
    if not (node.name or "").startswith("/") or any(v is not None and v.const_value is not None for v in node.inputs):
        return []
    return [module for layer in layers if (module := re.sub(r"_\d+$", "", layer)) in known]


def _surviving_outputs(node: ir.Node, old: set[str | None]) -> set[str | None]:
    """Names of the nearest tensors at or behind a node that the old model has too."""
    found: set[str | None] = set()
    stack, seen = list(node.outputs), set(node.outputs)
    while stack:
        value = stack.pop()
        if value.name in old:
            found.add(value.name)
            continue
        behind = {output for user, _ in value.uses() for output in user.outputs} - seen
        seen |= behind
        stack += behind
    return found


def _region(outputs: set[str | None], old: dict[str | None, ir.Node], alive: set[str]) -> set[ir.Node]:
    """Old nodes between `outputs` and the tensors before them that are alive."""
    region: set[ir.Node] = set()
    stack = [old[name] for name in outputs]
    while stack:
        node = stack.pop()
        region.add(node)
        dead = (value for value in node.inputs if value is not None and value.name not in alive)
        stack += [producer for value in dead if (producer := value.producer()) is not None and producer not in region]
    return region


def _answering(model: ir.Model) -> list[tuple[ir.Value, list[Components]]]:
    """Tensors that depend on the picture, in execution order, with the paths they answer to."""
    recorded = any(LAYERS_KEY in node.metadata_props for node in model.graph)
    layers = {node: layers_of(node) for node in model.graph} if recorded else _named_layers(model)
    reached: set[ir.Value] = {value for value in model.graph.inputs if value.const_value is None}
    found = []
    for node in model.graph:
        if reached.isdisjoint(value for value in node.inputs if value is not None):
            continue
        reached.update(node.outputs)
        if node.outputs[0].dtype not in _INTEGER_TYPES:
            found.append((node.outputs[0], [components(layer) for layer in layers[node]]))
    return found


def _exact(model: ir.Model, name: str) -> list[ir.Value]:
    values = [*model.graph.inputs, *(value for node in model.graph for value in node.outputs)]
    same = [value for value in values if value.name == name]
    return same or [node.outputs[0] for node in model.graph if name == node.name or name == _plain(node.outputs[0])]


def _plain(value: ir.Value) -> str:
    """A tensor's name without TensorFlow's `:0`."""
    return re.sub(r":\d+$", "", str(value.name))


def _contains(path: Components, wanted: Components) -> bool:
    return any(path[start : start + len(wanted)] == wanted for start in range(len(path)))


def _suggest(model: ir.Model, name: str, answering: list[tuple[ir.Value, list[Components]]]) -> str:
    paths = {path[:end] for _, found in answering for path in found for end in range(1, len(path) + 1)}
    known = [".".join(path) for path in paths] + [str(value.name) for value, _ in answering]
    near = difflib.get_close_matches(name, sorted(set(known)), n=5, cutoff=0.5)
    if near:
        return f"Did you mean {', '.join(near)}?"
    return "List the names with: craft-onnx layers."

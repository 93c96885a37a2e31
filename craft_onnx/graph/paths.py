"""Layer paths in the names that exporters give to tensors, nodes and initializers."""

import ast
import re
from collections.abc import Iterable, Iterator

import onnx_ir as ir

TORCH_SCOPES = "pkg.torch.onnx.name_scopes"
_NUMBER = re.compile(r"_\d+$")
# The operation behind a layer in TensorFlow's names: `Relu`, `BiasAdd`, `FusedBatchNormV3_1`, `add_1`, `convolution`.
_OPERATION = re.compile(r"([A-Z]\w*|add|sub|mul|div|truediv|convolution|depthwise|moments|batchnorm)(_\d+)?$")
_VARIABLE = re.compile(r"(ReadVariableOp(_\d+)?|[Rr]ead|merged_input)$")
# What TensorFlow puts before a layer's path: a function's call, or its optimizer's folding of constants.
_CALL = re.compile(r"((Stateful)?PartitionedCall(_\d+)?|ConstantFolding)$")


def components(path: str) -> tuple[str, ...]:
    """Components of a path with dots or slashes."""
    return tuple(part for part in re.split(r"[./]", path) if part)


def node_paths(node: ir.Node, keras3: bool) -> list[str]:
    """Paths of the layers that a node belongs to, the most telling one last."""
    names = [name for name in (node.name, *(value.name for value in node.outputs)) if name]
    found = [
        *(path for value in node.inputs for path in _weight_paths(value, keras3)),
        *(path for name in names for path in name_paths(name, keras3)),
        *_scope_paths(node.metadata_props.get(TORCH_SCOPES)),
    ]
    return list(dict.fromkeys(found))


def name_paths(name: str, keras3: bool) -> list[str]:
    """Paths in the name of a tensor or a node: TorchScript's or TensorFlow's, none in a name without slashes.

    TFLite joins the names of fused operations by semicolons, the operation itself first.
    """
    if name.startswith("/"):
        return _nonempty([_torchscript_path(name)])
    return _nonempty([_tensorflow_path(part, keras3) for part in reversed(name.split(";"))])


def is_keras3(names: Iterable[str]) -> bool:
    """True where model and layers all have a number behind their own names.

    Keras 3 opens the name scope of every layer twice, so that TensorFlow makes the second one unique: layer
    `activation` becomes `activation_1`, layer `activation_1` becomes `activation_1_2`.
    """
    paths = [parts for parts in map(_tensorflow_parts, names) if len(parts) > 2]
    return bool(paths) and all(_NUMBER.search(parts[0]) and _NUMBER.search(parts[1]) for parts in paths)


def _nonempty(paths: Iterable[str]) -> list[str]:
    return [path for path in paths if path]


def _scope_paths(scopes: str | None) -> Iterator[str]:
    """PyTorch writes the modules from the outside in, and the operation's own name last."""
    modules = [] if scopes is None else [scope for scope in ast.literal_eval(scopes)[:-1] if scope]
    deepest = modules[-1] if modules else ""
    if deepest and not deepest.startswith("_empty_nn_module_stack"):
        yield deepest


def _weight_paths(value: ir.Value | None, keras3: bool) -> list[str]:
    """Paths in the name of a weight that one node alone uses: exporters share equal constants between layers."""
    if value is None or value.const_value is None or not value.name or len(value.uses()) != 1:
        return []
    if "/" in value.name:
        return name_paths(value.name, keras3)
    return [value.name.rpartition(".")[0]] if "." in value.name and "::" not in value.name else []


def _torchscript_path(name: str) -> str:
    """`/layer4/layer4.1/relu_1/Relu_output_0` -> `layer4.1.relu_1`: a container's children repeat its name."""
    kept: list[str] = []
    for part in name.split("/")[1:-1]:
        if kept and part.startswith(f"{kept[-1]}."):
            kept.pop()
        kept.append(part)
    return ".".join(kept)


def _tensorflow_parts(name: str) -> list[str]:
    if "/" not in name or name.startswith("/"):
        return []
    parts = [part for part in name.split(":")[0].split("/") if part]
    while len(parts) > 1 and _CALL.match(parts[0]):
        parts = parts[1:]
    return [] if parts[:1] == ["Func"] else parts  # an argument of an inlined function, no layer's


def _tensorflow_path(name: str, keras3: bool) -> str:
    parts = _tensorflow_parts(name)
    if keras3:
        return "/".join(_keras3_layers(parts))
    if len(parts) > 1 and _VARIABLE.match(parts[-1]):
        parts = parts[:-1]
    return "/".join(parts[:-1] if len(parts) > 1 and _OPERATION.match(parts[-1]) else parts)


def _keras3_layers(parts: list[str]) -> Iterator[str]:
    """`resnet50_1/activation_48_1/Relu` -> `activation_48`; nested models stay: `outer_1/inner_1/conv_1/Conv2D`."""
    for part in parts[1:-1]:
        if not _NUMBER.search(part):
            return
        yield _NUMBER.sub("", part)

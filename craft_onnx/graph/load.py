"""ONNX files in and out, and what must hold of every model that we write."""

import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import google.protobuf.message
import onnx
import onnx_ir as ir

from craft_onnx.description import METADATA_KEY, Description
from craft_onnx.errors import CheckFailed, InputError
from craft_onnx.files import new_file
from craft_onnx.graph.foreign import unsupported
from craft_onnx.graph.inference import stand_in
from craft_onnx.graph.skeleton import skeleton

# Initializers from this size on go to the external file, where there is one; smaller ones are read at loading anyway.
EXTERNAL_BYTES = 256
_EXPORT_AGAIN = "Export or download the model again."


def load(path: str | Path) -> ir.Model:
    """Read an ONNX file; weights in external files stay there until they are used.

    Parameters
    ----------
    path : str or Path
        An ONNX file in protobuf format; its external data lies in the same folder or below.

    Raises
    ------
    InputError
        If there is no such file, it is no valid ONNX model, or its external data is missing, too short or elsewhere.
    """
    path = Path(path)
    proto = _read_proto(path)
    try:
        _check_external_data(proto, path)
        model = _parse(proto)
    except InputError:
        raise
    except Exception as error:  # the checker and the parser raise many kinds, every one of them about the file
        raise InputError(f"{path} is not a valid ONNX model: {_first_line(error)}.", _EXPORT_AGAIN) from error
    ir.external_data.set_base_dir(model.graph, path.parent.absolute())
    return model


def save(model: ir.Model, path: str | Path, weights: str | None = None) -> None:
    """Write a model as one file, or as a graph and a file of weights beside it; whole or not at all.

    Parameters
    ----------
    model : ir.Model
        Is not changed.
    path : str or Path
        The ONNX file; replaced if it exists.
    weights : str, optional
        Name of a file in the same folder for initializers of 256 bytes and more. Where all of these lie in that file
        already, it is left as it is: so several graphs can share one.

    Raises
    ------
    InputError
        If the file cannot be written, or is to hold more than 2 GB.
    """
    path = Path(path)
    with new_file(path, force=True) as staged:
        if weights is None or _lies_in(model, path.parent / weights):
            _write_proto(_proto_to_write(model, weights), staged)
        else:
            ir.save(model, staged, external_data=weights, size_threshold_bytes=EXTERNAL_BYTES - 1)
            staged_weights = staged.with_name(weights)
            if staged_weights.exists():
                os.replace(staged_weights, path.parent / weights)


def check(model: ir.Model) -> None:
    """Check what holds of every model that we write: ONNX's own rules, standard operators, unique names, no leftovers.

    Of other operators, those that a gradient rule is registered for are let through.

    Raises
    ------
    CheckFailed
        If the model breaks ONNX's rules, names two tensors or two nodes alike, has an initializer that nothing uses,
        or more than one opset.
    UnsupportedOperator
        If an operator is not one of ONNX's own, and no rule is registered for it.
    """
    _check_standard(model)
    try:
        onnx.checker.check_model(skeleton(model))
    except Exception as error:
        raise CheckFailed(f"The model breaks ONNX's rules: {_first_line(error)}.", _EXPORT_AGAIN) from error
    for problem, names in (
        ("Several tensors are named", _repeated(_tensor_names(model))),
        ("Several nodes are named", _repeated(node.name for node in model.graph if node.name)),
        ("Nothing uses the initializers", _unused_initializers(model)),
    ):
        if names:
            raise CheckFailed(f"{problem} {', '.join(names)}.", "Normalize the model.")


def read_description(model: ir.Model) -> Description:
    """What the model says of itself (`Description`); the default for a file that no converter of ours wrote.

    Raises
    ------
    InputError
        If the metadata cannot be read.
    """
    text = model.metadata_props.get(METADATA_KEY)
    return Description.loads(text) if text else Description()


def write_description(model: ir.Model, description: Description) -> None:
    """Put `description` into the model's metadata."""
    model.metadata_props[METADATA_KEY] = description.dumps()


def image_input(model: ir.Model) -> ir.Value:
    """The model's only input that is not an initializer.

    Raises
    ------
    InputError
        If there is none, or several.
    """
    inputs = [value for value in model.graph.inputs if value.name not in model.graph.initializers]
    return _only(inputs, "input", "an image classifier has one: the pictures", "Export it with one input.")


def logits_output(model: ir.Model) -> ir.Value:
    """The model's only output.

    Raises
    ------
    InputError
        If there is none, or several.
    """
    reason = "an image classifier has one: the scores of the classes"
    return _only(list(model.graph.outputs), "output", reason, "Choose one: craft-onnx convert MODEL --outputs NAME.")


def _only(values: list[ir.Value], kind: str, reason: str, remedy: str) -> ir.Value:
    if len(values) != 1:
        names = ", ".join(str(value.name) for value in values) or "none"
        raise InputError(f"The model has {len(values)} {kind}s ({names}); {reason}.", remedy)
    return values[0]


def _read_proto(path: Path) -> onnx.ModelProto:
    if path.is_dir():
        raise InputError(f"{path} is a folder, not an ONNX file.", "Give the .onnx file itself.")
    try:
        proto = onnx.load(path, format="protobuf", load_external_data=False)
    except FileNotFoundError as error:
        raise InputError(f"There is no file {path}.", "Check the path.") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).", "Check the file's permissions.") from error
    except google.protobuf.message.DecodeError as error:
        raise InputError(
            f"{path} is not an ONNX file, or it is damaged or over 2 GB.",
            "Download or export it again; weights over 2 GB belong into an external file.",
        ) from error
    if not proto.opset_import or not proto.graph.output:
        raise InputError(f"{path} is not an ONNX model: it has no opset or no outputs.", _EXPORT_AGAIN)
    for item in [*proto.opset_import, *proto.graph.node]:
        if item.domain == "ai.onnx":  # another name of the standard domain, which ONNX's own checker does not know
            item.domain = ""
    return proto


def _parse(proto: onnx.ModelProto) -> ir.Model:
    """The checked model. The checker refuses weights behind symlinks, as mounted volumes have them: it gets none."""
    external = any(True for _ in _external_tensors(proto))
    if not external:
        onnx.checker.check_model(proto)
    model = ir.serde.deserialize_model(proto)
    if external:
        onnx.checker.check_model(skeleton(model))
    return model


def _external_tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    from onnx.external_data_helper import _get_all_tensors, uses_external_data

    return (tensor for tensor in _get_all_tensors(proto) if uses_external_data(tensor))


def _check_external_data(proto: onnx.ModelProto, path: Path) -> None:
    for tensor in _external_tensors(proto):
        info = {entry.key: entry.value for entry in tensor.external_data}
        file = path.parent / info.get("location", "")
        # A mounted volume shows its files through symlinks: what counts is where file and model really are.
        if not any(file.resolve().is_relative_to(p.resolve()) for p in (path.parent, path.resolve().parent)):
            raise InputError(f"{path} keeps weights outside its folder ({file}).", "Put the weights beside the model.")
        if not file.is_file():
            raise InputError(f"The weights of {path} are missing: there is no file {file}.", "Put it beside the model.")
        item = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        end = int(info.get("offset", 0)) + int(info.get("length", math.prod(tensor.dims) * item))
        if file.stat().st_size < end:
            raise InputError(f"{file} is too short for the weights of {path} ({end} bytes expected).", _EXPORT_AGAIN)


def _large_tensors(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    tensors = (value.const_value for graph in model.graphs() for value in graph.initializers.values())
    return (tensor for tensor in tensors if tensor is not None and tensor.nbytes >= EXTERNAL_BYTES)


def _lies_in(model: ir.Model, weights: Path) -> bool:
    return weights.exists() and all(
        isinstance(tensor, ir.ExternalTensor) and Path(tensor.path).absolute() == weights.absolute()
        for tensor in _large_tensors(model)
    )


def _proto_to_write(model: ir.Model, weights: str | None) -> onnx.ModelProto:
    if weights is None:
        model = ir.external_data.load_to_model(model.clone())
    return ir.serde.serialize_model(model)


def _write_proto(proto: onnx.ModelProto, path: Path) -> None:
    try:
        path.write_bytes(proto.SerializeToString())
    except (ValueError, google.protobuf.message.EncodeError) as error:
        raise InputError(
            "The model is over 2 GB, too much for one ONNX file.", "Write its weights beside it."
        ) from error


def _check_standard(model: ir.Model) -> None:
    foreign = [node for node in ir.traversal.RecursiveGraphIterator(model.graph) if node.domain]
    for node in foreign:
        if stand_in(node) is None:
            problem = "The model uses an operator that is not ONNX's own:"
            raise unsupported(node, problem, "Export it without fused, quantized or custom operators")
    if set(model.opset_imports) != {"", *(node.domain for node in foreign)}:
        raise CheckFailed(f"The model has the opsets {dict(model.opset_imports)}, not one.", "Normalize the model.")


def _tensor_names(model: ir.Model) -> Iterator[str]:
    graph = model.graph
    produced = [value for node in graph for value in node.outputs]
    free = [value for value in graph.initializers.values() if value not in graph.inputs]
    return (value.name for value in [*graph.inputs, *free, *produced] if value.name)


def _repeated(names: Iterable[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]


def _unused_initializers(model: ir.Model) -> list[str]:
    return [
        name for name, value in model.graph.initializers.items() if not value.uses() and not value.is_graph_output()
    ]


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")

"""TensorFlow to ONNX: SavedModel folders, frozen graphs (.pb) and TensorFlow Lite files.

Runs as a script too: ``python from_tensorflow.py saved_model/ -o model.onnx``.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from craft_onnx.errors import InputError
from craft_onnx_converters.exported import Evaluate, Exported, Options
from craft_onnx_converters.loading import existing_file, loading
from craft_onnx_converters.quiet import native_quiet, quiet
from craft_onnx_converters.tensorflow_export import convert_graph, freeze, import_tensorflow, run_tf2onnx

SIGNATURE = "serving_default"


def export(source: str | Path, options: Options) -> Exported:
    """Export a TensorFlow model with its own evaluation beside it.

    Parameters
    ----------
    source : path
        A SavedModel folder, a frozen graph or a .tflite file.
    options : Options
        `inputs` and `outputs` name the tensors of a frozen graph, one each. `outputs` chooses one where a SavedModel
        has several.

    Raises
    ------
    InputError
        If the source is missing or corrupt, the tensors' names are missing or wrong, or a .tflite file is quantized.
    UnsupportedOperator
        If tf2onnx cannot convert the model.
    MissingExtra
        If TensorFlow or tf2onnx is not installed.
    """
    path = Path(source)
    import_tensorflow()
    if path.is_dir():
        return _export_saved_model(path, options)
    existing_file(path)
    return _export_tflite(path) if path.suffix == ".tflite" else _export_frozen(path, options)


def _export_saved_model(path: Path, options: Options) -> Exported:
    tensorflow = import_tensorflow()
    if not (path / "saved_model.pb").is_file():
        raise InputError(f"{path} is a folder without a saved_model.pb.", "Give a SavedModel folder or a model file.")
    with (
        quiet(),
        native_quiet(),
        loading(path, "a SavedModel", "Save it again with model.export or tf.saved_model.save."),
    ):
        loaded = tensorflow.saved_model.load(str(path))
        signature = _signature(loaded, path)
        graph, inputs, outputs = freeze(signature)
    output = _chosen(sorted(signature.structured_outputs), options.outputs, "outputs")
    (key,) = signature.structured_input_signature[1]
    index = sorted(signature.structured_outputs).index(output)
    model, unsupported = convert_graph(graph, inputs, [outputs[index]], options.input_shape, (key, output))

    def evaluate(x: NDArray[Any]) -> NDArray[Any]:
        with quiet(), native_quiet():
            # The object that was loaded owns the signature's variables: it must live as long.
            assert loaded is not None
            result: NDArray[Any] = signature(**{key: tensorflow.constant(x)})[output].numpy()
            return result

    batch = signature.structured_input_signature[1][key].shape[0]
    return Exported(model, evaluate, "tensorflow", None, batch, unsupported)


def _signature(loaded: Any, path: Path) -> Any:
    """The signature to convert: the usual one, or the only one."""
    names = list(loaded.signatures)
    if SIGNATURE not in names and len(names) != 1:
        raise InputError(
            f"{path} has the signatures {', '.join(names) or 'none'}, not {SIGNATURE}.",
            "Save it with one signature.",
        )
    signature = loaded.signatures[SIGNATURE if SIGNATURE in names else names[0]]
    _chosen(sorted(signature.structured_input_signature[1]), (), "inputs")
    return signature


def _chosen(names: Sequence[str], wanted: Sequence[str], kind: str) -> str:
    found = [name for name in names if not wanted or name in wanted]
    if len(found) != 1:
        raise InputError(
            f"The model has the {kind} {', '.join(names)}{f', not {wanted[0]}' if wanted else ''}; one is needed.",
            f"Choose one with --{kind}." if kind == "outputs" else "Save it with one input.",
        )
    return found[0]


def _export_frozen(path: Path, options: Options) -> Exported:
    tensorflow = import_tensorflow()
    graph = tensorflow.compat.v1.GraphDef()
    with loading(path, "a frozen graph", "Is it a GraphDef in binary form?"):
        graph.ParseFromString(path.read_bytes())
        if not graph.node:
            raise ValueError("it has no nodes")
    inputs, outputs = _tensors(graph, options, path)
    with quiet(), native_quiet(), loading(path, "a frozen graph", "Freeze it again, with its variables as constants."):
        evaluate, batch = _frozen_function(graph, inputs, outputs)
    model, unsupported = convert_graph(graph, inputs, outputs, options.input_shape)
    return Exported(model, evaluate, "tensorflow", path, batch, unsupported)


def _tensors(graph: Any, options: Options, path: Path) -> tuple[list[str], list[str]]:
    """Names of the input and the output of a frozen graph, as the user gave them and as they exist."""
    nodes = {node.name: node.op for node in graph.node}
    for kind, given in (("inputs", options.inputs), ("outputs", options.outputs)):
        if len(given) != 1 or given[0].split(":")[0] not in nodes:
            candidates = _placeholders(graph) if kind == "inputs" else _ends(graph)
            problem = f"has no tensor {given[0]!r}" if len(given) == 1 else f"needs one of --{kind}, {len(given)} given"
            raise InputError(f"{path} {problem}.", f"Perhaps --{kind} {' or '.join(candidates[:5])}.")
    return [_tensor(options.inputs[0])], [_tensor(options.outputs[0])]


def _tensor(name: str) -> str:
    return name if ":" in name else f"{name}:0"


def _placeholders(graph: Any) -> list[str]:
    return [f"{node.name}:0" for node in graph.node if node.op.startswith("Placeholder")]


def _ends(graph: Any) -> list[str]:
    """Tensors that nothing reads, the last ones first."""
    read = {name.lstrip("^").split(":")[0] for node in graph.node for name in node.input}
    ends: Iterable[Any] = (n for n in graph.node if n.name not in read and n.op not in ("NoOp", "Const", "Assert"))
    return [f"{node.name}:0" for node in reversed(list(ends))]


def _frozen_function(graph: Any, inputs: list[str], outputs: list[str]) -> tuple[Evaluate, int | None]:
    """A frozen graph as a function on arrays, and the batch size its placeholder is bound to."""
    tensorflow = import_tensorflow()
    wrapped = tensorflow.compat.v1.wrap_function(lambda: tensorflow.graph_util.import_graph_def(graph, name=""), [])
    element = wrapped.graph.as_graph_element
    function = wrapped.prune([element(name) for name in inputs], [element(name) for name in outputs])
    shape = function.inputs[0].shape

    def evaluate(x: NDArray[Any]) -> NDArray[Any]:
        with quiet(), native_quiet():
            result: NDArray[Any] = function(tensorflow.constant(x))[0].numpy()
            return result

    return evaluate, shape[0] if shape.rank else None


def _export_tflite(path: Path) -> Exported:
    with quiet(), native_quiet(), loading(path, "a TensorFlow Lite model", "Is it whole?"):
        interpreter = _interpreter(path)
        _refuse_quantized(interpreter, path)
    model, unsupported = run_tf2onnx("from_tflite", str(path))
    (image,) = interpreter.get_input_details()

    def evaluate(x: NDArray[Any]) -> NDArray[Any]:
        interpreter.set_tensor(image["index"], x)
        interpreter.invoke()
        result: NDArray[np.float32] = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
        return result

    return Exported(model, evaluate, "tflite", path, int(image["shape"][0]), unsupported)


def _interpreter(path: Path) -> Any:
    """TensorFlow Lite's interpreter with its built-in kernels, without the delegate that announces itself."""
    lite = import_tensorflow().lite
    resolver = lite.experimental.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    # Given as bytes: a file is memory-mapped, and a truncated one would end the process.
    interpreter = lite.Interpreter(model_content=path.read_bytes(), experimental_op_resolver_type=resolver)
    interpreter.allocate_tensors()
    for kind, details in (("inputs", interpreter.get_input_details()), ("outputs", interpreter.get_output_details())):
        if len(details) != 1:
            raise InputError(f"{path} has {len(details)} {kind}, one is needed.", "Convert a model of one each.")
    return interpreter


def _refuse_quantized(interpreter: Any, path: Path) -> None:
    """Integer arithmetic cannot be compared with float, and has no gradients."""
    quantized = [detail["name"] for detail in interpreter.get_tensor_details() if detail["quantization"][0]]
    if quantized:
        raise InputError(
            f"{path} is quantized ({len(quantized)} tensors, such as {quantized[0]}).",
            "Convert the float model that it was made from.",
        )


if __name__ == "__main__":
    from craft_onnx_converters.script import main

    main()

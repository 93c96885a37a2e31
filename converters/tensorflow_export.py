"""What Keras and TensorFlow models share: a quiet TensorFlow, and tf2onnx with its gaps known."""

import contextlib
import re
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np
import onnx_ir as ir

from craft_onnx.errors import CraftError, UnsupportedOperator
from craft_onnx.extras import require
from craft_onnx_converters.loading import first_line
from craft_onnx_converters.quiet import environment, native_quiet, quiet

OPSET = 18
# Attributes that keep TensorFlow's optimizer from inlining a function.
OPAQUE = ("_XlaMustCompile", "_noinline", "_implements")
_UNSUPPORTED = re.compile(r"Tensorflow op \[.*: (\w+)\] is not supported|Failed to convert node .*?OP=(\w+)", re.DOTALL)


def import_tensorflow() -> ModuleType:
    """TensorFlow, without the messages of its start; MissingExtra if it or tf2onnx is not installed."""
    loaded = sys.modules.get("tensorflow") and sys.modules.get("tf2onnx")
    with contextlib.nullcontext() if loaded else _silence():
        tensorflow = require("tensorflow", "tensorflow")
        require("tf2onnx", "tensorflow")
    return tensorflow


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    with quiet(), native_quiet():
        yield


def freeze(function: Any) -> tuple[Any, list[str], list[str]]:
    """GraphDef of a concrete function with its variables as constants, and the names of its inputs and outputs."""
    module = require("tensorflow.python.framework.convert_to_constants", "tensorflow")
    with quiet(), native_quiet():
        frozen = module.convert_variables_to_constants_v2(function)
    graph = frozen.graph.as_graph_def(add_shapes=True)
    return graph, [tensor.name for tensor in frozen.inputs], [tensor.name for tensor in frozen.outputs]


def convert_graph(
    graph: Any,
    inputs: list[str],
    outputs: list[str],
    input_shape: tuple[int, ...] | None = None,
    names: tuple[str, str] | None = None,
) -> tuple[ir.Model, tuple[str, ...]]:
    """Convert a frozen GraphDef; returns and raises as `run_tf2onnx` does.

    Parameters
    ----------
    graph : tensorflow.GraphDef
        Its functions are inlined: Keras wraps a grouped convolution in a jit-compiled one, opaque to tf2onnx.
    inputs, outputs : list of str
        Names of tensors.
    input_shape : tuple of int, optional
        Of one input without the batch, where the graph leaves it open.
    names : (str, str), optional
        New names of the input and the output.
    """
    functions = graph.library.function
    for node in [*graph.node, *functions, *(inner for function in functions for inner in function.node_def)]:
        for attribute in OPAQUE:
            node.attr.pop(attribute, None)
    shapes = {inputs[0]: [-1, *input_shape]} if input_shape else None
    renamed = dict(zip((*inputs, *outputs), names, strict=True)) if names else None
    return run_tf2onnx(
        "from_graph_def",
        graph,
        input_names=inputs,
        output_names=outputs,
        shape_override=shapes,
        tensors_to_rename=renamed,
    )


def run_tf2onnx(convert: str, *arguments: Any, **options: Any) -> tuple[ir.Model, tuple[str, ...]]:
    """Call a function of `tf2onnx.convert`.

    tf2onnx does not raise on an operator that it does not know, it logs it and writes an invalid model.

    Returns
    -------
    model : onnx_ir.Model
        Perhaps invalid.
    unsupported : tuple of str
        The operators that its log says are not supported.

    Raises
    ------
    UnsupportedOperator
        If tf2onnx fails altogether.
    """
    import_tensorflow()
    function: Callable[..., Any] = getattr(require("tf2onnx.convert", "tensorflow"), convert)
    with quiet() as messages, native_quiet():
        try:
            proto = _converted(function, *arguments, opset=OPSET, custom_op_handlers={"Erfc": (_erfc, [])}, **options)
            return ir.from_proto(proto), _unsupported(messages)
        except CraftError:
            raise
        except Exception as error:  # a handler of tf2onnx that does not know a variant of its operator raises anything
            names = ", ".join(_unsupported(messages))
            reason = f"it has no conversion for {names}" if names else f"{type(error).__name__}: {first_line(error)}"
            raise UnsupportedOperator(
                f"tf2onnx failed ({reason}).", "Write that part of the model with other layers."
            ) from error


def _converted(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """What tf2onnx makes, in the memory that it needs.

    It copies the graph before each of its optimizers, to go back to it where one fails, and after each writes the
    weights into protobufs that keep all they ever held: 10 GB for a ResNet101. Without, unless something fails.
    """
    try:
        with environment(TF2ONNX_CATCH_ERRORS="FALSE"), _lean_optimizers():
            return function(*arguments, **options)[0]
    except Exception:  # whatever an optimizer or a handler raises: the second attempt tells
        return function(*arguments, **options)[0]


@contextlib.contextmanager
def _lean_optimizers() -> Iterator[None]:
    """tf2onnx's optimizers as they are, but that protobufs are written once, at the end."""
    base = require("tf2onnx.optimizer.optimizer_base", "tensorflow").GraphOptimizerBase
    original = base.optimize

    def optimize(self: Any, graph: Any, iteration: int) -> Any:
        self.opt_iteration = iteration
        graph = self._optimize(graph)
        graph.delete_unused_nodes(graph.outputs)
        return graph

    base.optimize = optimize
    try:
        yield
    finally:
        base.optimize = original


def _unsupported(messages: list[str]) -> tuple[str, ...]:
    found = (match.groups() for message in messages for match in _UNSUPPORTED.finditer(message))
    return tuple(sorted({name for names in found for name in names if name}))


def _erfc(graph: Any, node: Any, name: str, arguments: Any) -> None:
    """erfc(x) = 1 - erf(x): TensorFlow's gelu uses it, and tf2onnx has no handler."""
    (x,), (output,) = node.input, node.output
    shape, dtype = graph.get_shape(output), graph.get_dtype(output)
    graph.remove_node(name)
    erf = graph.make_node("Erf", [x], shapes=[shape], dtypes=[dtype])
    one = graph.make_const(f"{name}/one", np.array(1, np.float32))
    graph.make_node("Sub", [one.output[0], erf.output[0]], outputs=[output], name=name, shapes=[shape], dtypes=[dtype])

"""What Keras and TensorFlow models share: a quiet TensorFlow, and tf2onnx with its gaps known."""

import contextlib
import re
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np
import onnx_ir as ir

from craft_onnx.errors import CraftError, UnsupportedOperator
from craft_onnx.extras import require
from craft_onnx_converters.loading import first_line
from craft_onnx_converters.quiet import environment, quiet

OPSET = 18
_UNSUPPORTED = re.compile(r"Tensorflow op \[.*: (\w+)\] is not supported")


def import_tensorflow() -> ModuleType:
    """TensorFlow, without the messages of its start; MissingExtra if it or tf2onnx is not installed."""
    with quiet(), environment(TF_CPP_MIN_LOG_LEVEL="2"):
        tensorflow = require("tensorflow", "tensorflow")
        require("tf2onnx", "tensorflow")
    return tensorflow


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
    with quiet() as messages:
        try:
            proto, _ = function(*arguments, opset=OPSET, custom_op_handlers={"Erfc": (_erfc, [])}, **options)
            return ir.from_proto(proto), _unsupported(messages)
        except CraftError:
            raise
        except Exception as error:  # a handler of tf2onnx that does not know a variant of its operator raises anything
            names = ", ".join(_unsupported(messages))
            reason = f"it has no conversion for {names}" if names else f"{type(error).__name__}: {first_line(error)}"
            raise UnsupportedOperator(
                f"tf2onnx failed ({reason}).", "Write that part of the model with other layers."
            ) from error


def _unsupported(messages: list[str]) -> tuple[str, ...]:
    return tuple(sorted({match.group(1) for message in messages for match in _UNSUPPORTED.finditer(message)}))


def _erfc(graph: Any, node: Any, name: str, arguments: Any) -> None:
    """erfc(x) = 1 - erf(x): TensorFlow's gelu uses it, and tf2onnx has no handler."""
    (x,), (output,) = node.input, node.output
    shape, dtype = graph.get_shape(output), graph.get_dtype(output)
    graph.remove_node(name)
    erf = graph.make_node("Erf", [x], shapes=[shape], dtypes=[dtype])
    one = graph.make_const(f"{name}/one", np.array(1, np.float32))
    graph.make_node("Sub", [one.output[0], erf.output[0]], outputs=[output], name=name, shapes=[shape], dtypes=[dtype])


@contextlib.contextmanager
def inlined_functions() -> Iterator[None]:
    """Functions called while tracing become part of the trace.

    Keras wraps a grouped convolution in a jit-compiled function, which tf2onnx cannot look into.
    """
    tensorflow = import_tensorflow()
    eager = tensorflow.config.functions_run_eagerly()
    tensorflow.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tensorflow.config.run_functions_eagerly(eager)

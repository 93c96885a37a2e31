"""Errors of onnxruntime as ours: what happened, and which node of the model it was."""

import importlib.util
import re
from pathlib import Path

from craft_onnx.errors import CraftError, InputError, UnsupportedOperator

# How onnxruntime names a node when it runs, checks, reads or has no kernel for it.
_NAMED = (r"Name:'([^']+)'", r"Node \((.+?)\) Op \(", r'In Node, \("([^"]+)"', r"node with name '([^']+)'")

ALLOCATION_FAILURES = (
    "failed to allocate memory",  # onnxruntime's arena
    "smaller than requested bytes",  # its arena under a limit
    "bad_alloc",
    "bad allocation",
    "out of memory",  # CUDA
    "alloc_failed",  # CUDNN_STATUS_ALLOC_FAILED, CUBLAS_STATUS_ALLOC_FAILED
)


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception of onnxruntime, numpy or Python means that memory did not suffice."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(words in text for words in ALLOCATION_FAILURES)


def telling(error: Exception) -> str:
    """The telling part of onnxruntime's "[ONNXRuntimeError] : 1 : FAIL : file.cc:360 void f(int) ..."."""
    text = re.sub(r"/onnxruntime_src/\S+:\d+ [^)]*\) ?", "", " ".join(str(error).split()))
    text = text.removeprefix("[ONNXRuntimeError] : ")
    return re.sub("^Load model from .* failed: ?", "", text.split(" : ", 2)[-1]).rstrip(".")


def load_error(error: Exception, model: str | Path | bytes, name: str) -> CraftError:
    """What to raise for a model, called `name`, that cannot be loaded."""
    message = telling(error)
    problem = f"{message}.{origin(model, str(error))}"
    if type(error).__name__ == "NotImplemented" or "is not a registered function/op" in message:
        return UnsupportedOperator(f"onnxruntime cannot run {name}: {problem}", "Export it with standard operators.")
    if out_of_memory(error):
        return CraftError(f"{name} does not fit in memory: {message}.", "Free memory or use another machine.")
    return InputError(f"{name} cannot be loaded: {problem}", "Is it a whole, valid ONNX model?")


def run_error(error: Exception, name: str, inputs: str) -> Exception:
    """What to raise for a model, a file or called `name`, that fails on inputs of these types and shapes."""
    if out_of_memory(error):
        return MemoryError(telling(error))
    problem = f"{name} failed on {inputs}: {telling(error)}.{origin(name, str(error))}"
    return CraftError(problem, "Check the input against the model.")


def origin(model: str | Path | bytes, message: str) -> str:
    """A sentence on the node that an error of onnxruntime names, with a space before it; empty for any other node.

    Parameters
    ----------
    model : path or bytes
        The model that failed; of a file only the graph is read, not the weights beside it.
    message : str
        What onnxruntime said.
    """
    name = next((found[1] for pattern in _NAMED if (found := re.search(pattern, message))), None)
    if name is None or importlib.util.find_spec("onnx") is None or importlib.util.find_spec("onnx_ir") is None:
        return ""
    made = _metadata(model, name)
    from craft_onnx.graph.reverse.tensor import FORWARD_KEY, LAYER_KEY, RULE_KEY

    if FORWARD_KEY not in made:
        return ""
    return f" Node {name!r} is part of the {made[RULE_KEY]} of {made[FORWARD_KEY]} (layer {made[LAYER_KEY]!r})."


def _metadata(model: str | Path | bytes, name: str) -> dict[str, str]:
    """What the node of a name says of itself."""
    import onnx

    if not isinstance(model, bytes) and not Path(model).is_file():
        return {}
    proto = onnx.load_from_string(model) if isinstance(model, bytes) else onnx.load(model, load_external_data=False)
    return {prop.key: prop.value for node in proto.graph.node if node.name == name for prop in node.metadata_props}

"""Try one network, in a process of its own: ``python -m zoo.measure JOB.json``; the record grows stage by stage.

The job names the network, the file of the record, and one for the ONNX model.
"""

import json
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from craft_onnx.errors import CraftError
from zoo.agreement import compared
from zoo.catalogue import Network
from zoo.weights import pictures

Array = NDArray[Any]
ROWS, FEW, LARGE = 12, 5, 128  # pictures at once; of sides from LARGE on, few


def main(job: dict[str, Any]) -> None:
    """Write the record of a network, again after every stage: a process that is ended leaves what it knows."""
    network = Network(**job["network"])
    record: dict[str, Any] = {}

    def stage(name: str, work: Callable[[], tuple[dict[str, Any], Any]]) -> Any:
        start = time.perf_counter()
        record[name] = {"ok": False, "reason": "the process was ended here"}
        _write(record, job["record"])
        record[name], result = _tried(work)
        record[name]["seconds"] = round(time.perf_counter() - start, 1)
        _write(record, job["record"])
        return result

    run(network, Path(job["model"]), stage)


def run(network: Network, file: Path, stage: Callable[..., Any]) -> None:
    """Build, convert, cut and differentiate; a stage that fails ends it, the cut apart."""
    built = stage("build", lambda: _built(network))
    if built is None:
        return
    framework, net, x, cotangent, expected = built
    model = stage("conversion", lambda: _converted(net, network, x, framework.logits, file))
    if model is None:
        return
    np.savez(file.with_suffix(".npz"), x=x, cotangent=cotangent, expected=expected[0], wide=expected[1])
    stage("gradient", lambda: _differentiated(model, x, cotangent, expected))
    cut = stage("cut", lambda: _cut(model))
    if cut is not None:
        stage("halves", lambda: _halves(model, cut, x, cotangent, expected))


def _tried(work: Callable[[], tuple[dict[str, Any], Any]]) -> tuple[dict[str, Any], Any]:
    try:
        found, result = work()
        return {"ok": True, **found}, result
    except CraftError as error:
        return {"ok": False, "reason": error.problem}, None
    except Exception as error:  # whatever a framework raises is an entry of the table
        line = next(iter(str(error).strip().splitlines()), "")
        return {"ok": False, "reason": f"{type(error).__name__}: {line}"[:300]}, None


def _built(network: Network) -> tuple[dict[str, Any], Any]:
    """The network, random pictures, a cotangent, and the framework's own gradients in float32 and float64."""
    import importlib

    framework = importlib.import_module("zoo.in_keras" if _is_keras(network) else "zoo.in_torch")
    net = framework.build(network)
    rng = np.random.default_rng(1)
    x = pictures(FEW if network.shape[1] >= LARGE else ROWS, network.shape, rng)
    logits = framework.logits(net, x)
    cotangent = rng.standard_normal(logits.shape).astype(np.float32)
    expected = tuple(framework.gradient(net, x, cotangent, wide) for wide in (False, True))
    facts = {
        "parameters": framework.parameters(net),
        "variation": float(np.std(logits, 0).max() / np.abs(logits).max()),
    }
    return facts, (framework, net, x, cotangent, expected)


def _is_keras(network: Network) -> bool:
    return network.library == "keras" or "file" in network.options


def _converted(net: Any, network: Network, x: Array, logits: Callable[..., Array], file: Path) -> Any:
    from craft_onnx.graph.load import save
    from craft_onnx.runtime.batches import run_array
    from craft_onnx.runtime.proof import FILE_LIMIT, disagreement, session_of
    from craft_onnx_converters import convert

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that outputs hardly vary shows in the record
        conversion = convert(net, input_shape=network.shape)
    model = conversion.model
    error = disagreement(logits(net, x), run_array(session_of(model), x, len(x)))
    size = sum(value.const_value.nbytes for value in model.graph.initializers.values())
    save(model, file, f"{file.stem}.bin" if size > FILE_LIMIT else None)
    return {"error": max(error, *conversion.errors.values())}, model


def _differentiated(model: Any, x: Array, cotangent: Array, expected: tuple[Array, Array]) -> Any:
    from craft_onnx.graph.reverse.vjp import gradient_graph

    found = _run(gradient_graph(model), x, cotangent)
    return compared(found, *expected), None


def _run(graph: Any, *arrays: Array) -> Array:
    from craft_onnx.runtime.proof import session_of

    session = session_of(graph)
    names = [spec.name for spec in session.inputs]
    return session.run(dict(zip(names, arrays, strict=True)))[0]


def _cut(model: Any) -> Any:
    """The recommended cut, or the last feature map of unknown sign."""
    from craft_onnx.graph.cuts import find_cuts

    cuts = find_cuts(model)
    maps = [cut for cut in cuts if len(cut.shape) > 2 and cut.shape[1:].count(1) < len(cut.shape) - 2]
    recommended = [cut for cut in cuts if cut.recommended]
    if not (recommended or maps):
        raise CraftError("No feature map separates the network.", "")
    cut = (recommended or maps)[-1]
    facts = {"tensor": cut.tensor, "layer": cut.layer, "signed": not cut.nonnegative, "shape": list(cut.shape[1:])}
    return facts, cut.tensor


def _halves(model: Any, tensor: str, x: Array, cotangent: Array, expected: tuple[Array, Array]) -> Any:
    """The gradient of h, then that of g with it for a cotangent."""
    from craft_onnx.graph.reverse.vjp import gradient_graph
    from craft_onnx.graph.split import split

    g, h = split(model, tensor)
    activations = _run(g, x)
    inner = _run(gradient_graph(h), activations, cotangent)
    return compared(_run(gradient_graph(g), x, inner), *expected), None


def _write(record: dict[str, Any], path: str) -> None:
    Path(path).write_text(json.dumps(record))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))

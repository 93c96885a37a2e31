import importlib
import importlib.metadata
import os
import subprocess
import sys
import threading

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from craft_onnx.errors import CraftError, InputError, MissingExtra, ProviderUnavailable, UnsupportedOperator
from craft_onnx.runtime import sessions
from craft_onnx.runtime.sessions import Session, TensorSpec, import_onnxruntime, parse_providers


def test_runs_as_computed_by_hand(classifier, pictures, oracle):
    session = Session(classifier().SerializeToString(), threads=1)
    (logits,) = session.run({"x": pictures})
    expected = oracle(pictures)[1]
    # 27 products a window and 64 positions, each rounded to 6e-8: 1e-6 holds them
    np.testing.assert_allclose(logits, expected, rtol=0, atol=2e-6 * np.abs(expected).max())
    assert session.provider == "cpu"
    assert session.inputs == [TensorSpec("x", "float32", (None, 3, 8, 8))]
    assert session.outputs == [TensorSpec("logits", "float32", (None, 5))]
    assert str(session.inputs[0]) == "float32 (N, 3, 8, 8)"


def test_binding_inputs_and_outputs_gives_the_same(classifier, pictures):
    """As on CUDA, with the CPU as the device."""
    session = Session(classifier().SerializeToString(), threads=1)
    expected = session.run({"x": pictures})
    session._device = ("cpu", 0)
    np.testing.assert_array_equal(session.run({"x": pictures}), expected)
    with pytest.raises(CraftError, match="failed on x float32"):
        session.run({"x": pictures[..., :7]})


def test_runs_from_a_file_and_from_several_threads(classifier, pictures, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(classifier().SerializeToString())
    session = Session(path, threads=1)
    expected = session.run({"x": pictures})[0]
    results = {}
    jobs = [threading.Thread(target=lambda i=i: results.update({i: session.run({"x": pictures})[0]})) for i in range(8)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert all(np.array_equal(results[i], expected) for i in range(8))


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ("cpu", ("cpu",)),
        ("cuda,cpu", ("cuda", "cpu")),
        (" CUDA:1 , cpu", ("cuda:1", "cpu")),
        (["TensorrtExecutionProvider", "cuda"], ("tensorrt", "cuda")),
        ("cpuexecutionprovider", ("cpu",)),
    ],
)
def test_provider_names(asked, names):
    assert parse_providers(asked) == names


@pytest.mark.parametrize("asked", ["", "gpu", "cpu,cpu", "cuda:0,cuda:1", "cuda:x", "cuda:", []])
def test_refuses_provider_names(asked):
    with pytest.raises(InputError, match=r"provider|Providers"):
        parse_providers(asked)


def test_a_provider_that_is_not_built_in(classifier):
    if "DmlExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("DirectML is here")
    with pytest.raises(
        ProviderUnavailable, match=r"'dml' was asked for .* \(available: .*cpu.*\).* --providers cpu"
    ) as e:
        Session(classifier().SerializeToString(), "dml,cpu")
    assert e.value.exit_code == 4


def test_a_provider_that_onnxruntime_dropped_in_silence(classifier, monkeypatch):
    """What onnxruntime-gpu does without a GPU: CUDA is available, asked for, and the session runs on the CPU."""
    both = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: both)
    real = onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime, "InferenceSession", lambda model, options, **_: real(model, options, providers=both[1:])
    )
    for asked in ("cuda", "cuda,cpu", "cuda:1"):
        with pytest.raises(ProviderUnavailable, match=rf"'{asked.split(',')[0]}' was asked for and did not start"):
            Session(classifier().SerializeToString(), asked)


def test_a_provider_that_raises(classifier, monkeypatch):
    """What TensorRT does without its libraries; a broken model stays the model's fault."""
    both = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: both)
    real = onnxruntime.InferenceSession

    def start(model, options, providers, **_):
        if providers[0][0] != both[1]:
            raise RuntimeError("Please install the libraries.")
        return real(model, options, providers=both[1:])

    monkeypatch.setattr(onnxruntime, "InferenceSession", start)
    with pytest.raises(ProviderUnavailable, match=r"did not start on this machine: Please install the libraries\."):
        Session(classifier().SerializeToString(), "cuda")
    with pytest.raises(InputError, match="cannot be loaded"):
        Session(b"garbage", "cuda")


def test_options_reach_onnxruntime(classifier, monkeypatch):
    seen = {}
    real = onnxruntime.InferenceSession

    def spy(model, options, **arguments):
        seen.update(arguments, threads=options.intra_op_num_threads, level=options.graph_optimization_level)
        return real(model, options, **arguments)

    monkeypatch.setattr(onnxruntime, "InferenceSession", spy)
    Session(classifier().SerializeToString(), threads=1)
    assert seen["threads"] == 1
    assert seen["level"] == onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    assert seen["enable_fallback"] == 0
    assert sessions._provider_options("cuda:2")["device_id"] == "2"
    assert sessions._provider_options("cuda")["use_tf32"] == "0"
    with pytest.raises(InputError, match="0 threads"):
        sessions.session_options(0)


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x08\x07"])
def test_a_file_that_is_no_model(content, tmp_path):
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"broken\.onnx cannot be loaded: .*(?i:protobuf)"):
        Session(path)


def test_a_missing_file_and_missing_weights(bundle_folder, tmp_path):
    with pytest.raises(InputError, match=r"none\.onnx is not there"):
        Session(tmp_path / "none.onnx")
    with pytest.raises(InputError, match="not a file"):
        Session(tmp_path)
    (bundle_folder / "weights.bin").unlink()
    with pytest.raises(InputError, match=r"g\.onnx cannot be loaded: .*weights\.bin"):
        Session(bundle_folder / "g.onnx")


def test_an_operator_that_onnxruntime_lacks(make_graph):
    node = helper.make_node("Custom", ["x"], ["y"], domain="example")
    model = make_graph([node], [("x", (3,))], [("y", (3,))])
    model.opset_import.append(helper.make_opsetid("example", 1))
    with pytest.raises(UnsupportedOperator, match="example:Custom") as caught:
        Session(model.SerializeToString())
    assert caught.value.exit_code == 3


def test_a_run_that_fails_says_so(classifier, pictures):
    session = Session(classifier().SerializeToString())
    with pytest.raises(CraftError, match=r"failed on x float32 \(21, 3, 8, 7\)"):
        session.run({"x": pictures[..., :7]})


def test_a_run_beyond_memory(make_graph, capfd):
    """One row asks for 2^46 bytes, which no machine here has."""
    shape = helper.make_tensor("shape", TensorProto.INT64, [2], [1, 1 << 44])
    nodes = [
        helper.make_node("Constant", [], ["shape"], value=shape),
        helper.make_node("Expand", ["x", "shape"], ["wide"]),
        helper.make_node("ReduceSum", ["wide"], ["y"], keepdims=0),
    ]
    model = make_graph(nodes, [("x", (1,))], [("y", ())])
    model.graph.output[0].type.tensor_type.ClearField("shape")
    session = Session(model.SerializeToString())
    with pytest.raises(MemoryError, match="Message: Failed to allocate memory"):
        session.run({"x": np.ones((2, 1), np.float32)})
    assert capfd.readouterr() == ("", "")


def _distributions(monkeypatch, *installed):
    def version(name):
        if name not in installed:
            raise importlib.metadata.PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(importlib.metadata, "version", version)


def test_two_runtimes_over_each_other(monkeypatch):
    _distributions(monkeypatch, "onnxruntime", "onnxruntime-gpu")
    with pytest.raises(MissingExtra, match=r"onnxruntime and onnxruntime-gpu are both installed.* Uninstall both"):
        import_onnxruntime()


def test_no_runtime(monkeypatch):
    _distributions(monkeypatch)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtra, match=r"onnxruntime is not installed\. .*craft-onnx\[cpu\].*craft-onnx\[gpu\]"):
        import_onnxruntime()


def test_a_runtime_that_does_not_import(monkeypatch):
    _distributions(monkeypatch, "onnxruntime-gpu")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtra, match="onnxruntime-gpu cannot be imported"):
        import_onnxruntime()


def test_a_runtime_of_unknown_origin_is_taken(monkeypatch):
    _distributions(monkeypatch)
    assert import_onnxruntime() is onnxruntime


@pytest.mark.parametrize("module", ["sessions", "batches", "manifest", "bundle", "model", "proof"])
def test_imports_nothing_but_numpy(module):
    heavy = "{'onnx', 'onnx_ir', 'onnxscript', 'onnxruntime', 'cv2', 'scipy', 'sklearn', 'matplotlib', 'torch'}"
    code = f"import sys, craft_onnx.runtime.{module}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(("given", "expected"), [(None, "1"), ("0", "0")])
def test_telemetry_is_off_unless_the_user_says_otherwise(given, expected):
    code = "import os; from craft_onnx.runtime.sessions import import_onnxruntime as f; f(); "
    code += "print(os.environ['ORT_DISABLE_TELEMETRY'])"
    environment = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    environment |= {"HOME": "/nonexistent"} | ({} if given is None else {"ORT_DISABLE_TELEMETRY": given})
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == expected
    assert given or not done.stderr  # its complaint that it cannot store a device's identity


def test_zeros_of_a_pad_count_in_a_max_pool():
    """onnxruntime's own fusion of the two takes the largest negative number instead."""
    nodes = [
        helper.make_node("Pad", ["x", "pads"], ["padded"]),
        helper.make_node("MaxPool", ["padded"], ["y"], kernel_shape=[2, 2], strides=[2, 2]),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 1, 2, 2]) for name in "xy")
    pads = helper.make_tensor("pads", TensorProto.INT64, [8], [0, 0, 1, 1, 0, 0, 1, 1])
    graph = helper.make_graph(nodes, "padded", [x], [y], [pads])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    (found,) = Session(model.SerializeToString()).run({"x": np.full((1, 1, 2, 2), -3, np.float32)})
    np.testing.assert_array_equal(found, np.zeros((1, 1, 2, 2), np.float32))

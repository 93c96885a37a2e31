"""CUDA against the CPU. The graphs here are made by onnx alone, so that these tests run without a framework."""

import json
import threading

import numpy as np
import onnx
import pytest
from onnx import helper

from craft_onnx.errors import CraftWarning
from craft_onnx.runtime import sessions
from craft_onnx.runtime.batches import run_array
from craft_onnx.runtime.model import load
from craft_onnx.runtime.sessions import Session

IMAGE, MAP, LOGITS = ("x", (3, 64, 64)), ("map", (48, 16, 16)), ("logits", (10,))
WEIGHTS = {"w1": (32, 3, 3, 3), "b1": (32,), "w2": (48, 32, 3, 3), "b2": (48,), "w3": (10, 48), "b3": (10,)}
NODES = [
    helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], pads=[1, 1, 1, 1], strides=[2, 2]),
    helper.make_node("Relu", ["c1"], ["r1"]),
    helper.make_node("MaxPool", ["r1"], ["p1"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2]),
    helper.make_node("Conv", ["p1", "w2", "b2"], ["c2"], pads=[1, 1, 1, 1]),
    helper.make_node("Relu", ["c2"], ["map"]),
    helper.make_node("GlobalAveragePool", ["map"], ["pool"]),
    helper.make_node("Flatten", ["pool"], ["flat"]),
    helper.make_node("Gemm", ["flat", "w3", "b3"], ["logits"], transB=1),
]
# float32 without TF32 on both sides, sums of up to 288 products in another order: 1e-6 of the largest is usual, TF32
# would be off by 3e-4 and more
AGREEMENT = 1e-5


@pytest.fixture
def halves(make_graph):
    """The serialised model, g and h of a small network, by role."""
    rng = np.random.default_rng(1)
    weights = {name: rng.standard_normal(shape, np.float32) for name, shape in WEIGHTS.items()}
    parts = {"model": (NODES, IMAGE, LOGITS), "g": (NODES[:5], IMAGE, MAP), "h": (NODES[5:], MAP, LOGITS)}
    return {
        role: make_graph(nodes, [first], [last], weights=weights).SerializeToString()
        for role, (nodes, first, last) in parts.items()
    }


@pytest.fixture
def differentiable(make_graph, halves, tmp_path):
    """A bundle of the small network, with its gradient graphs."""
    ir = pytest.importorskip("onnx_ir")
    from craft_onnx.graph.normalize import normalize
    from craft_onnx.runtime.bundle import create_bundle

    model = ir.serde.deserialize_model(onnx.load_from_string(halves["model"]))
    create_bundle(normalize(model), ["map"], tmp_path / "differentiable")
    return tmp_path / "differentiable"


# Lengths are computed on the CPU, where onnxruntime keeps them.
LENGTHS = ("Shape", "Gather", "Concat", "Squeeze", "Unsqueeze")


@pytest.fixture
def images():
    return np.random.default_rng(2).standard_normal((37, *IMAGE[1]), np.float32)


def _error(expected, actual):
    assert expected.shape == actual.shape
    return np.abs(expected - actual).max() / np.abs(expected).max()


def _providers_of_nodes(model, providers, feeds, tmp_path, monkeypatch, apart=()):
    """Which provider ran each node, by onnxruntime's own profile; but for operators in `apart`."""
    options_of = sessions.session_options

    def profiled(threads=None):
        options = options_of(threads)
        options.enable_profiling = True
        options.profile_file_prefix = str(tmp_path / "profile")
        return options

    monkeypatch.setattr(sessions, "session_options", profiled)
    session = Session(model, providers)
    session.run(feeds)
    with open(session._session.end_profiling()) as file:  # noqa: PTH123  # onnxruntime gives a plain string
        events = json.load(file)
    arguments = {event["name"]: event["args"] for event in events if "provider" in event.get("args", {})}
    return {name: args["provider"] for name, args in arguments.items() if args.get("op_name") not in apart}


def test_the_profile_tells_where_nodes_ran(halves, images, tmp_path, monkeypatch):
    """The measuring instrument of the test below, where there is no GPU."""
    ran = _providers_of_nodes(halves["g"], "cpu", {"x": images}, tmp_path, monkeypatch)
    assert set(ran.values()) == {"CPUExecutionProvider"}
    assert len(ran) >= 3


@pytest.mark.gpu
@pytest.mark.parametrize("role", ["model", "g", "h"])
@pytest.mark.parametrize("providers", ["cuda", "cuda,cpu", "cuda:0"])
def test_agrees_with_the_cpu(cuda, halves, images, role, providers):
    x = images if role != "h" else run_array(Session(halves["g"]), images)
    session = Session(halves[role], providers)
    assert session.provider == providers.split(",")[0]
    expected = run_array(Session(halves[role]), x)
    for batch_size in (1, 16, 64):
        assert _error(expected, run_array(session, x, batch_size)) < AGREEMENT
    assert _error(expected, run_array(session, iter([x[:5], x[5:]]), 8)) < AGREEMENT


@pytest.mark.gpu
@pytest.mark.parametrize("role", ["model", "g", "h"])
def test_no_node_falls_back_to_the_cpu(cuda, halves, images, role, tmp_path, monkeypatch):
    name, shape = IMAGE if role != "h" else MAP
    feeds = {name: np.ones((4, *shape), np.float32)}
    ran = _providers_of_nodes(halves[role], "cuda", feeds, tmp_path, monkeypatch)
    assert ran
    assert set(ran.values()) == {"CUDAExecutionProvider"}, ran


@pytest.mark.gpu
def test_a_bundle_on_cuda(cuda, bundle_folder, pictures, oracle):
    on_gpu = load(bundle_folder, providers="cuda")
    assert on_gpu.provider == "cuda"
    a, logits = oracle(pictures)
    assert _error(a, on_gpu.g(pictures)) < AGREEMENT
    assert _error(logits, on_gpu.h(on_gpu.g(pictures))) < AGREEMENT
    assert _error(logits, on_gpu.predict(pictures)) < AGREEMENT
    on_cpu = load(bundle_folder)
    assert _error(on_cpu.predict(pictures), on_gpu.predict(pictures)) < AGREEMENT


@pytest.mark.gpu
def test_several_threads_at_once(cuda, halves, images):
    session = Session(halves["model"], "cuda")
    expected = session.run({"x": images})[0]
    results = {}
    jobs = [threading.Thread(target=lambda i=i: results.update({i: session.run({"x": images})[0]})) for i in range(8)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert all(_error(expected, results[i]) < AGREEMENT for i in range(8))


@pytest.mark.gpu
def test_batches_shrink_when_the_gpu_is_full(cuda, make_graph, monkeypatch):
    """A row takes 16 MiB and the arena may have 100: onnxruntime's own error, not ours."""
    monkeypatch.setitem(sessions.PROVIDER_OPTIONS["cuda"], "gpu_mem_limit", str(100 << 20))
    nodes = [
        helper.make_node("Expand", ["x", "shape"], ["wide"]),
        helper.make_node("ReduceMean", ["wide", "axes"], ["y"], keepdims=0),
    ]
    weights = {"shape": np.array([1, 1 << 22]), "axes": np.array([1])}
    model = make_graph(nodes, [("x", (1,))], [("y", ())], weights=weights)
    session = Session(model.SerializeToString(), "cuda")
    x = np.arange(32, dtype=np.float32)[:, None]
    with pytest.warns(CraftWarning, match="A batch of 16 does not fit"):
        y = run_array(session, x, 16)
    np.testing.assert_allclose(y, x[:, 0], rtol=1e-5)
    assert session.largest_batch in (1, 2, 4)


@pytest.mark.gpu
def test_tensors_on_the_gpu(cuda, halves, images):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("PyTorch has no CUDA")
    session = Session(halves["g"], "cuda")
    assert _error(run_array(session, images), run_array(session, torch.tensor(images).cuda())) < AGREEMENT


def _gradients(folder, providers, images, rules="gradient"):
    """Gradients of the logits and of the activations, by pullbacks and in batches."""
    model = load(folder, providers=providers)
    rng = np.random.default_rng(5)
    found = []
    for of, shape in (("logits", LOGITS[1]), ("activations", MAP[1])):
        cotangent = rng.standard_normal((len(images), *shape), np.float32)
        value, pullback = model.vjp(images, of, rules)
        found += [value, pullback(cotangent), pullback(2 * cotangent)]
        found += [model.gradient(images, cotangent, of, batch_size, rules) for batch_size in (1, 16)]
    return found


def test_gradients_of_any_batch_agree(differentiable, images):
    """What the tests below compare, on the CPU alone."""
    found = _gradients(differentiable, "cpu", images)
    for start in (0, 5):
        pulled, doubled, one, many = found[start + 1 : start + 5]
        assert _error(2 * pulled, doubled) < AGREEMENT
        assert max(_error(pulled, one), _error(pulled, many)) < AGREEMENT


@pytest.mark.gpu
@pytest.mark.parametrize("rules", ["gradient", "guided_backprop", "deconvnet"])
def test_gradients_agree_with_the_cpu(cuda, differentiable, images, rules):
    pairs = zip(
        _gradients(differentiable, "cpu", images, rules),
        _gradients(differentiable, "cuda", images, rules),
        strict=True,
    )
    assert max(_error(expected, actual) for expected, actual in pairs) < AGREEMENT


def _feeds_of(folder, role):
    """Input of a gradient graph; residuals are those of a forward pass on the CPU."""
    model, rng = load(folder), np.random.default_rng(6)
    half = role.split("_")[1]
    x = rng.standard_normal((4, *(IMAGE if half == "g" else MAP)[1]), np.float32)
    cotangent = rng.standard_normal((4, *(MAP if half == "g" else LOGITS)[1]), np.float32)
    first = model.session(f"vjp_{half}_forward").inputs[0].name
    if role.endswith("backward"):
        values = model.session(f"vjp_{half}_forward").run_values({first: x})
        residuals = model.session(role).inputs[1:]
        return {"cotangent": cotangent, **{spec.name: values[spec.name].numpy() for spec in residuals}}
    return {first: x} if role.endswith("forward") else {first: x, "cotangent": cotangent}


ROLES = [f"vjp_{half}{part}" for half in "gh" for part in ("", "_forward", "_backward")]


@pytest.mark.parametrize("role", ROLES)
def test_the_profile_has_the_nodes_of_a_gradient_graph(differentiable, role, tmp_path, monkeypatch):
    feeds, path = _feeds_of(differentiable, role), load(differentiable).bundle.path(role, "map")
    ran = _providers_of_nodes(path, "cpu", feeds, tmp_path, monkeypatch, LENGTHS)
    assert set(ran.values()) == {"CPUExecutionProvider"}


@pytest.mark.gpu
@pytest.mark.parametrize("role", ROLES)
def test_no_node_of_a_gradient_graph_falls_back(cuda, differentiable, role, tmp_path, monkeypatch):
    feeds, path = _feeds_of(differentiable, role), load(differentiable).bundle.path(role, "map")
    ran = _providers_of_nodes(path, "cuda", feeds, tmp_path, monkeypatch, LENGTHS)
    assert set(ran.values()) == {"CUDAExecutionProvider"}, ran


@pytest.mark.gpu
def test_residuals_stay_on_the_device(cuda, differentiable, images):
    values = load(differentiable, providers="cuda").session("vjp_g_forward").run_values({"x": images})
    assert {value.device_name().lower() for value in values.values()} == {"cuda"}

"""A small convolutional classifier, written with nothing but onnx, whole and cut after its first layer."""

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from craft_onnx.description import Preprocessing
from craft_onnx.errors import ProviderUnavailable
from craft_onnx.runtime.manifest import SCHEMA, CutSpec, Graph, Input, Manifest, Output, Source
from craft_onnx.runtime.sessions import Session, TensorSpec

CLASSES, CHANNELS, SIZE = 5, 4, 8
RULE = Preprocessing.preset("torch", (SIZE, SIZE))


def _weights():
    rng = np.random.default_rng(7)
    shapes = {"conv.weight": (CHANNELS, 3, 3, 3), "conv.bias": (CHANNELS,), "fc.weight": (CLASSES, CHANNELS)}
    return {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}


NODES = [
    helper.make_node("Conv", ["x", "conv.weight", "conv.bias"], ["conv"], name="conv", pads=[1, 1, 1, 1]),
    helper.make_node("Relu", ["conv"], ["relu"], name="relu"),
    helper.make_node("GlobalAveragePool", ["relu"], ["pool"], name="pool"),
    helper.make_node("Flatten", ["pool"], ["flat"], name="flat"),
    helper.make_node("Gemm", ["flat", "fc.weight"], ["logits"], name="fc", transB=1),
]


def _graph(nodes, inputs, outputs, batch="N", weights=None):
    """A model of some nodes; inputs and outputs are (name, shape without the batch)."""
    values = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, *shape]) for name, shape in side]
        for side in (inputs, outputs)
    ]
    used = {name for node in nodes for name in node.input}
    tensors = [numpy_helper.from_array(a, name) for name, a in (weights or _weights()).items() if name in used]
    graph = helper.make_graph(nodes, "graph", *values, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


IMAGE, MAP, LOGITS = ("x", (3, SIZE, SIZE)), ("relu", (CHANNELS, SIZE, SIZE)), ("logits", (CLASSES,))


@pytest.fixture
def make_graph():
    """`_graph`, for tests that need another graph."""
    return _graph


@pytest.fixture
def classifier():
    """The whole model, as a function of its batch axis."""
    return lambda batch="N": _graph(NODES, [IMAGE], [LOGITS], batch)


@pytest.fixture
def pictures():
    """Preprocessed pictures for it."""
    return np.random.default_rng(0).standard_normal((21, *IMAGE[1]), np.float32)


@pytest.fixture
def oracle():
    """What the model computes, in numpy and float64: (activations, logits)."""

    def run(x):
        w = {name: a.astype(np.float64) for name, a in _weights().items()}
        padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
        conv = np.einsum("nchwij,ocij->nohw", windows, w["conv.weight"]) + w["conv.bias"][:, None, None]
        a = np.maximum(conv, 0)
        return a, a.mean((2, 3)) @ w["fc.weight"].T

    return run


def _externalise(models, folder):
    """Write models whose weights lie once in weights.bin."""
    blob = b""
    places = {}
    for name, array in _weights().items():
        places[name] = (len(blob), array.nbytes)
        blob += array.tobytes()
    (folder / "weights.bin").write_bytes(blob)
    for file, model in models.items():
        for tensor in model.graph.initializer:
            offset, length = places[tensor.name]
            onnx.external_data_helper.set_external_data(tensor, "weights.bin", offset, length)
            tensor.ClearField("raw_data")
        (folder / file).write_bytes(model.SerializeToString())


def _specs(*values):
    return tuple(TensorSpec(name, "float32", (None, *shape)) for name, shape in values)


@pytest.fixture
def make_bundle(tmp_path):
    """Writes the classifier as a bundle, without any code of craft_onnx.graph."""

    def make(folder: Path | None = None) -> Path:
        folder = folder or tmp_path / "bundle"
        folder.mkdir(parents=True)
        models = {
            "model.onnx": _graph(NODES, [IMAGE], [LOGITS]),
            "g.onnx": _graph(NODES[:2], [IMAGE], [MAP]),
            "h.onnx": _graph(NODES[2:], [MAP], [LOGITS]),
        }
        _externalise(models, folder)
        files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
        graphs = (
            Graph("model.onnx", "model", None, _specs(IMAGE), _specs(LOGITS)),
            Graph("g.onnx", "g", "relu", _specs(IMAGE), _specs(MAP)),
            Graph("h.onnx", "h", "relu", _specs(MAP), _specs(LOGITS)),
        )
        manifest = Manifest(
            SCHEMA,
            {"craft_onnx": "0"},
            Source("onnx"),
            Input("x", "float32", "NCHW", (None, *IMAGE[1]), RULE),
            Output("logits", CLASSES),
            {"relu": CutSpec("relu", "relu", (None, *MAP[1]), 1, True, 0.0)},
            graphs,
            (),
            files,
        )
        (folder / "MANIFEST.json").write_text(manifest.to_json())
        return folder

    return make


@pytest.fixture
def bundle_folder(make_bundle):
    """A bundle of the classifier."""
    return make_bundle()


@pytest.fixture
def cuda(classifier):
    """Skips a test where CUDA does not run."""
    try:
        return Session(classifier().SerializeToString(), "cuda").provider
    except ProviderUnavailable as error:
        pytest.skip(str(error))

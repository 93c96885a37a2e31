import importlib.util
import warnings
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from craft_onnx.graph.load import load
from craft_onnx.graph.names import record_layers

SHARED = Path(__file__).parents[2].parent / "shared"
SHARED_MODELS = sorted((SHARED / "data" / "models").glob("*.onnx"))
NETS = ("resnet", "densenet", "mobilenet", "vgg", "flat", "vit", "vit_mean", "convnext", "mlp")


def run_model(model, x):
    """The first output of a model in memory."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    content = ir.serde.serialize_model(model).SerializeToString()
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def parse_text(text, **arrays):
    """A model from ONNX text, with arrays for the initializers that the text leaves out."""
    model = ir.from_onnx_text(text)
    for value in list(model.graph.inputs)[1:]:
        tensor = ir.tensor(np.asarray(arrays[value.name]), name=value.name)
        value.const_value = tensor
        value.shape = ir.Shape(tensor.shape.numpy())
        model.graph.inputs.remove(value)
        model.graph.register_initializer(value)
    record_layers(model)
    return model


@pytest.fixture(scope="session")
def run():
    return run_model


@pytest.fixture(scope="session")
def parse():
    return parse_text


def _torch_nets():
    pytest.importorskip("torch")
    spec = importlib.util.spec_from_file_location("torch_nets", Path(__file__).with_name("torch_nets.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def net():
    """Function from the name of a small network to its ONNX model, layers recorded; exported once."""
    cache = {}

    def get(name):
        if name not in cache:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of PyTorch's exporter, about itself
                cache[name] = _torch_nets().exported(name)
            record_layers(cache[name])
        return cache[name]

    return get


@pytest.fixture(scope="session")
def torch_net():
    """Function from the name of a small network to its PyTorch module."""
    return lambda name: _torch_nets().built(name)


@pytest.fixture(params=NETS)
def net_name(request):
    return request.param


@pytest.fixture
def any_net(net_name, net):
    return net(net_name)


@pytest.fixture(params=SHARED_MODELS or [None], ids=lambda path: path.stem if path else "none")
def trained(request):
    """One of the small trained models."""
    if request.param is None:
        pytest.skip("the trained models lie beside a development checkout")
    model = load(request.param)
    record_layers(model)
    return model

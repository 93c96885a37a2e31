import sys
import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from craft_onnx_converters.quiet import native_quiet, quiet

NETS = str(Path(__file__).parent / "nets")


def run_file(path, x):
    """Output of an ONNX file, by onnxruntime directly."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def random_batch(n, shape, seed=5):
    """Standard normal input: not the one a conversion is proven on."""
    return np.random.default_rng(seed).standard_normal((n, *shape)).astype(np.float32)


@pytest.fixture(scope="session", autouse=True)
def nets_on_path():
    """The nets as modules of the user's own."""
    sys.path.insert(0, NETS)
    yield
    sys.path.remove(NETS)


@pytest.fixture(scope="session")
def torch_nets(nets_on_path):
    """Module `tiny_torch_nets`, where PyTorch is installed."""
    pytest.importorskip("torch")
    import tiny_torch_nets

    return tiny_torch_nets


@pytest.fixture(scope="session")
def torch_files(torch_nets, tmp_path_factory):
    """The same net in every kind of PyTorch file, and the net itself in evaluation mode."""
    import torch

    folder = tmp_path_factory.mktemp("torch")
    net = torch_nets.resnet()
    torch.save(net, folder / "module.pt")
    torch.save(net.state_dict(), folder / "weights.pth")
    x = torch.zeros(2, *torch_nets.INPUT_SHAPE)
    with quiet():
        torch.export.save(torch.export.export(net, (x,)), folder / "training.pt2")
        net.eval()
        shapes = ({0: torch.export.Dim("batch")},)
        torch.export.save(torch.export.export(net, (x,), dynamic_shapes=shapes), folder / "dynamic.pt2")
        torch.export.save(torch.export.export(net, (x[:1],)), folder / "static.pt2")
        torch.jit.trace(net, x).save(folder / "script.pt")
    return folder, net


@pytest.fixture(scope="session")
def keras_nets(nets_on_path):
    """Module `tiny_keras_nets`, where Keras and TensorFlow are installed."""
    pytest.importorskip("tensorflow")
    from craft_onnx_converters.from_keras import import_keras

    import_keras()
    import tiny_keras_nets

    return tiny_keras_nets


@pytest.fixture(scope="session")
def keras_files(keras_nets, tmp_path_factory):
    """The same net in every kind of file that Keras and TensorFlow write, and the net itself."""
    import tensorflow

    folder = tmp_path_factory.mktemp("keras")
    net = keras_nets.plain()
    with quiet(), native_quiet(), warnings.catch_warnings():
        net.save(folder / "net.keras")
        net.save(folder / "net.h5")
        net.save_weights(folder / "net.weights.h5")
        net.export(str(folder / "saved_model"), verbose=False)
        lite = tensorflow.lite.TFLiteConverter.from_keras_model(net)
        (folder / "net.tflite").write_bytes(lite.convert())
        (folder / "frozen.pb").write_bytes(frozen_graph(net, keras_nets.INPUT_SHAPE))
    return folder, net


def frozen_graph(net, shape):
    """A GraphDef with the variables as constants, as TensorFlow 1 made them: tensors image:0 and Identity:0."""
    import tensorflow
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    signature = tensorflow.TensorSpec((None, *shape), name="image")
    function = tensorflow.function(lambda x: net(x, training=False)).get_concrete_function(signature)
    return convert_variables_to_constants_v2(function).graph.as_graph_def().SerializeToString()

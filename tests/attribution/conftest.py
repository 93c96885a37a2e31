"""A small network, and pictures for it."""

import numpy as np
import pytest


@pytest.fixture(scope="session")
def halves():
    pytest.importorskip("torch")
    from support.torch_model import small_halves

    return small_halves()


@pytest.fixture(scope="session")
def model(halves):
    from support.torch_model import TorchModel

    return TorchModel(*halves)


@pytest.fixture(scope="session")
def bundle(halves, inputs, tmp_path_factory):
    """The same network from an ONNX file, with its gradient graphs."""
    from support.torch_model import exported

    import craft_onnx as co

    return co.load(exported(*halves, inputs, tmp_path_factory.mktemp("net") / "net.onnx"), cut="0.4")


@pytest.fixture(params=["autograd", "gradient graphs"])
def either(request):
    """The network with PyTorch's reverse pass, and with ours."""
    return request.getfixturevalue("model" if request.param == "autograd" else "bundle")


@pytest.fixture(scope="session")
def channels_last(halves):
    """The same network for pictures (n, H, W, channels)."""
    from support.torch_model import TorchModel

    return TorchModel(*halves, layout="NHWC")


@pytest.fixture(scope="session")
def inputs():
    return np.random.default_rng(1).standard_normal((5, 3, 12, 12)).astype(np.float32)

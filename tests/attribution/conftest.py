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
def channels_last(halves):
    """The same network for pictures (n, H, W, channels)."""
    from support.torch_model import TorchModel

    return TorchModel(*halves, layout="NHWC")


@pytest.fixture(scope="session")
def inputs():
    return np.random.default_rng(1).standard_normal((5, 3, 12, 12)).astype(np.float32)

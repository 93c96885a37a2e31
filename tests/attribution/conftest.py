"""A small network, and pictures for it."""

import numpy as np
import pytest
from support.torch_model import TorchModel, small_halves


@pytest.fixture(scope="session")
def halves():
    return small_halves()


@pytest.fixture(scope="session")
def model(halves):
    return TorchModel(*halves)


@pytest.fixture(scope="session")
def inputs():
    return np.random.default_rng(1).standard_normal((5, 3, 12, 12)).astype(np.float32)

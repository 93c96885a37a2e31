"""Fixtures of the tests of concepts: the small network, made once."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


def _load(name):
    spec = importlib.util.spec_from_file_location(f"concepts_{name}", Path(__file__).parent / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def small_net() -> ModuleType:
    return _load("small_net")


@pytest.fixture(scope="session")
def weights(small_net):
    return small_net.network()


@pytest.fixture(scope="session")
def images(small_net):
    return small_net.pictures()

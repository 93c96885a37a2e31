"""The names that users of zennit-crp import."""

import subprocess
import sys

import pytest

import craft_onnx.relevance as crp


@pytest.mark.parametrize("name", crp.__all__)
def test_a_public_name_is_there(name):
    assert getattr(crp, name).__name__ == name and name in dir(crp)


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="has no attribute 'FeatureVis'"):
        _ = crp.FeatureVis


def test_the_package_loads_nothing_heavy():
    code = "import sys, craft_onnx.relevance; print(*{'onnx_ir', 'onnxruntime', 'matplotlib'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""

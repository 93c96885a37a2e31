"""`craft-onnx check`: versions, providers and the self-test."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from craft_onnx.cli import check
from craft_onnx.cli.main import cli


def test_check_passes_and_reports():
    done = CliRunner().invoke(cli, ["check"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["provider"] == "cpu"
    assert {"numpy", "craft-onnx"} <= report["packages"].keys()
    # Recorded with one thread; another number of threads reorders the sums.
    assert max(report["errors"].values()) < 1e-5
    assert "All checks passed on cpu." in done.stderr


@pytest.mark.parametrize("part", ["model", "concepts"])
def test_a_wrong_number_fails(monkeypatch, part):
    right = check.numbers

    def wrong(providers, threads=None):
        provider, values = right(providers, threads)
        return provider, values | {part: values[part] * 1.001}

    monkeypatch.setattr(check, "numbers", wrong)
    done = CliRunner().invoke(cli, ["check"])
    assert done.exit_code == 1
    assert f"The self-test '{part}' is off by 1.0e-03" in done.stderr


def test_an_absent_provider_is_refused():
    done = CliRunner().invoke(cli, ["check", "--providers", "cuda"])
    if done.exit_code == 0:
        pytest.skip("there is a CUDA device")
    assert done.exit_code == 4
    assert "cuda" in done.stderr


def test_the_pattern_is_the_same_everywhere():
    np.testing.assert_allclose(check.pattern((2, 2)), [[0, 0.36161543], [0.6742879, 0.8956987]], rtol=1e-6)

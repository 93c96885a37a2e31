import subprocess
import sys
from pathlib import Path

import pytest

from craft_onnx.errors import InputError, MissingExtra
from craft_onnx_converters import convert
from craft_onnx_converters.from_callable import is_factory
from craft_onnx_converters.sources import CONVERTERS

from .conftest import NETS, run_file

CONVERTERS_FOLDER = Path(__file__).parents[2] / "converters"


@pytest.mark.parametrize("suffix", CONVERTERS)
def test_missing_file(tmp_path, suffix):
    with pytest.raises(InputError, match="does not exist"):
        convert(tmp_path / f"net{suffix}")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("net.txt", r"no known kind \(\.txt\)"),
        ("net", r"no known kind \(no suffix\)"),
        ("net.safetensors", "holds weights, not a model"),
        ("net.ckpt", "holds weights, not a model"),
    ],
)
def test_unknown_kinds(tmp_path, name, message):
    (tmp_path / name).write_bytes(b"?")
    with pytest.raises(InputError, match=message):
        convert(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("package.module:factory", True),
        ("file.py:factory", True),
        ("some/where/file.py:factory", True),
        ("net.pt2", False),
        ("C:\\net.pt2", False),
        ("folder:net.pt", False),
        (":factory", False),
    ],
)
def test_is_factory(text, expected):
    assert is_factory(text) is expected


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("no_such_module:factory", "cannot be imported"),
        ("no/such/file.py:factory", "does not exist"),
        ("tiny_torch_nets:resnext", r"no function 'resnext'.*resnet"),
        ("tiny_torch_nets:broken", r"failed \(KeyError: 'checkpoint'\)"),
        ("tiny_torch_nets:not_a_model", "gives a dict, not a model"),
    ],
)
def test_factories_that_fail(torch_nets, source, message):
    with pytest.raises(InputError, match=message):
        convert(source, input_shape=(3, 16, 16))


def test_object_that_is_no_model():
    with pytest.raises(InputError, match="gives a list"):
        convert([1, 2])


@pytest.mark.parametrize(
    ("name", "extra"), [("net.pt2", "torch"), ("net.keras", "tensorflow"), ("net.pb", "tensorflow")]
)
def test_missing_framework(tmp_path, monkeypatch, name, extra):
    for module in ("torch", "tensorflow", "tf2onnx"):
        monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / name).write_bytes(b"?")
    with pytest.raises(MissingExtra, match=rf"craft-onnx\[{extra}\]"):
        convert(tmp_path / name)


# A training environment has the framework and onnx, but not what fitting and plotting need.
BLOCKED = """
import sys
for name in ("sklearn", "matplotlib", "scipy"):
    sys.modules[name] = None
"""


def run_script(folder, arguments):
    """A converter as a process of its own, without scikit-learn, scipy and Matplotlib."""
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(BLOCKED)
    environment = {"PYTHONPATH": f"{folder / 'site'}:{NETS}", "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "2"}
    return subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True)


def test_as_script_on_a_file(torch_files, tmp_path):
    script, source = CONVERTERS_FOLDER / "from_torch.py", torch_files[0] / "dynamic.pt2"
    done = run_script(tmp_path, [script, source, "-o", "model.onnx", "--preset", "torch"])
    assert done.returncode == 0, done.stderr
    assert "relative error" in done.stderr and "Warning" not in done.stderr
    assert run_file(tmp_path / "model.onnx", torch_zeros()).shape == (2, 5)


def torch_zeros():
    import numpy as np

    return np.zeros((2, 3, 16, 16), np.float32)


def test_as_module_on_keras_is_silent(keras_files, tmp_path):
    source = keras_files[0] / "net.keras"
    done = run_script(tmp_path, ["-m", "craft_onnx_converters.from_keras", source, "-o", "model.onnx"])
    assert done.returncode == 0, done.stderr
    # TensorFlow's, absl's and tf2onnx's own messages stay out.
    assert all(word not in done.stderr for word in ("oneDNN", "absl", "WARNING", "Warning", "tf2onnx"))


def test_script_ends_with_a_sentence(tmp_path):
    done = run_script(tmp_path, [CONVERTERS_FOLDER / "from_onnx.py", "nothing.onnx", "-o", "model.onnx"])
    assert done.returncode == 2
    assert "nothing.onnx does not exist" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "model.onnx").exists()

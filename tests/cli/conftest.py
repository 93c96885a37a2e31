"""Small classifiers of colours with a known answer, pictures for them, and a way to run commands in this process."""

import dataclasses
import json
import shutil
import warnings
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from craft_onnx.cli.main import cli
from craft_onnx.cli.messages import show_warning
from craft_onnx.errors import CraftWarning

SIZE, MAPS, CLASSES = 32, 12, 4
COLOURS = {"red": 0, "green": 1, "blue": 2}  # class 3 is never predicted


def _weights():
    """Three maps of the input's channels against the others, mixed with random ones; each class looks at one map."""
    rng = np.random.default_rng(0)
    first = rng.normal(0, 0.05, (8, 3, 3, 3))
    first[:3] = (1.5 * np.eye(3) - 0.5)[:, :, None, None] / 9
    second = rng.normal(0, 0.1, (MAPS, 8, 3, 3))
    second[:3] = 0
    second[range(3), range(3), 1, 1] = 1
    dense = np.zeros((CLASSES, MAPS))
    dense[:3, :3] = 4 * np.eye(3)
    dense[:, 3:] = rng.normal(0, 0.1, (CLASSES, MAPS - 3))
    named = {"conv1.weight": first, "conv2.weight": second, "fc.weight": dense, "fc.bias": [0, 0, 0, -100]}
    return {name: np.asarray(array, np.float32) for name, array in named.items()}


def _activation(kind, x, y):
    if kind == "relu":
        return [helper.make_node("Relu", [x], [y], name=y)]
    return [
        helper.make_node("Sigmoid", [x], [f"{y}_gate"], name=f"{y}_gate"),
        helper.make_node("Mul", [x, f"{y}_gate"], [y], name=y),
    ]


def _network(path, activation="relu", batch="N", softmax=False, weights=None):
    """Write Conv, activation, Conv, activation, pooling, Gemm (and Softmax) as an ONNX file."""
    nodes = [
        helper.make_node("Conv", ["x", "conv1.weight"], ["conv1"], name="conv1", pads=[1, 1, 1, 1]),
        *_activation(activation, "conv1", "act1"),
        helper.make_node("Conv", ["act1", "conv2.weight"], ["conv2"], name="conv2", pads=[1] * 4, strides=[4, 4]),
        *_activation(activation, "conv2", "act2"),
        helper.make_node("GlobalAveragePool", ["act2"], ["pool"], name="pool"),
        helper.make_node("Flatten", ["pool"], ["flat"], name="flat"),
        helper.make_node("Gemm", ["flat", "fc.weight", "fc.bias"], ["logits"], name="fc", transB=1),
    ]
    if softmax:
        nodes.append(helper.make_node("Softmax", ["logits"], ["probabilities"], name="softmax", axis=1))
    tensors = [numpy_helper.from_array(array, name) for name, array in (weights or _weights()).items()]
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, SIZE, SIZE])
    output = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, [batch, CLASSES])
    graph = helper.make_graph(nodes, "colours", [image], [output], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def _picture(channel, rng):
    """A noisy (36, 40, 3) RGB picture of one colour with a bright square."""
    pixels = rng.integers(0, 120, (36, 40, 3))
    pixels[..., channel] += 90
    y, x = rng.integers(0, 20, 2)
    pixels[y : y + 12, x : x + 12, channel] = 255
    return pixels.astype(np.uint8)


def _write_pictures(folder, **counts):
    """PNG files of some colours, such as red=3."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    for colour, count in counts.items():
        for i in range(count):
            cv2.imwrite(str(folder / f"{colour}_{i:02d}.png"), _picture(COLOURS[colour], rng)[..., ::-1])
    return folder


@dataclasses.dataclass(frozen=True)
class Done:
    """What a command left: exit code, stdout, stderr."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


def _run(*arguments):
    """Run a command here; only our own warnings are shown, every other one is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", CraftWarning)
        warnings.showwarning = show_warning
        result = CliRunner().invoke(cli, [str(argument) for argument in arguments], prog_name="craft-onnx")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Done(result.exit_code, result.stdout, result.stderr)


@pytest.fixture(scope="session")
def run():
    """Run a command and hand back what it left."""
    return _run


@pytest.fixture(scope="session")
def refused():
    """Run a command that must fail: with a code, a sentence with the value, a remedy, and nothing on stdout."""

    def check(*arguments, code=2):
        done = _run(*arguments)
        assert done.code == code, done.err
        assert done.out == ""
        assert "Traceback" not in done.err and "Error: " in done.err
        return done.err

    return check


@pytest.fixture(scope="session")
def network():
    """`_network`, to write variants."""
    return _network


@pytest.fixture(scope="session")
def weights():
    return _weights


@pytest.fixture(scope="session")
def write_pictures():
    return _write_pictures


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """The plain classifier, which does not say how pictures become its input."""
    return _network(tmp_path_factory.mktemp("model") / "colours.onnx")


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """Six red, four green and three blue pictures."""
    return _write_pictures(tmp_path_factory.mktemp("pictures"), red=6, green=4, blue=3)


@pytest.fixture(scope="session")
def labels(tmp_path_factory):
    path = tmp_path_factory.mktemp("labels") / "labels.txt"
    path.write_text("red\ngreen\nblue\nnever\n")
    return path


@pytest.fixture(scope="session")
def converted(tmp_path_factory, model):
    """The classifier converted, with its preprocessing."""
    path = tmp_path_factory.mktemp("converted") / "colours.onnx"
    assert _run("convert", model, "-o", path, "--preset", "torch").code == 0
    return path


@pytest.fixture(scope="session")
def split_bundle(tmp_path_factory, converted):
    """A bundle with two cuts and no concepts."""
    folder = tmp_path_factory.mktemp("split") / "bundle"
    assert _run("split", converted, "--at", "act2", "--at", "act1", "-o", folder).code == 0
    return folder


@pytest.fixture(scope="session")
def fitted_bundle(tmp_path_factory, split_bundle, pictures):
    """A bundle with concepts of class red."""
    folder = tmp_path_factory.mktemp("fitted") / "bundle"
    shutil.copytree(split_bundle, folder)
    done = _run("fit", folder, pictures, "--class-id", 0, "-k", 3, "--patch-size", 12)
    assert done.code == 0, done.err
    return folder


@pytest.fixture
def bundle(tmp_path, split_bundle):
    """A bundle of one's own without concepts."""
    return Path(shutil.copytree(split_bundle, tmp_path / "bundle"))


@pytest.fixture
def fitted(tmp_path, fitted_bundle):
    """A bundle of one's own with concepts of class red."""
    return Path(shutil.copytree(fitted_bundle, tmp_path / "bundle"))


@pytest.fixture
def entries():
    """Every path below a folder: to see that nothing is left behind."""
    return lambda folder: sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*"))

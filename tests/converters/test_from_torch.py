import hashlib
import io
import json
import zipfile

import numpy as np
import onnx_ir as ir
import pytest

from craft_onnx.description import Preprocessing
from craft_onnx.errors import CheckFailed, CraftError, InputError, UnsupportedOperator
from craft_onnx.graph.load import read_description
from craft_onnx.graph.names import find_tensor
from craft_onnx.runtime.preprocess import preprocess
from craft_onnx_converters import convert, from_torch

from .conftest import random_batch, run_file

torch = pytest.importorskip("torch")
SHAPE = (3, 16, 16)
# Float32 through ten layers: both sides add the same products in another order.
ROUNDING = 2e-6


def evaluated(net, x):
    """The net's own output in evaluation mode."""
    with torch.no_grad():
        return net.eval()(torch.from_numpy(x)).numpy()


def relative(expected, actual):
    return np.abs(expected - actual).max() / np.abs(expected).max()


SOURCES = {
    "dynamic.pt2": {},
    "static.pt2": {},
    "script.pt": {"input_shape": SHAPE},
    "module.pt": {"input_shape": SHAPE, "allow_pickle": True},
}


@pytest.fixture(scope="module", params=SOURCES)
def conversion(request, torch_files):
    """A conversion of each kind of file."""
    return convert(torch_files[0] / request.param, preprocessing="torch", **SOURCES[request.param])


def test_every_kind_of_file(conversion, torch_files, tmp_path):
    _, net = torch_files
    assert set(conversion.errors) == {1, 3} and max(conversion.errors.values()) < ROUNDING
    path = conversion.save(tmp_path / "model.onnx")
    for batch in (1, 5):
        x = random_batch(batch, SHAPE)
        assert relative(evaluated(net, x), run_file(path, x)) < ROUNDING


def test_layer_names_survive(conversion):
    model = conversion.model
    layer3, layer4 = find_tensor(model, "layer3"), find_tensor(model, "layer4")
    assert [layer3.shape[1], layer4.shape[1]] == [8, 12]
    assert layer4 is find_tensor(model, "layer4.1.relu")
    assert layer4.producer().op_type == "Relu"
    # A BatchNorm is folded into its Conv, which answers to both names.
    assert find_tensor(model, "layer4.1.bn1") is find_tensor(model, "layer4.1.conv1")


def test_module_in_memory_keeps_its_mode(torch_nets):
    net = torch_nets.resnet()
    net.layer3.eval()
    before = {name: module.training for name, module in net.named_modules()}
    conversion = convert(net, input_shape=SHAPE)
    assert {name: module.training for name, module in net.named_modules()} == before
    assert max(conversion.errors.values()) < ROUNDING
    assert conversion.description.source_sha256 is None


@pytest.mark.parametrize("where", ["module", "file"])
def test_factories(torch_nets, tmp_path, monkeypatch, where):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_code.py").write_text("from tiny_torch_nets import resnet\n")
    source = "own_code:resnet" if where == "module" else str(tmp_path / "own_code.py") + ":resnet"
    path = convert(source, input_shape=SHAPE).save(tmp_path / "model.onnx")
    x = random_batch(4, SHAPE)
    assert relative(evaluated(torch_nets.resnet(), x), run_file(path, x)) < ROUNDING


def test_description(conversion, torch_files):
    hashes = {hashlib.sha256((torch_files[0] / name).read_bytes()).hexdigest() for name in SOURCES}
    assert conversion.description.source_sha256 in hashes
    assert read_description(conversion.model) == conversion.description
    assert conversion.description.framework == "torch"
    assert conversion.description.preprocessing == Preprocessing.preset("torch", (16, 16))


def test_no_stack_traces_in_the_file(conversion, tmp_path):
    content = conversion.save(tmp_path / "model.onnx").read_bytes()
    assert b"stack_trace" not in content and b"tiny_torch_nets.py" not in content and b"site-packages" not in content


def test_softmax_is_cut_off(torch_nets, tmp_path):
    conversion = convert(torch_nets.softmax_resnet(), input_shape=SHAPE)
    x = random_batch(3, SHAPE)
    logits = run_file(conversion.save(tmp_path / "model.onnx"), x)
    assert conversion.description.softmax_removed
    assert relative(evaluated(torch_nets.resnet(), x), logits) < ROUNDING


def test_softmax_is_kept(torch_nets, tmp_path):
    conversion = convert(torch_nets.softmax_resnet(), input_shape=SHAPE, keep_softmax=True)
    probabilities = run_file(conversion.save(tmp_path / "model.onnx"), random_batch(3, SHAPE))
    assert not conversion.description.softmax_removed
    # Five float32 probabilities.
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-6)


def test_fully_convolutional_head_gives_rows_of_logits(torch_nets, tmp_path):
    net = torch_nets.fully_convolutional()
    x = random_batch(3, SHAPE)
    logits = run_file(convert(net, input_shape=SHAPE).save(tmp_path / "model.onnx"), x)
    assert logits.shape == (3, 5)
    assert relative(evaluated(net, x)[:, :, 0, 0], logits) < ROUNDING


RULE = {"channel_order": "bgr", "scale": 1 / 255, "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4)}


def test_baked_preprocessing(torch_nets, tmp_path):
    net = torch_nets.resnet()
    conversion = convert(net, input_shape=SHAPE, preprocessing=RULE, bake_preprocessing=True)
    assert conversion.description.preprocessing == Preprocessing((16, 16), "NHWC", baked=True, **RULE)
    assert max(conversion.errors.values()) < ROUNDING
    pixels = np.random.default_rng(1).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    x = preprocess(pixels, Preprocessing((16, 16), **RULE))
    actual = run_file(conversion.save(tmp_path / "model.onnx"), pixels)
    assert relative(evaluated(net, x), actual) < ROUNDING


def test_wrong_baking_is_caught(torch_nets, monkeypatch):
    from craft_onnx_converters import pipeline

    right = pipeline.bake_preprocessing
    other = Preprocessing((16, 16), **RULE | {"channel_order": "rgb"})
    monkeypatch.setattr(pipeline, "bake_preprocessing", lambda model, rule: right(model, other))
    with pytest.raises(CheckFailed, match="differs from the framework"):
        convert(torch_nets.resnet(), input_shape=SHAPE, preprocessing=RULE, bake_preprocessing=True)


def test_unknown_preprocessing_cannot_be_baked(torch_files):
    with pytest.raises(InputError, match="not known"):
        convert(torch_files[0] / "dynamic.pt2", bake_preprocessing=True)


def test_preprocessing_that_does_not_fit(torch_files):
    folder, _ = torch_files
    with pytest.raises(InputError, match="NHWC"):
        convert(folder / "dynamic.pt2", preprocessing=Preprocessing((16, 16), "NHWC"))
    with pytest.raises(InputError, match="32"):
        convert(folder / "dynamic.pt2", preprocessing=Preprocessing((32, 32)))


def perturb(model):
    """The model with one weight changed by 0.1 %."""
    value = next(value for value in model.graph.initializers.values() if len(value.shape) == 4)
    array = value.const_value.numpy().copy()
    array.flat[np.abs(array).argmax()] *= 1.001
    value.const_value = ir.tensor(array, name=value.name)
    return model


def test_exporters_mistake_is_caught(torch_files, monkeypatch):
    right = from_torch._export_program
    monkeypatch.setattr(from_torch, "_export_program", lambda program: perturb(right(program)))
    with pytest.raises(CheckFailed, match=r"differs from the framework by .*e-") as caught:
        convert(torch_files[0] / "dynamic.pt2")
    assert caught.value.exit_code == 1


def test_nan_weights(torch_nets):
    net = torch_nets.resnet()
    with torch.no_grad():
        net.fc.bias[0] = float("nan")
    with pytest.raises(CheckFailed, match="not finite"):
        convert(net, input_shape=SHAPE)


@pytest.mark.parametrize("through", ["program", "script"])
def test_unsupported_operator_is_named(torch_nets, tmp_path, through):
    net = torch_nets.TinyResNet(torch_nets.MatrixExponential()).eval()
    source = net
    if through == "script":
        source = tmp_path / "net.pt"
        with pytest.MonkeyPatch.context(), from_torch.quiet():
            torch.jit.trace(net, torch.zeros(2, *SHAPE)).save(source)
    with pytest.raises(UnsupportedOperator, match="linalg_matrix_exp") as caught:
        convert(source, input_shape=SHAPE)
    assert caught.value.exit_code == 3


def test_batch_that_cannot_vary(torch_nets):
    net = torch_nets.TinyResNet(torch_nets.OnlyPairs())
    with pytest.raises(CraftError, match="batch"):
        convert(net, input_shape=SHAPE)


def test_control_flow_cannot_be_traced(torch_nets):
    with pytest.raises(InputError, match=r"cannot trace"):
        convert(torch_nets.TinyResNet(torch_nets.Branching()), input_shape=SHAPE)


def test_program_in_training_mode(torch_files):
    with pytest.raises(InputError, match="training mode"):
        convert(torch_files[0] / "training.pt2")


def test_input_shape_is_needed(torch_files):
    with pytest.raises(InputError, match="--input-shape"):
        convert(torch_files[0] / "script.pt")


def test_input_shape_that_contradicts(torch_files):
    with pytest.raises(InputError, match=r"\(3, 8, 8\) does not fit"):
        convert(torch_files[0] / "dynamic.pt2", input_shape=(3, 8, 8))


def test_framework_that_fails_on_the_batch(torch_files, monkeypatch):
    def failing(net, x):
        raise RuntimeError("shape mismatch in view\nat line 3")

    monkeypatch.setattr(from_torch, "_evaluate", failing)
    with pytest.raises(InputError, match=r"torch cannot evaluate .*\(RuntimeError: shape mismatch in view\)"):
        convert(torch_files[0] / "dynamic.pt2")


def test_input_shape_that_does_not_fit(torch_files):
    with pytest.raises(InputError):
        convert(torch_files[0] / "script.pt", input_shape=(1, 16, 16))


def test_half_precision(torch_nets):
    with pytest.raises(InputError, match="float16"):
        convert(torch_nets.resnet().half(), input_shape=SHAPE)


class Trap:
    """Leaves a trace when it is unpickled by executing what it says."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.fixture
def only_weights(monkeypatch):
    """`torch.load` that fails if anything but weights may be loaded."""
    right = torch.load

    def guarded(*arguments, **options):
        assert options.get("weights_only") is True
        return right(*arguments, **options)

    monkeypatch.setattr(torch, "load", guarded)


def test_pickled_module_is_refused(torch_files, only_weights):
    with pytest.raises(InputError, match=r"executes code.*--allow-pickle"):
        convert(torch_files[0] / "module.pt", input_shape=SHAPE)


@pytest.mark.parametrize("zipped", [True, False])
def test_pickle_executes_nothing(tmp_path, only_weights, zipped):
    torch.save(Trap(tmp_path / "trace"), tmp_path / "net.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match="executes code"):
        convert(tmp_path / "net.pt", input_shape=SHAPE)
    assert not (tmp_path / "trace").exists()


def test_pickle_inside_a_program_executes_nothing(torch_files, tmp_path):
    poison = io.BytesIO()
    torch.save(Trap(tmp_path / "trace"), poison)
    with zipfile.ZipFile(torch_files[0] / "dynamic.pt2") as old, zipfile.ZipFile(tmp_path / "net.pt2", "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith("model_weights_config.json"):
                config = json.loads(content)
                first = next(iter(config["config"].values()))
                first["use_pickle"], first["tensor_meta"] = True, None
                content = json.dumps(config).encode()
                poisoned = f"{name.split('/')[0]}/data/weights/{first['path_name']}"
            new.writestr(name, content)
    with zipfile.ZipFile(tmp_path / "net.pt2") as archive:
        rest = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "net.pt2", "w") as archive:
        for name, content in (rest | {poisoned: poison.getvalue()}).items():
            archive.writestr(name, content)
    with pytest.raises(InputError, match="cannot be loaded"):
        convert(tmp_path / "net.pt2")
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("allow_pickle", [False, True])
def test_state_dict_is_no_model(torch_files, allow_pickle):
    with pytest.raises(InputError, match=r"holds weights, not a model.*package.module:factory"):
        convert(torch_files[0] / "weights.pth", allow_pickle=allow_pickle, input_shape=SHAPE)


@pytest.mark.parametrize("name", ["dynamic.pt2", "script.pt", "module.pt"])
def test_truncated_files(torch_files, tmp_path, name):
    content = (torch_files[0] / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=name):
        convert(tmp_path / name, input_shape=SHAPE)


class WindowAttention(torch.nn.Module):
    """Attention in every window of 4 x 4 pixels: keys have five axes."""

    def __init__(self):
        super().__init__()
        self.project, self.head = torch.nn.Linear(3, 24), torch.nn.Linear(8, 5)

    def forward(self, x):
        windows = x.unfold(2, 4, 4).unfold(3, 4, 4).flatten(4).flatten(2, 3).permute(0, 2, 3, 1)  # n, windows, 16, 3
        q, k, v = self.project(windows).unflatten(-1, (3, 2, 4)).permute(3, 0, 4, 1, 2, 5)
        attended = torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=0.7)
        return self.head(attended.permute(0, 2, 3, 1, 4).flatten(3).mean((1, 2)))


def test_attention_over_windows(tmp_path):
    torch.manual_seed(0)
    net, x = WindowAttention(), random_batch(5, SHAPE)
    conversion = convert(net, input_shape=SHAPE)
    assert relative(evaluated(net, x), run_file(conversion.save(tmp_path / "model.onnx"), x)) < ROUNDING
    assert str(find_tensor(conversion.model, "project").name)

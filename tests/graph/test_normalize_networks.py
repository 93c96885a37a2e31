"""Whole networks: what they compute, before and after."""

import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from support.topologies import LIGHT, fill

from craft_onnx.graph.load import check, image_input, load, logits_output
from craft_onnx.graph.names import LAYERS_KEY, find_tensor
from craft_onnx.graph.normalize import STEPS, normalize

# Of the largest output: float32 through up to 120 layers, whose products are added in another order.
TOLERANCE = 2e-5


def assert_same(model, free, run, shape, batch):
    """Rows of a batch of `2 * batch` and of 1 are what the model gave for `batch` at a time."""
    x = np.random.default_rng(0).standard_normal((2 * batch, *shape)).astype(np.float32)
    expected = np.concatenate([run(model, rows) for rows in np.split(x, 2)])
    assert np.ptp(expected) > 0
    for rows in (slice(None), slice(1)):
        error = np.abs(run(free, x[rows]) - expected[rows]).max() / np.abs(expected).max()
        assert error < TOLERANCE


def assert_normal(model, free):
    check(free)
    assert free.opset_imports[""] == max(18, model.opset_imports[""])
    assert image_input(free).name == image_input(model).name and image_input(free).shape[0] == "batch"
    assert logits_output(free).name == logits_output(model).name and logits_output(free).shape[0] == "batch"
    assert all(node.metadata_props.keys() == {LAYERS_KEY} for node in free.graph)
    kinds = Counter(node.op_type for node in free.graph)
    assert not kinds.keys() & {"Identity", "Dropout", "Constant"}
    # A tensor without a shape could not be offered as a cut.
    assert all(node.outputs[0].shape is not None and node.outputs[0].dtype is not None for node in free.graph)
    for node in free.graph:
        before = node.inputs[0].producer()
        if node.op_type == "BatchNormalization" and before is not None:
            assert before.op_type not in {"Conv", "Gemm"} or len(before.outputs[0].uses()) > 1


@pytest.mark.parametrize("path", LIGHT, ids=lambda path: path.stem.removeprefix("light_"))
def test_topologies_of_the_onnx_package(path, run):
    """All nine are of opset 9, made for one picture, with BatchNormalization's parameters behind other nodes."""
    model = fill(load(path))
    free = normalize(model)
    assert_normal(model, free)
    assert_same(model, free, run, (3, 224, 224), 1)


def test_parameters_that_the_file_only_says_how_to_fill():
    path = next(path for path in LIGHT if "densenet" in path.stem)
    kinds = Counter(node.op_type for node in normalize(load(path)).graph)
    assert kinds["Conv"] == 121 and "ConstantOfShape" not in kinds and "Unsqueeze" not in kinds
    assert kinds["BatchNormalization"] == 62  # those before a ReLU, behind a Concat or a pooling


def test_trained_models(trained, run):
    free = normalize(trained)
    assert_normal(trained, free)
    shape = image_input(trained).shape
    assert_same(trained, free, run, tuple(shape[1:]), shape[0] if isinstance(shape[0], int) else 2)


def test_torch_exports(any_net, run):
    free = normalize(any_net)
    assert_normal(any_net, free)
    assert_same(any_net, free, run, (3, 32, 32), 2)


def test_no_step_changes_its_argument(net):
    model = net("vit")
    for name, step in STEPS:
        before = ir.serde.serialize_model(model).SerializeToString()
        after = step(model)
        assert ir.serde.serialize_model(model).SerializeToString() == before, name
        model = after


def test_normalizing_twice_changes_nothing(any_net):
    once = normalize(any_net)
    assert (
        ir.serde.serialize_model(normalize(once)).SerializeToString()
        == ir.serde.serialize_model(once).SerializeToString()
    )


def torch_module(name):
    torch = pytest.importorskip("torch")
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location("torch_nets", Path(__file__).with_name("torch_nets.py"))
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    torch.manual_seed(0)
    net = module.NETS[name]().eval()
    for part in net.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.2)
            part.running_var.uniform_(0.5, 1.5)
    return torch, net


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", ["resnet", "mobilenet", "vit", "vit_mean", "convnext"])
def test_torchscript_exports_for_one_batch(name, batch, tmp_path, run):
    """The old exporter: opset 12 and 17, nothing optimised away, a batch fixed in constants, names in the tensors."""
    torch, net = torch_module(name)
    x = torch.randn(2 * batch, 3, 32, 32)
    opset = 12 if name == "resnet" else 17
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mode = torch.onnx.TrainingMode.PRESERVE  # else it merges BatchNormalization
        torch.onnx.export(
            net,
            (x[:batch],),
            tmp_path / "m.onnx",
            dynamo=False,
            opset_version=opset,
            training=mode,
            do_constant_folding=False,
        )
    model = load(tmp_path / "m.onnx")
    free = normalize(model)
    assert_normal(model, free)
    expected = net(x).detach().numpy()
    np.testing.assert_allclose(run(free, x.numpy()), expected, rtol=0, atol=TOLERANCE * np.abs(expected).max())


def test_batchnorm_left_alone_by_the_exporter_is_merged(tmp_path, run):
    torch, net = torch_module("resnet")
    x = torch.randn(2, 3, 32, 32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            net, (x,), dynamo=True, optimize=False, verbose=False, dynamic_shapes=({0: torch.export.Dim("n")},)
        )
    free = normalize(program.model)
    assert {node.op_type for node in free.graph} == {"Conv", "Relu", "Add", "ReduceMean", "Reshape", "Gemm"}
    for name in ("layer1.0.conv1.0", "layer1.0.conv1.1"):
        assert find_tensor(free, name).producer().op_type == "Conv"
    expected = net(x).detach().numpy()
    np.testing.assert_allclose(run(free, x.numpy()), expected, rtol=0, atol=TOLERANCE * np.abs(expected).max())


@pytest.fixture(scope="module")
def keras_pair():
    """A Keras network with all that tf2onnx leaves behind, and its export."""
    pytest.importorskip("tensorflow")
    pytest.importorskip("tf2onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import keras
        import tensorflow as tf
        import tf2onnx

        keras.utils.set_random_seed(0)
        layers = keras.layers
        inputs = x = layers.Input((32, 32, 3))
        x = layers.Conv2D(8, 3, strides=2, padding="same", name="conv_a")(x)
        x = layers.BatchNormalization(name="bn_a")(x)
        x = skip = layers.Activation("relu")(x)
        x = layers.Activation("relu")(layers.BatchNormalization()(layers.SeparableConv2D(8, 3, padding="same")(x)))
        x = layers.Activation("relu", name="last")(layers.Add()([x, skip]))
        x = layers.Dropout(0.5)(layers.GlobalAveragePooling2D()(x))
        net = keras.Model(inputs, layers.Dense(5, activation="softmax", name="scores")(x))
        rng = np.random.default_rng(0)
        for layer in net.layers:
            if isinstance(layer, layers.BatchNormalization):
                layer.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
        proto, _ = tf2onnx.convert.from_keras(net, [tf.TensorSpec([None, 32, 32, 3], name="image")], opset=18)
    return net, ir.serde.deserialize_model(proto)


def test_keras_exports(keras_pair, run):
    net, model = keras_pair
    free = normalize(model)
    assert_normal(model, free)
    kinds = Counter(node.op_type for node in free.graph)
    assert kinds["Gemm"] == 1 and not kinds.keys() & {"Mul", "MatMul", "BatchNormalization"}
    x = np.random.default_rng(2).standard_normal((3, 32, 32, 3)).astype(np.float32)
    np.testing.assert_allclose(run(free, x), np.asarray(net(x)), rtol=0, atol=TOLERANCE)


def test_keras_layer_names(keras_pair):
    free = normalize(keras_pair[1])
    assert find_tensor(free, "conv_a") is find_tensor(free, "bn_a")
    assert find_tensor(free, "bn_a").producer().op_type == "Conv"
    assert find_tensor(free, "last").producer().op_type == "Relu"
    assert find_tensor(free, "activation").uses()[0].node.op_type != "Gemm"
    assert find_tensor(free, "scores") is logits_output(free)
    assert [find_tensor(free, name).shape[1] for name in ("activation", "activation_1", "last")] == [8, 8, 8]
    assert find_tensor(free, "activation") is not find_tensor(free, "activation_1")

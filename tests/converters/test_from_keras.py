import json

import numpy as np
import pytest

from craft_onnx.errors import InputError, UnsupportedOperator
from craft_onnx.graph.names import find_tensor
from craft_onnx_converters import convert
from craft_onnx_converters.quiet import quiet

from .conftest import random_batch, run_file

SHAPE = (16, 16, 3)
# Float32 through a few layers.
ROUNDING = 2e-6


def own_output(net, x):
    """The net's own output, as an array."""
    with quiet():
        return np.asarray(net(x, training=False))


def softmax(logits):
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    return exponentials / exponentials.sum(1, keepdims=True)


@pytest.mark.parametrize("name", ["net.keras", "net.h5"])
def test_files(keras_files, tmp_path, name):
    folder, net = keras_files
    conversion = convert(folder / name)
    assert set(conversion.errors) == {1, 3} and max(conversion.errors.values()) < ROUNDING
    assert conversion.description.framework == "keras" and conversion.description.softmax_removed
    path = conversion.save(tmp_path / "model.onnx")
    for batch in (1, 5):
        x = random_batch(batch, SHAPE)
        np.testing.assert_allclose(softmax(run_file(path, x)), own_output(net, x), atol=ROUNDING)


def test_layer_names_survive(keras_files):
    model = convert(keras_files[0] / "net.keras").model
    assert find_tensor(model, "activation_49").producer().op_type == "Relu"
    assert find_tensor(model, "activation_1") is not find_tensor(model, "activation_49")
    # Folded into one Conv, which has no name of its own but those of its weights.
    assert find_tensor(model, "bn5c_branch2c") is find_tensor(model, "res5c_branch2c")
    assert find_tensor(model, "res5c_branch2c").producer().op_type == "Conv"


def test_grouped_convolution_and_erfc(keras_nets, tmp_path):
    net = keras_nets.convnext()
    conversion = convert(net)
    x = random_batch(4, SHAPE)
    actual = run_file(conversion.save(tmp_path / "model.onnx"), x)
    expected = own_output(net, x)
    assert np.abs(actual - expected).max() / np.abs(expected).max() < ROUNDING
    assert find_tensor(conversion.model, "gelu").shape[-1] == 32


def test_an_optimizer_of_tf2onnx_that_fails_is_left_out(keras_nets, monkeypatch):
    optimizer = pytest.importorskip("tf2onnx.optimizer.transpose_optimizer").TransposeOptimizer

    def fail(self, graph):
        raise ValueError("no such transpose")

    monkeypatch.setattr(optimizer, "_optimize", fail)
    conversion = convert(keras_nets.convnext())
    assert max(conversion.errors.values()) < ROUNDING
    assert [node.op_type for node in conversion.model.graph].count("Transpose") > 2


def keras2_layer(kind, name, **config):
    return {"class_name": kind, "config": {"name": name, "trainable": True, "dtype": "float32", **config}}


def write_keras2_file(path, arrays):
    """A model file as Keras 2 wrote it: another configuration and other weight names than Keras 3's."""
    h5py = pytest.importorskip("h5py")
    convolution = {"filters": 4, "kernel_size": [3, 3], "strides": [2, 2], "padding": "same", "activation": "relu"}
    layers = [
        keras2_layer("InputLayer", "input_1", batch_input_shape=[None, *SHAPE], sparse=False, ragged=False),
        keras2_layer("Conv2D", "conv1", use_bias=True, **convolution),
        keras2_layer("GlobalAveragePooling2D", "pool", data_format="channels_last"),
        keras2_layer("Dense", "fc", units=5, activation="linear", use_bias=True),
    ]
    model = {"class_name": "Sequential", "config": {"name": "old", "layers": layers}}
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"], file.attrs["backend"] = "2.4.0", "tensorflow"
        file.attrs["model_config"] = json.dumps(model)
        weights = file.create_group("model_weights")
        weights.attrs["layer_names"] = [layer["config"]["name"].encode() for layer in layers]
        for layer in layers:
            name = layer["config"]["name"]
            group = weights.create_group(name)
            own = [key for key in arrays if key.startswith(f"{name}/")]
            group.attrs["weight_names"] = [key.encode() for key in own]
            for key in own:
                group.create_dataset(key, data=arrays[key])


def test_file_of_keras_2(keras_nets, tmp_path):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    shapes = {"conv1/kernel:0": (3, 3, 3, 4), "conv1/bias:0": (4,), "fc/kernel:0": (4, 5), "fc/bias:0": (5,)}
    arrays = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    write_keras2_file(tmp_path / "old.h5", arrays)
    x = random_batch(3, SHAPE)
    actual = run_file(convert(tmp_path / "old.h5").save(tmp_path / "model.onnx"), x)
    # "same" at stride 2 pads the even size below and to the right only.
    image, kernel, bias, weight, offset = map(torch.from_numpy, (x, *arrays.values()))
    padded = torch.nn.functional.pad(image.permute(0, 3, 1, 2), (0, 1, 0, 1))
    activated = torch.conv2d(padded, kernel.permute(3, 2, 0, 1), bias, stride=2).relu()
    expected = (activated.mean((2, 3)) @ weight + offset).numpy()
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_sequential_that_is_not_built(keras_nets, tmp_path):
    import keras

    net = keras.Sequential([keras.layers.Conv2D(4, 3), keras.layers.GlobalMaxPooling2D(), keras.layers.Dense(3)])
    with pytest.raises(InputError, match="--input-shape"):
        convert(net)
    path = convert(net, input_shape=SHAPE).save(tmp_path / "model.onnx")
    x = random_batch(2, SHAPE)
    np.testing.assert_allclose(run_file(path, x), own_output(net, x), atol=ROUNDING)


def test_open_size(keras_nets):
    import keras

    inputs = keras.Input((None, None, 3))
    x = keras.layers.GlobalMaxPooling2D()(keras.layers.Conv2D(4, 3)(inputs))
    net = keras.Model(inputs, keras.layers.Dense(3)(x))
    with pytest.raises(InputError, match="open"):
        convert(net)
    with pytest.raises(InputError, match="does not fit"):
        convert(net, input_shape=(16, 16, 1))
    conversion = convert(net, input_shape=(20, 24, 3), preprocessing="tf")
    assert conversion.description.preprocessing.size == (20, 24)


def test_several_outputs(keras_nets):
    import keras

    inputs = keras.Input(SHAPE)
    x = keras.layers.GlobalMaxPooling2D()(inputs)
    with pytest.raises(InputError, match="2 outputs"):
        convert(keras.Model(inputs, [keras.layers.Dense(3)(x), keras.layers.Dense(2)(x)]))
    with pytest.raises(InputError, match="2 inputs"):
        other = keras.Input(SHAPE)
        convert(keras.Model([inputs, other], keras.layers.Add()([inputs, other])))


def test_weights_are_no_model(keras_files):
    with pytest.raises(InputError, match="holds weights, not a model"):
        convert(keras_files[0] / "net.weights.h5")


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_pickled_function_is_refused(keras_nets, tmp_path, suffix):
    import keras

    net = keras_nets.plain(None, keras.layers.Lambda(lambda x: 2 * x))
    path = tmp_path / f"net{suffix}"
    with quiet():
        net.save(path)
    with pytest.raises(InputError, match=r"executes code.*--allow-pickle"):
        convert(path)
    assert max(convert(path, allow_pickle=True).errors.values()) < ROUNDING


@pytest.mark.parametrize("name", ["net.keras", "net.h5"])
def test_truncated_files(keras_files, tmp_path, name):
    content = (keras_files[0] / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=name):
        convert(tmp_path / name)


def test_unsupported_operator_is_named(keras_nets):
    import keras
    import tensorflow

    net = keras_nets.plain(extra=keras.layers.Lambda(tensorflow.math.bessel_i0))
    with pytest.raises(UnsupportedOperator, match="BesselI0") as caught:
        convert(net)
    assert caught.value.exit_code == 3


def test_output_that_does_not_depend_on_the_input_is_warned_of(keras_nets):
    from craft_onnx.errors import CraftWarning

    net = keras_nets.plain()
    net.get_layer("fc1000").kernel.assign(net.get_layer("fc1000").kernel * 0)
    with pytest.warns(CraftWarning, match="hardly depends"):
        convert(net)

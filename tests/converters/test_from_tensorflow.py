import numpy as np
import pytest

from craft_onnx.errors import InputError, UnsupportedOperator
from craft_onnx.graph.names import find_tensor
from craft_onnx_converters import convert
from craft_onnx_converters.quiet import native_quiet, quiet

from .conftest import frozen_graph, random_batch, run_file

SHAPE = (16, 16, 3)
# Float32 through a few layers.
ROUNDING = 2e-6
TENSORS = {"inputs": ["image:0"], "outputs": ["Identity"]}
SOURCES = {
    "saved_model": ("tensorflow", {}),
    "frozen.pb": ("tensorflow", TENSORS),
    "net.tflite": ("tflite", {}),
}


@pytest.mark.parametrize("name", SOURCES)
def test_every_kind_of_source(keras_files, tmp_path, name):
    folder, net = keras_files
    framework, options = SOURCES[name]
    conversion = convert(folder / name, keep_softmax=True, **options)
    assert conversion.description.framework == framework
    assert (conversion.description.source_sha256 is None) == (name == "saved_model")
    assert set(conversion.errors) == {1, 3} and max(conversion.errors.values()) < ROUNDING
    path = conversion.save(tmp_path / "model.onnx")
    for batch in (1, 5):
        x = random_batch(batch, SHAPE)
        with quiet():
            expected = np.asarray(net(x, training=False))
        np.testing.assert_allclose(run_file(path, x), expected, atol=ROUNDING)


@pytest.mark.parametrize("name", SOURCES)
def test_names_and_softmax(keras_files, name):
    conversion = convert(keras_files[0] / name, **SOURCES[name][1])
    assert conversion.description.softmax_removed
    # Of a TensorFlow Lite layer the last tensor is its output in that format's own layout.
    expected = "Transpose" if name == "net.tflite" else "Relu"
    assert find_tensor(conversion.model, "activation_49").producer().op_type == expected


@pytest.mark.parametrize("name", ["net.pb", "saved_model"])
def test_compiled_functions_are_inlined(keras_nets, tmp_path, name):
    net = keras_nets.convnext()
    if name == "net.pb":
        (tmp_path / name).write_bytes(frozen_graph(net, SHAPE))
    else:
        with quiet(), native_quiet():
            net.export(str(tmp_path / name), verbose=False)
    conversion = convert(tmp_path / name, **(TENSORS if name == "net.pb" else {}))
    assert max(conversion.errors.values()) < ROUNDING
    # TensorFlow's optimizer names folded constants and arguments of inlined functions after itself.
    assert list(find_tensor(conversion.model, "gelu").shape)[-1] == 32


@pytest.mark.parametrize("options", [{}, {"inputs": ["image"]}, {"inputs": ["nothing"], "outputs": ["Identity"]}])
def test_frozen_graph_needs_names_that_exist(keras_files, options):
    with pytest.raises(InputError, match=r"Perhaps --(inputs image:0|outputs Identity:0)"):
        convert(keras_files[0] / "frozen.pb", **options)


def test_operator_of_lite_that_tf2onnx_lacks(keras_nets, tmp_path):
    import tensorflow

    with quiet(), native_quiet():
        content = tensorflow.lite.TFLiteConverter.from_keras_model(keras_nets.convnext()).convert()
    (tmp_path / "net.tflite").write_bytes(content)
    with pytest.raises(UnsupportedOperator, match="TFL_GELU"):
        convert(tmp_path / "net.tflite")


def test_quantized_lite_is_refused(keras_files, tmp_path):
    import tensorflow

    _, net = keras_files
    with quiet(), native_quiet():
        converter = tensorflow.lite.TFLiteConverter.from_keras_model(net)
        converter.optimizations = [tensorflow.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: [[random_batch(1, SHAPE)]]
        (tmp_path / "net.tflite").write_bytes(converter.convert())
    with pytest.raises(InputError, match="is quantized"):
        convert(tmp_path / "net.tflite")


def test_several_signatures_and_outputs(keras_nets, tmp_path):
    import tensorflow

    class Module(tensorflow.Module):
        @tensorflow.function(input_signature=[tensorflow.TensorSpec((None, 4, 4, 3))])
        def first(self, image):
            flat = tensorflow.reshape(image, (-1, 48))
            return {"logits": flat[:, :5] * 2, "features": flat}

        @tensorflow.function(input_signature=[tensorflow.TensorSpec((None, 4, 4, 3))])
        def second(self, image):
            return image[:, 0, 0]

    module = Module()
    with quiet(), native_quiet():
        tensorflow.saved_model.save(module, str(tmp_path / "two"), {"a": module.first, "b": module.second})
        tensorflow.saved_model.save(module, str(tmp_path / "one"), {"a": module.first})
    with pytest.raises(InputError, match="signatures a, b"):
        convert(tmp_path / "two")
    with pytest.raises(InputError, match="outputs features, logits"):
        convert(tmp_path / "one")
    path = convert(tmp_path / "one", outputs=["logits"]).save(tmp_path / "model.onnx")
    x = random_batch(2, (4, 4, 3))
    np.testing.assert_array_equal(run_file(path, x), 2 * x.reshape(2, 48)[:, :5])


def test_corrupt_sources(keras_files, tmp_path):
    folder, _ = keras_files
    (tmp_path / "saved").mkdir()
    for source, target in (
        ("saved_model/saved_model.pb", "saved/saved_model.pb"),
        ("frozen.pb", "net.pb"),
        ("net.tflite", "net.tflite"),
    ):
        content = (folder / source).read_bytes()
        (tmp_path / target).write_bytes(content[: len(content) // 3])
    for name in ("saved", "net.pb", "net.tflite"):
        with pytest.raises(InputError, match=name):
            convert(tmp_path / name, **TENSORS)


def test_folder_without_a_model(keras_nets, tmp_path):
    with pytest.raises(InputError, match=r"saved_model\.pb"):
        convert(tmp_path)

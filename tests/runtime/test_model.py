import threading

import numpy as np
import pytest

import craft_onnx
from craft_onnx.description import Preprocessing
from craft_onnx.errors import InputError, ProviderUnavailable
from craft_onnx.runtime.bundle import Bundle
from craft_onnx.runtime.model import SplitModel, load


@pytest.fixture
def model(bundle_folder):
    return load(bundle_folder, threads=1)


def test_says_what_it_is(model):
    assert model.cut == model.manifest.cuts["relu"]
    assert (model.cut.name, model.cut.tensor, model.cut.channel_axis) == ("relu", "relu", 1)
    assert model.cuts == ("relu",)
    assert model.provider == "cpu"
    assert model.input_shape == (None, 3, 8, 8)
    assert model.layout == "NCHW"
    assert model.classes == 5
    assert model.class_names is None
    assert model.preprocessing == Preprocessing.preset("torch", (8, 8))
    assert isinstance(model.bundle, Bundle)
    assert craft_onnx.load is load
    assert craft_onnx.SplitModel is SplitModel


def test_computes_g_h_and_f(model, pictures, oracle):
    a, logits = oracle(pictures)
    for batch_size in (1, 4, 64):
        # float32 sums of 27 products and of 64 positions: about 1e-7 of the largest, 2e-6 holds them
        for actual, expected in (
            (model.g(pictures, batch_size), a),
            (model.predict(pictures, batch_size), logits),
            (model.h(model.g(pictures), batch_size=batch_size), logits),
        ):
            assert actual.dtype == np.float32
            np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-6 * np.abs(expected).max())


def test_takes_streams_and_tensors(model, pictures):
    expected = model.predict(pictures)
    np.testing.assert_allclose(model.predict(iter([pictures[:5], pictures[5:]])), expected, rtol=1e-6, atol=1e-6)
    torch = pytest.importorskip("torch")
    np.testing.assert_array_equal(model.predict(torch.tensor(pictures, requires_grad=True)), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.transpose(0, 2, 3, 1), r"shape \(21, 8, 8, 3\), the model takes \(N, 3, 8, 8\)"),
        (lambda x: x[0], r"Add a batch axis: x\[None\]"),
        (lambda x: (x * 255).astype(np.uint8), r"dtype uint8, the model takes float32.* model\.preprocess"),
        (lambda x: x[:0], "no rows"),
        (lambda x: "pictures", "str|str_|array"),
    ],
)
def test_refuses_other_input(model, pictures, change, message):
    with pytest.raises(InputError, match=message):
        model.g(change(pictures))


def test_cuts_are_found_by_name(bundle_folder):
    assert load(bundle_folder, cut="relu").cut.name == "relu"
    with pytest.raises(InputError, match=r"not cut at 'layer3'\. It is cut at relu"):
        load(bundle_folder, cut="layer3")


def test_providers_are_checked_before_anything_is_read(tmp_path):
    with pytest.raises(ProviderUnavailable):
        load(tmp_path / "nowhere", "qnn")
    with pytest.raises(InputError, match="no execution provider"):
        load(tmp_path / "nowhere", "gpu")


def test_graphs_are_loaded_when_used_and_once(model, pictures):
    assert model._sessions == {}
    jobs = [threading.Thread(target=model.g, args=(pictures,)) for _ in range(6)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert list(model._sessions) == ["g"]
    assert model.session("g") is model.session("g")
    with pytest.raises(InputError, match="no graph 'vjp_h'"):
        model.session("vjp_h")


def test_pictures_become_input_and_maps_come_back(model):
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, size, np.uint8) for size in ((20, 30, 3), (8, 8, 3))]
    x = model.preprocess(pictures)
    assert x.shape == (2, 3, 8, 8)
    assert x.dtype == np.float32
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(x[1], ((pictures[1] / 255 - mean) / std).transpose(2, 0, 1), rtol=0, atol=1e-6)
    np.testing.assert_array_equal(model.preprocess(pictures[1]), x[1:])
    maps = model.to_picture(np.ones((2, 4, 4), np.float32), [(20, 30), (8, 8)])
    assert [one.shape for one in maps] == [(20, 30), (8, 8)]
    with pytest.raises(InputError, match="2 maps and 1 sizes"):
        model.to_picture(np.ones((2, 4, 4), np.float32), [(20, 30)])


def test_a_bundle_that_does_not_say_how(bundle_folder):
    import dataclasses

    bundle = Bundle.open(bundle_folder)
    unknown = dataclasses.replace(bundle.manifest.input, preprocessing=None)
    bundle.commit(dataclasses.replace(bundle.manifest, input=unknown), {})
    model = load(bundle_folder)
    assert model.preprocessing is None
    with pytest.raises(InputError, match="does not say how pictures become"):
        model.preprocess(np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(InputError, match="does not say how pictures become"):
        model.to_picture(np.ones((1, 4, 4), np.float32), [(8, 8)])

"""How much relevance is conserved, layer by layer."""

import importlib
import warnings

import numpy as np
import pytest
from support.text_models import model_of

import craft_onnx as co
from craft_onnx.errors import InputError
from craft_onnx.graph.normalize import normalize
from craft_onnx.graph.reverse.relevance.composites import EpsilonPlus
from craft_onnx.relevance.conservation import losses

FREE = EpsilonPlus(zero_params="bias")
RNG = np.random.default_rng(0)


def test_without_biases_every_layer_has_it_all(birds, bird_inputs):
    found = co.conservation(birds, bird_inputs, FREE)
    assert list(found)[-1] == "input" and len(found) > 5
    # What the stabilizer takes is 1e-6 of each quotient, but of small ones more.
    for name, ratios in found.items():
        assert ratios.shape == (12,)
        np.testing.assert_allclose(ratios, 1, atol=5e-3, err_msg=name)


def test_it_is_what_attribution_records(birds, bird_inputs):
    """The sum of the recorded relevance of a layer over the logit; those of cuts, and of layers that are named."""
    x, classes = bird_inputs[:3], [1, 0, 4]
    layers = list(co.conservation(birds, x, "epsilon_plus"))[:-1]
    found = co.conservation(birds, x, "epsilon_plus", classes, [*layers], batch_size=2)
    conditions = [{"y": [number]} for number in classes]
    expected = co.CondAttribution(birds)(x, conditions, "epsilon_plus", record_layer=layers)
    logits = expected.prediction[np.arange(3), classes]
    for name in layers:
        ratios = expected.relevances[name].reshape(3, -1).sum(1) / logits
        np.testing.assert_allclose(found[name], ratios, rtol=1e-4, err_msg=name)
    np.testing.assert_allclose(found["input"], expected.conserved, rtol=1e-4)
    assert np.ptp([found[name].mean() for name in layers]) > 0.01


def test_the_predicted_class_is_the_default(birds, bird_inputs):
    predicted = birds.predict(bird_inputs[:4]).argmax(1)
    found, expected = (co.conservation(birds, bird_inputs[:4], "epsilon_plus", ids) for ids in (None, predicted))
    np.testing.assert_array_equal(found["input"], expected["input"])


def test_a_branch_has_its_share():
    """y = w x + 3 w x: three quarters go through the second branch, all through the cut before both."""
    model = model_of("a = Gemm(x, w)  b = Mul(a, three)  y = Add(a, b)", (2, 3), {"w": np.eye(3), "three": 3.0})
    x = np.abs(RNG.standard_normal((4, 3)))
    found = co.conservation(model, x, "epsilon_plus", layers=["b", "a"])
    np.testing.assert_allclose(found["b"], 0.75, rtol=1e-4)
    np.testing.assert_allclose(found["a"], 1, rtol=1e-4)


def test_losses_say_where():
    found = {"b": np.array([1.0, 1.0]), "a": np.array([0.5, 0.7]), "input": np.array([0.6, 0.6])}
    first, *others = losses(found)
    assert (first.behind, first.before) == ("b", "a") and first.ratio == pytest.approx(0.6)
    assert [one.ratio for one in others] == pytest.approx([1, 1])


def test_a_layer_that_is_not_there(birds, bird_inputs):
    with pytest.raises(InputError, match=r"no tensor or layer 'features\.99'"):
        co.conservation(birds, bird_inputs[:1], FREE, layers=["features.99"])


@pytest.mark.parametrize("bad", [8, -1, [0, 1, 2]])
def test_classes_that_are_not_there(birds, bird_inputs, bad):
    with pytest.raises(InputError, match="class"):
        co.conservation(birds, bird_inputs[:2], FREE, bad)


@pytest.fixture(scope="module", params=["vit", "swin"])
def transformer(request):
    """Small ones with random weights, whose layers have no biases."""
    torch = pytest.importorskip("torch")
    converter = importlib.import_module("craft_onnx_converters.from_torch")
    options = importlib.import_module("craft_onnx_converters.exported").Options(input_shape=(3, 64, 64))
    torch.manual_seed(0)
    net = importlib.import_module("support.torch_families").FAMILIES[request.param]().eval()
    for name, weights in net.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.zeros_(weights)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        return normalize(converter.export_module(net, options).model)


def test_transformers_conserve_up_to_their_tokens(transformer):
    """Attention and normalizations give all on; a class token of the model's own, and only that, keeps its share."""
    x = RNG.standard_normal((4, 3, 64, 64)).astype(np.float32)
    found = co.conservation(transformer, x, FREE)
    has_token = "cat" in found
    names = list(found)[: list(found).index("cat") + 1] if has_token else list(found)
    for name in names:
        np.testing.assert_allclose(found[name], 1, atol=2e-3, err_msg=name)
    assert has_token == (abs(found["input"] - 1).max() > 0.1)


def test_attn_lrp_does_not_conserve(transformer):
    """Softmax has relevance of its own: what is measured is told."""
    x = RNG.standard_normal((4, 3, 64, 64)).astype(np.float32)
    first = "blocks.0" if "blocks.0" in (found := co.conservation(transformer, x, "attn_lrp")) else "stages.0"
    assert 1e-3 < abs(found[first] - 1).max() < 1

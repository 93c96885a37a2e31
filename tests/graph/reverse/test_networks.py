"""Gradients of whole networks: against PyTorch, and against differences of the network itself."""

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from support.gradient_oracle import evaluate, run, run_all
from support.precision import in_double
from support.topologies import LIGHT, fill

from craft_onnx.graph.load import image_input, load, logits_output
from craft_onnx.graph.normalize import normalize
from craft_onnx.graph.reverse.pair import gradient_pair
from craft_onnx.graph.reverse.vjp import gradient_graph

# Float32 rounds to the other side of a kink now and then, in ReLUs and maxima: single numbers of a gradient change
# altogether, the direction of the whole does not.
COSINE = 0.9999
# In float64, a step of 1e-7 is short enough not to cross one, and rounding leaves seven digits.
STEP, DIFFERENCE = 1e-7, 1e-5
# In float32, long steps cross kinks and short ones round. At the best of these, the differences of networks with random
# weights come to within 1e-4 to 1e-2 of their derivative.
STEPS, COARSE = (1e-3, 3e-4, 1e-4, 3e-5), 2e-2


def cosine(one, other):
    one, other = np.ravel(one).astype(np.float64), np.ravel(other).astype(np.float64)
    return one @ other / np.sqrt((one @ one) * (other @ other))


def difference(function, x, direction, step):
    """Of the function along a direction, per step."""
    ahead, behind = (x + step * direction).astype(x.dtype), (x - step * direction).astype(x.dtype)
    return (function(ahead).astype(np.float64) - function(behind)) / (2 * step)


def of_scores(model):
    """The model up to its scores: a Softmax behind them may be flat, and differences would tell nothing."""
    last = logits_output(model).producer()
    if last.op_type == "Softmax":
        model.graph.outputs[0] = last.inputs[0]
    return model


def session(model):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    content = ir.serde.serialize_model(model).SerializeToString()
    return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("path", LIGHT, ids=lambda path: path.stem.removeprefix("light_"))
def test_topologies_of_the_onnx_package(path):
    """Along the gradient, the scores change by its length."""
    model = of_scores(normalize(fill(load(path))))
    name, rng = image_input(model).name, np.random.default_rng(0)
    forward, backward = session(model), session(gradient_graph(model))
    x = rng.standard_normal((1, 3, 224, 224)).astype(np.float32)
    cotangent = rng.standard_normal(forward.run(None, {name: x})[0].shape).astype(np.float32)
    dx = backward.run(None, {name: x, "cotangent": cotangent})[0].astype(np.float64)
    length = np.sqrt((dx**2).mean())
    found = [
        (cotangent * difference(lambda at: forward.run(None, {name: at})[0], x, dx / length, h)).sum() for h in STEPS
    ]
    assert min(abs(one / (dx * dx / length).sum() - 1) for one in found) <= COARSE


def check_in_double(model, shape):
    """The gradient in float64 against a difference along a random direction; that in float32 against it."""
    double, name, rng = in_double(model), image_input(model).name, np.random.default_rng(0)
    x, direction = rng.standard_normal((2, *shape))
    cotangent = rng.standard_normal(evaluate(double, **{name: x}).shape)
    dx = evaluate(gradient_graph(double), **{name: x, "cotangent": cotangent})
    terms = cotangent * difference(lambda at: evaluate(double, **{name: at}), x, direction, STEP)
    assert abs(terms.sum() - (dx * direction).sum()) <= DIFFERENCE * np.sqrt((terms**2).sum())
    feeds = {name: x.astype(np.float32), "cotangent": cotangent.astype(np.float32)}
    assert cosine(run(gradient_graph(model), **feeds), dx) >= COSINE


def test_trained_models(trained):
    model = of_scores(normalize(trained))
    check_in_double(model, (1, *image_input(model).shape[1:]))


def test_torch_exports(net_name, net, torch_net):
    import torch

    module, model = torch_net(net_name), normalize(net(net_name))
    rng = np.random.default_rng(2)
    x, cotangent = (rng.standard_normal(shape).astype(np.float32) for shape in ((3, 3, 32, 32), (3, 5)))
    at = torch.tensor(x, requires_grad=True)
    (expected,) = torch.autograd.grad(module(at), at, torch.tensor(cotangent))
    feeds = {image_input(model).name: x, "cotangent": cotangent}
    found = run(gradient_graph(model), **feeds)
    assert found.shape == x.shape
    assert cosine(found, expected.numpy()) >= COSINE
    assert_pair(model, feeds, found)


def assert_pair(model, feeds, expected):
    """Forward and backward, one after the other, are the combined graph."""
    forward, backward = gradient_pair(model)
    residuals = run_all(forward, **feeds)
    np.testing.assert_array_equal(run(backward, cotangent=feeds["cotangent"], **residuals), expected)

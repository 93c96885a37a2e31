"""Gradient graphs of models in half precision."""

import numpy as np
import pytest
from support.gradient_oracle import assert_close, evaluate, one_node, run, run_all
from support.half import HALF, halved, rounded

from craft_onnx.graph.normalize import normalize
from craft_onnx.graph.reverse.pair import gradient_pair
from craft_onnx.graph.reverse.tensor import RULE_KEY
from craft_onnx.graph.reverse.vjp import gradient_graph
from craft_onnx.graph.values import operators

RNG = np.random.default_rng(2)
# Of float16's rounding, 5e-4, through a few operators; relative to the largest number.
ROUNDING = 5e-3
NETS = ("resnet", "densenet", "vgg", "vit", "convnext", "mlp")

X = RNG.uniform(0.2, 0.9, (2, 4, 6, 6))
W, B, C = RNG.standard_normal((8, 4, 3, 3)), RNG.standard_normal(8), RNG.uniform(0.5, 1.5, 4)
INTS = np.array
ROWS, TABLE = RNG.standard_normal((3, 8)), RNG.standard_normal((5, 8))
UNARY = operators(
    "Relu LeakyRelu Elu Selu Sigmoid HardSigmoid HardSwish Mish Softplus Softsign Tanh Erf Exp Log Sqrt Reciprocal Abs "
    "Neg Sin Cos ThresholdedRelu Flatten Identity"
)
BINARY = operators("Add Sub Mul Div Min Max Sum Mean")
WINDOW = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
SAMPLES = {
    "Conv": ([X, W, B], {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
    "ConvTranspose": ([X, W.transpose(1, 0, 2, 3)], {"strides": [2, 2]}),
    "Gemm": ([ROWS, TABLE, RNG.standard_normal(5)], {"transB": 1, "alpha": 0.5, "beta": 2.0}),
    "MatMul": ([ROWS, TABLE.T], {}),
    "Einsum": ([ROWS, TABLE], {"equation": "ij,kj->ik"}),
    "MaxPool": ([X], WINDOW),
    "AveragePool": ([X], WINDOW),
    "LpPool": ([X], WINDOW),
    "GlobalMaxPool": ([X], {}),
    "GlobalAveragePool": ([X], {}),
    "GlobalLpPool": ([X], {}),
    "BatchNormalization": ([X, C, C, C, C], {}),
    "InstanceNormalization": ([X, C, C], {}),
    "LayerNormalization": ([X, RNG.uniform(0.5, 1, 6), RNG.uniform(0.5, 1, 6)], {}),
    "LpNormalization": ([X], {"axis": 1}),
    "LRN": ([X], {"size": 3}),
    "MeanVarianceNormalization": ([X], {}),
    "Softmax": ([X], {"axis": 1}),
    "LogSoftmax": ([X], {"axis": 1}),
    "PRelu": ([X - 0.5, np.reshape(C, (4, 1, 1))], {}),
    "Clip": ([X, 0.3, 0.7], {}),
    "Pow": ([X, 3.0], {}),
    "Where": ([INTS([True, False, True, True, False, True]), X, X[:1] + 1], {}),
    "Concat": ([X, X + 1], {"axis": 1}),
    "Split": ([X, INTS([4])], {"axis": 1}),
    "Slice": ([X, INTS([1]), INTS([5]), INTS([2]), INTS([2])], {}),
    "Gather": ([X, INTS([0, 2, 2])], {"axis": 1}),
    "GatherElements": ([ROWS, INTS([[0, 2], [2, 1]])], {"axis": 0}),
    "Pad": ([X, INTS([0, 0, 1, 2, 0, 0, 2, 1])], {"mode": "reflect"}),
    "Resize": ([X, None, None, INTS([2, 4, 12, 9])], {"mode": "linear"}),
    "Tile": ([X, INTS([1, 2, 1, 1])], {}),
    "Expand": ([X[:1], INTS([3, 4, 6, 6])], {}),
    "Transpose": ([X], {"perm": [0, 2, 3, 1]}),
    "Reshape": ([X, INTS([2, -1])], {}),
    "DepthToSpace": ([X], {"blocksize": 2}),
    "SpaceToDepth": ([X], {"blocksize": 2}),
    "CumSum": ([X, INTS(1)], {}),
    "ReduceMax": ([X, INTS([1])], {}),
    "ReduceMean": ([X, INTS([2, 3])], {"keepdims": 0}),
    "ReduceProd": ([X, INTS([1])], {}),
    "ReduceL2": ([X, INTS([1])], {}),
    "ReduceLogSumExp": ([X, INTS([1])], {}),
    **dict.fromkeys(sorted(UNARY), ([X], {})),
    **dict.fromkeys(sorted(BINARY), ([X, X[:1] + 1], {})),
}


def cosines(one, other):
    one, other = (array.reshape(len(array), -1).astype(np.float64) for array in (one, other))
    return (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("name", SAMPLES)
def test_operators(name, dynamic):
    """Types fit, onnxruntime takes the graph, and it rounds only."""
    arrays, attributes = SAMPLES[name]
    position = int(name == "Where")
    narrow, wide = (
        one_node(name, arrays, position, attributes, dtype=dtype, dynamic=dynamic) for dtype in (np.float16, np.float32)
    )
    x = arrays[position].astype(np.float16)
    feed = narrow.graph.inputs[0].name
    cotangent = RNG.standard_normal(run(wide, **{feed: x.astype(np.float32)}).shape).astype(np.float16)
    dx = run(gradient_graph(narrow), **{feed: x, "cotangent": cotangent})
    expected = run(gradient_graph(wide), **{feed: x.astype(np.float32), "cotangent": cotangent.astype(np.float32)})
    assert dx.dtype == np.float16
    assert_close(dx, expected, ROUNDING, "float16")


def pictures(model, count=4):
    spec = model.graph.inputs[0]
    return {spec.name: RNG.standard_normal([count, *spec.shape[1:]]).astype(np.float16)}


def with_cotangent(model, feeds):
    y = run(model, **feeds)
    return {**feeds, "cotangent": RNG.standard_normal(y.shape).astype(y.dtype)}


def widened(feeds):
    return {name: array.astype(np.float32) for name, array in feeds.items()}


@pytest.mark.parametrize("keep_io", [False, True])
@pytest.mark.parametrize("name", NETS)
def test_networks(net, name, keep_io):
    """Against the float32 network with the same weights; onnxruntime's CPU provider calculates in float32 inside."""
    real = normalize(net(name))
    narrow = normalize(halved(real, keep_io))
    kind = np.float32 if keep_io else np.float16
    feeds = with_cotangent(real, widened(pictures(real)))
    expected = run(gradient_graph(rounded(real)), **feeds)
    feeds = {key: array.astype(kind) for key, array in feeds.items()}
    whole = gradient_graph(narrow)
    assert [value.dtype.numpy() for value in [*whole.graph.inputs, *whole.graph.outputs]] == [kind] * 3
    # Now and then a unit lies so near to its kink that the other rounding moves it over.
    close = cosines(run(whole, **feeds), expected)
    assert np.median(close) > 0.99999
    assert close.min() > 0.999
    forward, backward = gradient_pair(narrow)
    # Between the two parts, everything is rounded to float16.
    found = run(backward, **(run_all(forward, **feeds) | feeds))
    assert cosines(found, expected).min() > 0.995


@pytest.mark.parametrize("name", ["resnet", "mlp", "vit"])
def test_every_operator_rounding_to_half_precision(net, name):
    """As a machine does it that calculates in float16: ONNX's reference evaluator, one operator after the other."""
    real = normalize(net(name))
    narrow = normalize(halved(real))
    feeds = with_cotangent(narrow, pictures(narrow, 2))
    dx = evaluate(gradient_graph(narrow), **feeds)
    assert dx.dtype == np.float16
    assert cosines(dx, run(gradient_graph(rounded(real)), **widened(feeds))).min() > 0.99


@pytest.mark.parametrize("name", NETS)
def test_sums_are_in_single_precision(net, name):
    """Nothing that the way back adds sums in float16, but for products of matrices and convolutions."""
    whole = gradient_graph(normalize(halved(net(name))))
    emitted = [node for node in whole.graph if RULE_KEY in node.metadata_props]
    sums = [node for node in emitted if node.op_type.startswith("Reduce") or node.op_type == "ScatterElements"]
    kinds = {node.op_type: {one.dtype for one in (node.inputs[0], node.outputs[0])} for node in sums}
    assert all(HALF not in found for found in kinds.values()), kinds


def test_trained_networks(trained):
    real, narrow = normalize(trained), normalize(halved(trained))
    feeds = with_cotangent(narrow, pictures(real, 2))
    dx = run(gradient_graph(narrow), **feeds)
    assert cosines(dx, run(gradient_graph(rounded(real)), **widened(feeds))).min() > 0.9999
    # The weights alone, rounded to float16, move units over their kinks.
    assert cosines(dx, run(gradient_graph(real), **widened(feeds))).min() > 0.95

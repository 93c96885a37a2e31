"""Gradients of normalizations."""

import numpy as np
import onnx_ir as ir
import pytest
from support.gradient_oracle import assert_close, check_node, evaluate, one_node, run

from craft_onnx.errors import UnsupportedOperator
from craft_onnx.graph.reverse.vjp import gradient_graph

torch = pytest.importorskip("torch")
RNG = np.random.default_rng(8)
X = RNG.standard_normal((2, 6, 4, 3)) * 2 + 7
SCALE, BIAS = RNG.standard_normal((2, 6))
MEAN, VARIANCE = RNG.standard_normal(6), RNG.uniform(0.5, 2, 6)

# Of the largest number, for x whose mean is a hundred times its deviation: float32 knows x - mean to 4e-6 of it.
OFFSET = 1e-5
# Float16 has 11 bits: the result is rounded to 5e-4 of itself, and so were x, scale and dy.
HALF = 5e-3


def columns(x, rank):
    return x.reshape(-1, *[1] * (rank - 2))


@pytest.mark.parametrize("shape", [(4, 6), (2, 6, 5), (2, 6, 4, 3), (1, 6, 2, 2, 2)])
def test_batch_normalization(shape):
    def expected(x, scale, bias, mean, variance):
        scale, bias, mean, variance = (columns(one, x.ndim) for one in (scale, bias, mean, variance))
        return (x - mean) / (variance + 1e-3).sqrt() * scale + bias

    arrays = [RNG.standard_normal(shape), SCALE, BIAS, MEAN, VARIANCE]
    check_node("BatchNormalization", arrays, {"epsilon": 1e-3}, wrt=range(5), torch=expected)


def test_batch_normalization_in_training_is_refused():
    model = one_node("BatchNormalization", [X, SCALE, BIAS, MEAN, VARIANCE], attributes={"training_mode": 1}, outputs=3)
    with pytest.raises(UnsupportedOperator, match="it takes its statistics from the batch"):
        gradient_graph(model)


@pytest.mark.parametrize("axis", [-1, 1, 2, 3, -2])
@pytest.mark.parametrize("with_bias", [True, False])
def test_layer_normalization(axis, with_bias):
    shape = X.shape[axis:]
    arrays = [X, RNG.standard_normal(shape), *([RNG.standard_normal(shape)] if with_bias else [])]
    check_node(
        "LayerNormalization",
        arrays,
        {"axis": axis, "epsilon": 1e-3},
        wrt=range(len(arrays)),
        torch=lambda x, scale, bias=None: torch.nn.functional.layer_norm(x, shape, scale, bias, 1e-3),
    )


def test_layer_normalization_with_its_statistics():
    check_node("LayerNormalization", [X, np.ones(3)], outputs=3)
    model = one_node("LayerNormalization", [X, np.ones(3)], outputs=3)
    model.graph.outputs[0] = model.graph.node(0).outputs[1]
    with pytest.raises(UnsupportedOperator, match="it gives its mean or deviation to other layers"):
        gradient_graph(model)


@pytest.mark.parametrize("axis", [-1, 1, 2])
def test_rms_normalization(axis):
    shape = X.shape[axis:]
    check_node(
        "RMSNormalization",
        [X, RNG.standard_normal(shape)],
        {"axis": axis, "epsilon": 1e-3},
        wrt=(0, 1),
        opset=23,
        torch=lambda x, scale: torch.nn.functional.rms_norm(x, shape, scale, 1e-3),
    )


@pytest.mark.parametrize("shape", [(2, 6, 5), (2, 6, 4, 3), (1, 6, 2, 2, 2)])
def test_instance_normalization(shape):
    check_node(
        "InstanceNormalization",
        [RNG.standard_normal(shape), SCALE, BIAS],
        {"epsilon": 1e-3},
        wrt=(0, 1, 2),
        torch=lambda x, scale, bias: torch.nn.functional.instance_norm(x, weight=scale, bias=bias, eps=1e-3),
    )


@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("opset", [18, 21])
def test_group_normalization(groups, opset):
    """Scale and bias have one number per group before opset 21, one per channel since."""
    size, stash = (groups, {}) if opset == 18 else (6, {"stash_type": int(ir.DataType.DOUBLE)})
    repeats = 6 // size
    check_node(
        "GroupNormalization",
        [X, SCALE[:size], BIAS[:size]],
        {"num_groups": groups, "epsilon": 1e-3, **stash},
        wrt=(0, 1, 2),
        opset=opset,
        torch=lambda x, scale, bias: torch.nn.functional.group_norm(
            x, groups, scale.repeat_interleave(repeats), bias.repeat_interleave(repeats), 1e-3
        ),
    )


@pytest.mark.parametrize("axes", [None, [2, 3], [-1]])
def test_mean_variance_normalization(axes):
    over = tuple(axes or (0, 2, 3))

    def expected(x):
        return (x - x.mean(over, keepdim=True)) / x.var(over, keepdim=True, correction=0).sqrt()

    check_node("MeanVarianceNormalization", [X], {} if axes is None else {"axes": axes}, torch=expected)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("beta", [0.75, 0.6])
def test_local_response_normalization(size, beta):
    """PyTorch's window has the odd channel in front where the size is even, ONNX's behind."""
    attributes = {"size": size, "alpha": 0.3, "beta": beta, "bias": 1.5}
    expected = (lambda x: torch.nn.functional.local_response_norm(x, size, 0.3, beta, 1.5)) if size % 2 else None
    check_node("LRN", [X], attributes, torch=expected)


@pytest.mark.parametrize("shape", [(2, 6), (2, 6, 5), (1, 6, 2, 2, 2)])
def test_local_response_normalization_over_other_ranks(shape):
    check_node("LRN", [RNG.standard_normal(shape)], {"size": 3, "alpha": 0.3}, single=len(shape) == 4)


@pytest.mark.parametrize("axis", [-1, 0, 1])
@pytest.mark.parametrize("p", [1, 2])
def test_lp_normalization(axis, p):
    x = RNG.standard_normal((3, 4, 2))
    x += np.sign(x) * 1e-3  # p = 1 has a kink at 0
    check_node(
        "LpNormalization", [x], {"p": p, "axis": axis}, torch=lambda x: torch.nn.functional.normalize(x, p, axis)
    )


@pytest.mark.parametrize("p", [1, 2])
def test_lp_normalization_of_nothing(p):
    """Where x is zero the derivative is taken for zero, as y is."""
    x = np.array([[0.0, 0.0], [3.0, 4.0]])
    dx = evaluate(gradient_graph(one_node("LpNormalization", [x], attributes={"p": p})), input_0=x, cotangent=x + 1)
    assert np.isfinite(dx).all() and not dx[0].any() and dx[1].any()


def exact(op_type, arrays, attributes, opset, cotangent):
    model = gradient_graph(one_node(op_type, arrays, attributes=attributes, opset=opset))
    return evaluate(model, input_0=arrays[0], cotangent=cotangent.astype(np.float64))


NODES = [
    ("LayerNormalization", [np.ones(64)], {}, 18),
    ("InstanceNormalization", [np.ones(8), np.zeros(8)], {}, 18),
    ("GroupNormalization", [np.ones(8), np.zeros(8)], {"num_groups": 2}, 21),
    ("MeanVarianceNormalization", [], {}, 18),
]


@pytest.mark.parametrize(("op_type", "rest", "attributes", "opset"), NODES, ids=[node[0] for node in NODES])
def test_numbers_far_from_zero(op_type, rest, attributes, opset):
    """E[x^2] - E[x]^2 would lose three digits here."""
    x = (RNG.standard_normal((2, 8, 4, 64)) + 100).astype(np.float32)
    cotangent = RNG.standard_normal(x.shape).astype(np.float32)
    model = one_node(op_type, [x, *rest], attributes=attributes, opset=opset, dtype=np.float32)
    found = run(gradient_graph(model), input_0=x, cotangent=cotangent)
    assert_close(found, exact(op_type, [x.astype(np.float64), *rest], attributes, opset, cotangent), OFFSET, op_type)


@pytest.mark.parametrize(
    ("op_type", "rest", "attributes", "opset"),
    [
        *NODES,
        ("LRN", [], {"size": 3}, 18),
        ("LpNormalization", [], {}, 18),
        ("RMSNormalization", [np.ones(64)], {}, 23),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_half_precision(op_type, rest, attributes, opset):
    """Sums run in float32: those of squares would overflow at 65504."""
    x = (RNG.standard_normal((2, 8, 4, 64)) * 30).astype(np.float16)
    cotangent = RNG.standard_normal(x.shape).astype(np.float16)
    model = one_node(op_type, [x.astype(np.float64), *rest], attributes=attributes, opset=opset, dtype=np.float16)
    found = run(gradient_graph(model), input_0=x, cotangent=cotangent)
    assert found.dtype == np.float16
    assert_close(found, exact(op_type, [x.astype(np.float64), *rest], attributes, opset, cotangent), HALF, op_type)

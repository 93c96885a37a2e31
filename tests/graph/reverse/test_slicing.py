"""The gradient of Slice."""

import itertools

import numpy as np
import onnx_ir as ir
import pytest
from support.gradient_oracle import check_model, check_node, evaluate, one_node, run

from craft_onnx.errors import UnsupportedOperator
from craft_onnx.graph.normalize import normalize
from craft_onnx.graph.reverse.vjp import gradient_graph

RNG = np.random.default_rng(4)
FAR = 2**63 - 1


def check_slice(x, starts, ends, axes=None, steps=None, **options):
    arrays = [x, *(None if one is None else np.array(one) for one in (starts, ends, axes, steps))]
    check_node("Slice", arrays, **options)


@pytest.mark.parametrize("step", [1, 2, 3, 7])
@pytest.mark.parametrize(("start", "end"), [(0, FAR), (2, 5), (-3, -1), (-100, 100), (5, 6), (1, -1)])
def test_forwards(start, end, step):
    check_slice(RNG.standard_normal((2, 7)), [start], [end], [1], [step])


@pytest.mark.parametrize("step", [-1, -2, -3, -7])
@pytest.mark.parametrize(("start", "end"), [(-1, -FAR), (4, 1), (-2, -6), (100, -100), (6, 0)])
def test_backwards(start, end, step):
    check_slice(RNG.standard_normal((2, 7)), [start], [end], [-1], [step])


def test_every_slice_of_four():
    """All starts and ends that leave something, all steps: also through onnxruntime."""
    x = np.arange(4.0)
    for start, end, step in itertools.product(range(-5, 6), range(-5, 6), (-3, -2, -1, 1, 2, 3)):
        count = len(range(4)[start:end:step])
        if count and (step > 0 or (start != -5 and end != -5)):  # numpy and ONNX clamp -5 alike, but for steps back
            model = one_node("Slice", [x, *(np.array([one]) for one in (start, end, 0, step))])
            expected = np.zeros(4)
            expected[start:end:step] = np.arange(1, count + 1)
            cotangent = np.arange(1.0, count + 1)
            np.testing.assert_array_equal(evaluate(gradient_graph(model), input_0=x, cotangent=cotangent), expected)


def test_several_axes():
    x = RNG.standard_normal((3, 5, 6))
    check_slice(x, [1, 0], [3, 4])
    check_slice(x, [0, 4, -1], [3, 0, 1], [0, 1, 2], [2, -1, -2])
    check_slice(x, [1, 1], [2, -1], [2, 0], [1, 1])


def test_between_transpositions():
    """Of which onnxruntime moves one over the padding: it then forgets which axes a Pad was told."""
    text = """<ir_version: 10, opset_import: ["": 18]> between (float[N, 4, 6] x) => (float[N, 4, M] y) {
        one = Constant<value_ints = [1]> ()
        three = Constant<value_ints = [3]> ()
        turned = Transpose<perm = [0, 2, 1]> (x)
        part = Slice (turned, one, three, one)
        y = Transpose<perm = [0, 2, 1]> (part)
    }"""
    x, cotangent = RNG.standard_normal((2, 4, 6)).astype(np.float32), np.ones((2, 4, 2), np.float32)
    dx = run(gradient_graph(normalize(ir.from_onnx_text(text))), x=x, cotangent=cotangent)
    np.testing.assert_array_equal(dx, np.broadcast_to([0, 1, 1, 0, 0, 0], (2, 4, 6)))


def test_the_rest_after_one_token():
    """With an open number of positions, as x[:, 1:] in a transformer has."""
    check_slice(RNG.standard_normal((2, 5, 3)), [1], [FAR], [1], dynamic=[True])


@pytest.mark.parametrize(
    ("bounds", "step"), [("half, length", 1), ("zero, half", 1), ("minus, half", -2), ("minus, length", 1)]
)
def test_computed_bounds(bounds, step):
    text = f"""<ir_version: 10, opset_import: ["" : 18]> g (T[2, n] x) => (T[2, m] y)
        <int64[1] zero = {{0}}, int64[1] two = {{2}}, int64[1] minus = {{-1}},
         int64[1] axis = {{1}}, int64[1] step = {{{step}}}>
        {{ length = Shape <start=1> (x) half = Div (length, two) y = Slice (x, {bounds}, axis, step) }}"""

    def build(dtype):
        return ir.from_onnx_text(text.replace("T[", "double[" if dtype == np.float64 else "float["))

    check_model(build, RNG.standard_normal((2, 7)))


def test_computed_steps_are_refused():
    model = ir.from_onnx_text("""<ir_version: 10, opset_import: ["" : 18]> g (float[n, 4] x) => (float[n, m] y)
        <int64[1] one = {1}, int64[1] four = {4}> { step = Shape <end=1> (x) y = Slice (x, one, four, one, step) }""")
    with pytest.raises(UnsupportedOperator, match="it computes its step sizes"):
        gradient_graph(model)

"""Fixing the size of pictures: what follows from it, and what stays."""

import numpy as np
import onnx_ir as ir
import pytest

from craft_onnx.graph.input_shape import with_input_shape
from craft_onnx.graph.values import dimensions
from craft_onnx.runtime.proof import session_of

HEAD = '<ir_version: 10, opset_import: ["" : 18]> net (float[N,3,H,W] x) => (float[N,K] y)'
READ = {
    "gather": ("s = Shape(x) i = Constant<value=int64 {2}>() d = Gather<axis=0>(s, i)", 8),
    "gather_from_start": ("s = Shape<start=2>(x) i = Constant<value=int64[1] {1}>() d = Gather(s, i)", 6),
    "gather_negative": ("s = Shape(x) i = Constant<value=int64 {-1}>() d = Gather<axis=0>(s, i)", 6),
    "slice": (
        "s = Shape(x) a = Constant<value=int64[1] {1}>() b = Constant<value=int64[1] {3}>() e = Slice(s, a, b)"
        " d = ReduceProd<keepdims=0>(e)",
        24,
    ),
    "batch": ("s = Shape(x) i = Constant<value=int64 {0}>() d = Gather<axis=0>(s, i)", None),
}


def network(read):
    mean = "ax = Constant<value=int64[2] {2, 3}>() y = ReduceMean<keepdims=0>(p, ax)"
    return ir.from_onnx_text(f"{HEAD} {{ {read} f = Cast<to=1>(d) p = Mul(x, f) {mean} }}")


@pytest.mark.parametrize("name", READ)
def test_sizes_that_are_read_become_constants(name):
    model = network(READ[name][0])
    operators = [node.op_type for node in model.graph]
    fixed = with_input_shape(model, (3, 8, 6))
    assert [node.op_type for node in model.graph] == operators
    assert dimensions(model.graph.inputs[0]) == ("N", 3, "H", "W")
    assert dimensions(fixed.graph.inputs[0]) == ("N", 3, 8, 6)
    reads = [node for node in fixed.graph if node.op_type == "Shape"]
    assert bool(reads) == (READ[name][1] is None)
    x = np.random.default_rng(0).random((2, 3, 8, 6), np.float32)
    (expected,) = session_of(model).run({"x": x})
    (found,) = session_of(fixed).run({"x": x})
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_allclose(found, x.mean(axis=(2, 3)) * (READ[name][1] or 2), rtol=1e-5)


def test_what_the_model_says_itself_stays():
    model = network(READ["gather"][0])
    assert dimensions(with_input_shape(model, (4, 8, 6)).graph.inputs[0]) == ("N", 3, 8, 6)
    assert dimensions(with_input_shape(model, (8, 6)).graph.inputs[0]) == ("N", 3, "H", "W")

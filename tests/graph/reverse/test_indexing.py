"""Gradients of operators that pick single positions, or write to them."""

import numpy as np
import onnx_ir as ir
import pytest
from support.gradient_oracle import check_model, check_node, one_node, run

from craft_onnx.errors import UnsupportedOperator
from craft_onnx.graph.reverse.vjp import gradient_graph

torch = pytest.importorskip("torch")
RNG = np.random.default_rng(5)
X = RNG.standard_normal((4, 4, 4))


def operators_of(model):
    return {node.op_type for node in gradient_graph(model).graph}


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize(
    "indices",
    [
        0,
        -1,
        [2],
        [-1],
        [1, 2, 3],
        [-3, -2],
        [-1, 0],
        [3, 0],
        [2, 1, 0],
        [0, 0, 0, 1],
        [[0, 1], [3, 3]],
        [[-1], [2]],
        [1, 3, 0, 2],
    ],
)
def test_gather(indices, axis):
    check_node("Gather", [X, np.array(indices)], {"axis": axis})


def test_gather_agrees_with_pytorch():
    check_node("Gather", [X, np.array([3, 1, 1])], {"axis": 1}, torch=lambda x, i: x.index_select(1, i))


@pytest.mark.parametrize("indices", ["Constant <value_ints=[0, 2, 0]> ()", "ArgMax <axis=1, keepdims=0> (positive)"])
def test_gather_at_computed_positions(indices):
    """The indices depend on x, too, but no derivative goes through them."""
    text = f"""<ir_version: 10, opset_import: ["" : 18]> g (T[3, n] x) => (T[i, j, k] y)
        {{ positive = Abs (x) at = {indices} y = Gather <axis=1> (x, at) }}"""

    def build(dtype):
        kind = "double" if dtype == np.float64 else "float"
        return ir.from_onnx_text(text.replace("T[", f"{kind}[").replace("i, j, k", "i, j"))

    check_model(build, RNG.standard_normal((3, 4)))


def test_special_forms_of_gather():
    """A position or a run of them is put back by padding; a permutation is undone; many to few are added up."""
    x = np.zeros((2, 6))
    for indices in (0, [3, 4], -1):
        assert operators_of(one_node("Gather", [x, np.array(indices)], attributes={"axis": 1})) <= {"Pad", "Unsqueeze"}
    permutation = one_node("Gather", [x, np.array([5, 0, 1, 2, 3, 4])], attributes={"axis": 1})
    assert operators_of(permutation) == {"Gather"}
    one_only = one_node("Gather", [x, np.array([5] * 500 + [0])], attributes={"axis": 1})
    assert "ScatterElements" in operators_of(one_only)


def test_no_addition_is_lost():
    """Many threads adding to few places: onnxruntime's ScatterND loses some, so it is not used for sums."""
    count = 100_000
    indices = RNG.integers(0, 3, count)
    text = f"""<ir_version: 10, opset_import: ["" : 18]> g (float[3, 4] x, int64[{count}] at) => (float[{count}, 4] y)
        {{ y = Gather (x, at) }}"""
    model = ir.from_onnx_text(text)
    at = model.graph.inputs.pop()
    at.const_value = ir.tensor(indices, name="at")
    model.graph.register_initializer(at)
    found = run(gradient_graph(model), x=np.zeros((3, 4), np.float32), cotangent=np.ones((count, 4), np.float32))
    np.testing.assert_array_equal(found, np.bincount(indices)[:, None].repeat(4, 1))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_gather_elements(axis):
    indices = np.array([[[0, -1, 1], [1, 1, 1]], [[2, 0, 0], [0, 0, 1]]])
    check_node("GatherElements", [X, indices], {"axis": axis})


def test_gather_elements_agrees_with_pytorch():
    indices = RNG.integers(0, 4, (4, 4, 4))
    check_node("GatherElements", [X, indices], {"axis": 1}, torch=lambda x, i: x.gather(1, i))


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("reduction", ["none", "add"])
def test_scatter_elements(axis, reduction):
    indices = np.stack([RNG.permuted(np.arange(4)[:3]) for _ in range(9)]).reshape(3, 3, 3)
    places = np.moveaxis(indices, -1, axis)
    check_node(
        "ScatterElements",
        [X, places, RNG.standard_normal((3, 3, 3))],
        {"axis": axis, "reduction": reduction},
        wrt=(0, 2),
    )


def test_scatter_elements_adds_several_to_one_place():
    arrays = [X, np.zeros((2, 3, 1), np.int64), RNG.standard_normal((2, 3, 1))]
    check_node("ScatterElements", arrays, {"axis": 2, "reduction": "add"}, wrt=(0, 2))


@pytest.mark.parametrize(
    ("indices", "batch_dims"),
    [
        ([[0, 1], [2, -1], [0, 1]], 0),
        ([[[0, 1, 2]], [[3, -1, 0]]], 0),
        ([[2]], 0),
        ([[[0], [2]], [[1], [1]], [[3], [-1]], [[0], [0]]], 1),
        (RNG.integers(-4, 4, (4, 4, 2, 1)), 2),
        (RNG.integers(-4, 4, (4, 2)), 1),
    ],
)
def test_gather_nd(indices, batch_dims):
    check_node("GatherND", [X, np.array(indices)], {"batch_dims": batch_dims})


@pytest.mark.parametrize(
    ("indices", "reduction"),
    [
        ([[0], [2]], "none"),
        ([[0, 1], [2, 2]], "none"),
        ([[1, 1, 0]], "none"),
        ([[0], [2]], "add"),
        ([[0, 1], [0, 1]], "add"),
    ],
)
def test_scatter_nd(indices, reduction):
    indices = np.array(indices)
    updates = RNG.standard_normal((len(indices), *X.shape[indices.shape[1] :]))
    check_node("ScatterND", [X, indices, updates], {"reduction": reduction}, wrt=(0, 2))


def test_other_reductions_are_refused():
    for op_type, indices, updates in (("ScatterND", [[0]], X[:1]), ("ScatterElements", [[[0]]], X[:1, :1, :1])):
        model = one_node(op_type, [X, np.array(indices), updates], attributes={"reduction": "max"})
        with pytest.raises(UnsupportedOperator, match="writes with reduction 'max'"):
            gradient_graph(model)


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("largest", [0, 1])
def test_top_k(axis, largest):
    check_node(
        "TopK",
        [X, np.array([3])],
        {"axis": axis, "largest": largest},
        torch=lambda x, k: x.topk(3, axis, bool(largest)).values,
        outputs=2,
    )


@pytest.mark.parametrize("axis", [None, 0, -1])
@pytest.mark.parametrize("condition", [[True, False, True], [False, True, True, False]])
def test_compress(axis, condition):
    check_node("Compress", [X, np.array(condition)], {} if axis is None else {"axis": axis})

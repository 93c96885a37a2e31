"""Gradients of operators that only move, copy or drop numbers."""

import itertools

import numpy as np
import onnx_ir as ir
import pytest
from support.gradient_oracle import check_model, check_node, evaluate, one_node

from craft_onnx.errors import UnsupportedOperator
from craft_onnx.graph.reverse.vjp import gradient_graph

torch = pytest.importorskip("torch")
RNG = np.random.default_rng(3)


def numbers(*shape):
    return RNG.standard_normal(shape)


def parsed(text):
    """A model from ONNX text in float32, or float64."""

    def build(dtype):
        kind = "double" if dtype == np.float64 else "float"
        return ir.from_onnx_text(text.replace("T[", f"{kind}["))

    return build


@pytest.mark.parametrize("perm", [None, [0, 2, 1], [2, 0, 1], [1, 2, 0], [2, 1, 0], [0, 1, 2]])
def test_transpose(perm):
    attributes = {} if perm is None else {"perm": perm}
    check_node("Transpose", [numbers(2, 3, 4)], attributes, torch=lambda x: x.permute(perm or (2, 1, 0)))


@pytest.mark.parametrize("shape", [[2, 12], [-1], [0, -1], [4, 0, 2], [1, 2, 1, 12]])
def test_reshape(shape):
    check_node("Reshape", [numbers(2, 3, 4), np.array(shape)])


def test_reshape_of_nothing():
    """With `allowzero` a 0 is a length; a gradient with nothing in it has its shape all the same."""
    model = one_node("Reshape", [np.zeros((0, 3)), np.array([3, 0])], attributes={"allowzero": 1})
    dx = evaluate(gradient_graph(model), input_0=np.zeros((0, 3)), cotangent=np.zeros((3, 0)))
    assert dx.shape == (0, 3)


def test_the_shape_of_a_flat_batch_is_known_without_looking_at_it():
    """One open length needs no Shape, so that the backward part of a pair needs no input for it."""
    graph = gradient_graph(
        ir.from_onnx_text(
            '<ir_version: 10, opset_import: ["" : 18]> g (float[n, 3, 2] x) => (float[n, 6] y) { y = Flatten (x) }'
        )
    )
    assert [node.op_type for node in graph.graph] == ["Reshape"]


@pytest.mark.parametrize(
    ("op_type", "arrays", "attributes"),
    [
        ("Flatten", [numbers(2, 3, 4)], {"axis": 2}),
        ("Flatten", [numbers(2, 3, 4)], {"axis": 0}),
        ("Flatten", [numbers(2, 3, 4)], {"axis": -1}),
        ("Squeeze", [numbers(2, 1, 3, 1), np.array([-1])], {}),
        ("Squeeze", [numbers(2, 1, 3, 1), np.array([1, 3])], {}),
        ("Unsqueeze", [numbers(2, 3), np.array([0, -1])], {}),
        ("Identity", [numbers(2, 3)], {}),
        ("Dropout", [numbers(2, 3), np.array(0.5, np.float32)], {}),
        ("Dropout", [numbers(2, 3), None, np.array(False)], {}),
    ],
)
def test_the_same_numbers(op_type, arrays, attributes):
    check_node(op_type, arrays, attributes)


def test_squeeze_of_all_axes_of_length_1():
    check_node("Squeeze", [numbers(2, 1, 3, 1)], dynamic=[False])


def test_dropout_in_training_is_refused():
    with pytest.raises(UnsupportedOperator, match=r"Dropout 'node'.*may drop numbers at random"):
        gradient_graph(one_node("Dropout", [numbers(2), None, np.array(True)]))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_concat(axis):
    parts = [np.moveaxis(numbers(n, 2, 3), 0, axis) for n in (2, 1, 4)]
    check_node("Concat", parts, {"axis": axis}, wrt=(0, 1, 2), torch=lambda *x: torch.cat(x, axis))


@pytest.mark.parametrize(
    ("split", "used"),
    [
        ("<axis=1>(x, sizes)", "abc"),
        ("<axis=-2, num_outputs=3>(x)", "abc"),
        ("<axis=1>(x, sizes)", "a"),
        ("<axis=1, num_outputs=3>(x)", "b"),
        ("<axis=1>(x, sizes)", "ac"),
        ("<axis=1>(x, sizes)", "bc"),
    ],
)
@pytest.mark.parametrize("shape", ["2, 5, 3", "n, m, k"])
def test_split(split, used, shape):
    """Into (2, 2, 1) positions, by sizes or by number; pieces that nothing uses take none of the cotangent."""
    total = " ".join(
        f"y{i} = {'Identity' if i == 0 else 'Concat <axis=1>'} ({f'y{i - 1}, ' if i else ''}{piece})"
        for i, piece in enumerate(used)
    )
    text = f"""<ir_version: 10, opset_import: ["" : 18]> g (T[{shape}] x) => (T[i, j, k] y{len(used) - 1})
        <int64[3] sizes = {{2, 2, 1}}> {{ a, b, c = Split {split} {total} }}"""
    check_model(parsed(text), numbers(2, 5, 3))


@pytest.mark.parametrize(("shape", "to"), [((3, 1), [2, 1, 4]), ((3, 1), [3, 4]), ((1,), [2, 2]), ((2, 3), [1, 1])])
def test_expand(shape, to):
    check_node("Expand", [numbers(*shape), np.array(to)])


@pytest.mark.parametrize("repeats", [[2, 1, 3], [1, 1, 1], [1, 4, 1]])
def test_tile(repeats):
    check_node("Tile", [numbers(2, 3, 4), np.array(repeats)], torch=lambda x, r: x.tile(r.tolist()))


def test_tile_computed():
    text = """<ir_version: 10, opset_import: ["" : 18]> g (T[2, n] x) => (T[i, j] y)
        { size = Shape (x) y = Tile (x, size) }"""
    check_model(parsed(text), numbers(2, 3))


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
@pytest.mark.parametrize("block", [2, 3])
def test_depth_to_space(mode, block):
    expected = (lambda x: torch.nn.functional.pixel_shuffle(x, block)) if mode == "CRD" else None
    x = numbers(2, 2 * block**2, 3, 2)
    check_node("DepthToSpace", [x], {"blocksize": block, "mode": mode}, torch=expected)


def test_space_to_depth():
    check_node("SpaceToDepth", [numbers(2, 3, 4, 2)], {"blocksize": 2})
    # Too new for the runtime.
    check_node("SpaceToDepth", [numbers(2, 3, 4, 2)], {"blocksize": 2, "mode": "CRD"}, opset=28, single=False)


@pytest.mark.parametrize(("upper", "diagonal"), list(itertools.product([0, 1], [None, -1, 0, 2])))
def test_trilu(upper, diagonal):
    triangle = torch.triu if upper else torch.tril
    check_node(
        "Trilu",
        [numbers(2, 3, 4), None if diagonal is None else np.array(diagonal)],
        {"upper": upper},
        torch=lambda x, k: triangle(x, int(k or 0)),
    )


@pytest.mark.parametrize("attributes", [{}, {"batch_axis": 0, "time_axis": 1}])
def test_reverse_sequence(attributes):
    check_node("ReverseSequence", [numbers(3, 3, 2), np.array([2, 3, 1])], attributes)

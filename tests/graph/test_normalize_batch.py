import numpy as np
import onnx_ir as ir
import pytest
from support.gradient_oracle import run

from craft_onnx.errors import InputError
from craft_onnx.graph.load import check, image_input, logits_output
from craft_onnx.graph.normalize import normalize

RNG = np.random.default_rng(0)


def f4(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def model_of(body, shape, output, arrays=None, opset=18, free=None):
    """A model for a fixed batch; `free` names the first dimension instead."""
    arrays = {} if arrays is None else arrays
    dims = ", ".join([str(free or shape[0]), *map(str, shape[1:])])
    kinds = {"f": "float", "i": "int64"}
    inputs = [f"{kinds[a.dtype.kind]}[{', '.join(map(str, a.shape))}] {name}" for name, a in arrays.items()]
    model = ir.from_onnx_text(f"""
        <ir_version: 8, opset_import: ["" : {opset}]>
        g ({", ".join([f"float[{dims}] x", *inputs])}) => (float[{", ".join(map(str, output))}] y) {{ {body} }}""")
    for value in list(model.graph.inputs)[1:]:
        value.const_value = ir.tensor(arrays[value.name], name=value.name)
        model.graph.inputs.remove(value)
        model.graph.register_initializer(value)
    return model


def i8(*numbers):
    return np.array(numbers, np.int64)


# Body, shape of x behind the batch, shape of y behind the batch, initializers as a function of the batch size.
FREED = {
    "two axes": ("y = Reshape(x, s)", (4, 3), (12,), lambda b: {"s": i8(b, 12)}),
    "a rest": ("y = Reshape(x, s)", (4, 3), (12,), lambda b: {"s": i8(b, -1)}),
    "the rest is the batch": ("y = Reshape(x, s)", (4, 3), (12,), lambda b: {"s": i8(-1, 12)}),
    "copied": ("y = Reshape(x, s)", (4, 3), (2, 6), lambda b: {"s": i8(0, 2, -1)}),
    "tokens in one axis and back": (
        "a = Reshape(x, s)  m = MatMul(a, w)  y = Reshape(m, t)",
        (4, 3), (4, 2),
        lambda b: {"s": i8(4 * b, 3), "t": i8(b, 4, 2), "w": np.arange(6, dtype=np.float32).reshape(3, 2)},
    ),
    "shuffled channels": (
        "a = Reshape(x, s)  t = Transpose <perm = [0, 2, 1, 3]> (a)  y = Reshape(t, u)",
        (6, 5), (6, 5),
        lambda b: {"s": i8(b, 2, 3, 5), "u": i8(b, 6, 5)},
    ),
    "batch in the middle": (
        "a = Transpose <perm = [1, 0, 2]> (x)  h = Reshape(a, s)  r = Relu(h)  j = Reshape(r, t)"
        "  y = Transpose <perm = [1, 0, 2]> (j)",
        (4, 6), (4, 6),
        lambda b: {"s": i8(4, 2 * b, 3), "t": i8(4, b, 6)},
    ),
    "merged with the tokens before it": (
        "a = Transpose <perm = [1, 0, 2]> (x)  h = Reshape(a, s)  m = MatMul(h, w)  j = Reshape(m, t)"
        "  y = Transpose <perm = [1, 0, 2]> (j)",
        (4, 6), (4, 2),
        lambda b: {"s": i8(4 * b, 6), "t": i8(4, b, 2), "w": np.arange(12, dtype=np.float32).reshape(6, 2)},
    ),
    "class token": (
        "c = Concat <axis = 1> (k, x)  y = Relu(c)",
        (4, 3), (5, 3),
        lambda b: {"k": np.broadcast_to(np.float32([[[1, 2, 3]]]), (b, 1, 3)).copy()},
    ),
    "expanded": ("y = Expand(x, s)", (1, 3), (4, 3), lambda b: {"s": i8(b, 4, 3)}),
    "resized to sizes": (
        "y = Resize <mode = \"nearest\"> (x, , , s)", (2, 4, 4), (2, 8, 6), lambda b: {"s": i8(b, 2, 8, 6)},
    ),
    "one row for every picture": (
        "y = Add(x, k)", (4, 3), (4, 3), lambda b: {"k": np.ones((b, 4, 3), np.float32)},
    ),
    "a bias for every picture": (
        "y = Gemm(x, w, k)", (3,), (2,), lambda b: {"w": np.ones((3, 2), np.float32), "k": np.ones((b, 2), np.float32)},
    ),
    "as many inputs as pictures": (  # constants of the same length, that mean something else
        "m = MatMul(x, w)  y = Add(m, k)", (3,), (3,),
        lambda b: {"w": np.arange(9, dtype=np.float32).reshape(3, 3), "k": np.arange(3, dtype=np.float32)},
    ),
    "shape asked for": (
        "s = Shape(x)  n = Slice(s, zero, one)  t = Concat <axis = 0> (n, rest)  y = Reshape(x, t)",
        (4, 3), (12,), lambda b: {"zero": i8(0), "one": i8(1), "rest": i8(-1)},
    ),
    "flattened": ("y = Flatten(x)", (4, 3), (12,), lambda b: {}),
}  # fmt: skip


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", FREED)
def test_a_fixed_batch_is_freed(name, batch, run):
    body, shape, output, arrays = FREED[name]
    fixed = model_of(body, (batch, *shape), (batch, *output), arrays(batch))
    free = normalize(fixed)
    assert free.graph.inputs[0].shape[0] == "batch" and logits_output(free).shape[0] == "batch"
    check(free)
    x = f4(3 * batch, *shape)
    expected = [run(fixed, rows) for rows in np.split(x, 3)]
    np.testing.assert_allclose(run(free, x), np.concatenate(expected), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(run(free, x[:1]), np.concatenate(expected)[:1], rtol=1e-6, atol=1e-6)


FIXED = {
    "sum over the batch": ("y = ReduceSum <keepdims = 0> (x, s)", (2, 4), (4,), {"s": i8(0)}, "ReduceSum 'y'"),
    "the first picture": ("y = Gather <axis = 0> (x, s)", (2, 4), (1, 4), {"s": i8(0)}, "Gather 'y'"),
    "two rows for a picture": ("y = Reshape(x, s)", (2, 4), (4, 2), {"s": i8(4, 2)}, "no row for every picture"),
    "one row for all": ("f = Flatten <axis = 0> (x)  y = Relu(f)", (2, 4), (1, 8), {}, "no row for every picture"),
    "axes torn apart": ("y = Reshape(x, s)", (2, 6), (3, 4), {"s": i8(3, 4)}, r"from \(2, 6\) to \(3, 4\) mixes"),
    "rows that differ": ("y = Add(x, k)", (2, 2), (2, 2), {"k": np.eye(2, dtype=np.float32)}, "in different ways"),
    "stacked on the batch": ("y = Concat <axis = 0> (x, k)", (2, 4), (3, 4), {"k": f4(1, 4)}, "joins pictures"),
}


@pytest.mark.parametrize("name", FIXED)
def test_a_batch_that_cannot_be_freed_is_refused_with_the_reason(name):
    body, shape, output, arrays, reason = FIXED[name]
    model = model_of(body, shape, output, arrays)
    with pytest.raises(InputError, match=reason) as caught:
        normalize(model)
    assert "dynamic batch" in caught.value.remedy


def test_a_free_batch_gets_its_name_everywhere(run):
    model = model_of("a = Relu(x)  y = Flatten(a)", (2, 4, 3), ("m", 12), free="N")
    free = normalize(model)
    assert image_input(free).shape == ir.Shape(["batch", 4, 3])
    assert [str(node.outputs[0].shape) for node in free.graph] == ["[batch,4,3]", "[batch,12]"]


def test_a_batch_of_unknown_length_gets_the_name(run):
    model = model_of("y = Relu(x)", (2, 4), ("n", 4), free="N")
    model.graph.inputs[0].shape = ir.Shape([None, 4])
    assert str(normalize(model).graph.outputs[0].shape) == "[batch,4]"


def test_a_batch_called_free_and_fixed_inside(run):
    model = model_of("r = Relu(x)  y = Reshape(r, s)", (1, 4, 3), ("n", 12), {"s": i8(1, 12)}, free="n")
    free, x = normalize(model), f4(5, 4, 3)
    np.testing.assert_array_equal(run(free, x), np.maximum(x, 0).reshape(5, 12))


def test_reshapes_to_the_batch_size_become_constants(run):
    """So that the head behind a cut needs no tensor in front of it."""
    body = "s = Shape <end = 1> (x)  t = Concat <axis = 0> (s, rest)  r = Relu(x)  y = Reshape(r, t)"
    free = normalize(model_of(body, (2, 4, 3), ("n", 12), {"rest": i8(12)}, free="n"))
    assert [node.op_type for node in free.graph] == ["Relu", "Reshape"]
    x = f4(3, 4, 3)
    np.testing.assert_array_equal(run(free, x), np.maximum(x, 0).reshape(3, 12))


def test_an_input_without_a_shape():
    model = model_of("y = Relu(x)", (2, 4), (2, 4))
    model.graph.inputs[0].shape = None
    with pytest.raises(InputError, match="shape of the model's input"):
        normalize(model)


# As PyTorch's exporter writes x.shape: of tokens (N, 4, 6), two heads of 3.
ARITHMETIC = """
    s = Shape(x)  n = Gather(s, zero)  t = Gather(s, one)  w = Gather(s, two)  d = Div(w, two)
    n1 = Unsqueeze(n, first)  t1 = Unsqueeze(t, first)  d1 = Unsqueeze(d, first)  w1 = Unsqueeze(w, first)
    apart = Concat <axis = 0> (n1, t1, heads, d1)  again = Concat <axis = 0> (n1, t1, w1)
"""
NUMBERS = {"zero": np.array(0), "one": np.array(1), "two": np.array(2), "first": i8(0), "heads": i8(2)}


def settled(body, output, **arrays):
    """A model with its batch free, normalized, and whether its outputs are as before for several sizes."""
    model = model_of(ARITHMETIC + body, (1, 4, 6), ("N", *output), NUMBERS | arrays, free="N")
    after = normalize(model)
    for batch in (2, 6):
        x = f4(batch, 4, 6)
        np.testing.assert_array_equal(run(after, x=x), run(model, x=x))
    return after


def operators_of(model):
    return {node.op_type for node in model.graph}


def test_arithmetic_on_shapes_is_done_now():
    """Also where ONNX's inference does not follow it: it knows no Div."""
    after = settled(
        "r = Reshape(x, apart)  p = Transpose <perm = [0, 2, 1, 3]> (r)  e = Exp(p)"
        "  b = Transpose <perm = [0, 2, 1, 3]> (e)  y = Reshape(b, again)",
        (4, 6),
    )
    assert operators_of(after) == {"Reshape", "Transpose", "Exp"}
    assert {str(node.outputs[0].shape) for node in after.graph} == {"[batch,4,2,3]", "[batch,2,4,3]", "[batch,4,6]"}


def test_a_class_token_for_as_many_pictures_as_there_are():
    after = settled(
        "r = Reshape(x, apart)  q = Reshape(r, again)  size = Concat <axis = 0> (n1, heads, w1)"
        "  k = Expand(token, size)  y = Concat <axis = 1> (k, q)",
        (6, 6),
        token=np.ones((1, 1, 6), np.float32),
    )
    assert [str(node.outputs[0].shape) for node in after.graph if node.op_type == "Concat"][-1] == "[batch,6,6]"


STAYS_OPEN = {
    "pairs of pictures": (
        "half = Div(n1, heads)  pairs = Concat <axis = 0> (half, rest)  r = Reshape(x, pairs)  e = Exp(r)"
        "  y = Reshape(e, again)",
        (4, 6), {"rest": i8(-1)},
    ),
    "a number for every picture": (
        "r = Reshape(x, apart)  q = Reshape(r, again)  i = Range(zero, n, one)  f = Cast <to = 1> (i)"
        "  u = Unsqueeze(f, axes)  y = Add(q, u)",
        (4, 6), {"axes": i8(1, 2)},
    ),
    "states that start at zero": (
        "r = Reshape(x, apart)  q = Reshape(r, again)  p = Transpose <perm = [1, 0, 2]> (q)"
        "  size = Concat <axis = 0> (directions, n1, hidden)  h = ConstantOfShape(size)"
        "  all, y_h = RNN <hidden_size = 3> (p, wi, wr, , , h)  y = Squeeze(y_h, first)",
        (3,), {"directions": i8(1), "hidden": i8(3), "wi": f4(1, 3, 6), "wr": f4(1, 3, 3)},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("body", "output", "arrays"), STAYS_OPEN.values(), ids=STAYS_OPEN)
def test_what_one_batch_size_does_not_tell_stays_as_it_is(body, output, arrays):
    assert "Shape" in operators_of(settled(body, output, **arrays))

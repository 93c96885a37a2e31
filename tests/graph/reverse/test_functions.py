"""Operators that have no rule and are functions of operators that have one."""

import numpy as np
import onnx_ir as ir
import pytest
import torch
from support.gradient_oracle import SINGLE, assert_close, check_node, evaluate, one_node, run
from torch.nn import functional

from craft_onnx.errors import UnsupportedOperator
from craft_onnx.graph.load import check
from craft_onnx.graph.names import layers_of, record_layers
from craft_onnx.graph.reverse.functions import inline_functions
from craft_onnx.graph.reverse.gradients import GRADIENTS
from craft_onnx.graph.reverse.rules import Rules
from craft_onnx.graph.reverse.vjp import gradient_graph
from craft_onnx.graph.values import with_shapes

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.standard_normal(shape)


X = np.round(normal(2, 6, 5, 4), 2) + 0.003  # away from kinks
# Of 16 features: the body takes the square root of 1 / sqrt(16) in float32.
Q, K, V = normal(2, 4, 5, 16), normal(2, 4, 6, 16), normal(2, 4, 6, 2)
MASK = normal(5, 6)
VISIBLE = np.tril(np.ones((5, 6), bool))


def attention(q, k, v, mask=None, **options):
    return functional.scaled_dot_product_attention(q, k, v, mask, **options)


def packed(x):
    """(N, heads, length, size) -> (N, length, heads * size)."""
    return x.transpose(0, 2, 1, 3).reshape(x.shape[0], x.shape[2], -1)


def on_packed(function, heads):
    """The same function on packed queries, keys and values."""

    def run(q, k, v, *rest):
        q, k, v = (x.unflatten(2, (n, -1)).transpose(1, 2) for x, n in zip((q, k, v), heads, strict=True))
        return function(q, k, v, *rest).transpose(1, 2).flatten(2)

    return run


def softcapped(q, k, v):
    scores = 2 * torch.tanh(q @ k.transpose(-1, -2) / 4 / 2)
    return scores.softmax(-1) @ v


GROUPED = [Q, K[:, :2], V[:, :2]]
ATTENTIONS = {
    "plain": ([Q, K, V], {}, attention),
    "scale": ([Q, K, V], {"scale": 0.0625}, lambda q, k, v: attention(q, k, v, scale=0.0625)),
    "mask": ([Q, K, V, MASK], {}, attention),
    "visible": ([Q, K, V, VISIBLE], {}, attention),
    "causal": ([Q, K, V], {"is_causal": 1}, lambda q, k, v: attention(q, k, v, is_causal=True)),
    "softcap": ([Q, K, V], {"softcap": 2.0}, softcapped),
    "grouped": (GROUPED, {}, lambda q, k, v: attention(q, k, v, enable_gqa=True)),
    "packed": (
        [packed(Q), packed(K), packed(V)],
        {"q_num_heads": 4, "kv_num_heads": 4},
        on_packed(attention, (4, 4, 4)),
    ),
    "packed causal mask": (
        [packed(Q), packed(K), packed(V), MASK],
        {"q_num_heads": 4, "kv_num_heads": 4, "is_causal": 1},
        on_packed(
            lambda q, k, v, mask: attention(q, k, v, mask.masked_fill(~torch.tensor(VISIBLE), -np.inf)), (4, 4, 4)
        ),
    ),
}


@pytest.mark.parametrize(
    ("form", "opset"), [*((form, 23) for form in ATTENTIONS), ("mask", 24), ("packed causal mask", 26)]
)
def test_attention(form, opset):
    arrays, attributes, function = ATTENTIONS[form]
    wrt = [position for position, array in enumerate(arrays) if array.dtype.kind == "f"]
    check_node("Attention", arrays, attributes, wrt=wrt, opset=opset, torch=function)


def test_attention_with_a_free_batch_alone():
    """As models have it: the number of pictures is open, everything else is known."""
    model = one_node("Attention", [Q, K, V], opset=23, dtype=np.float32)
    x = model.graph.inputs[0]
    x.shape = ir.Shape(["batch", *Q.shape[1:]])
    graph = gradient_graph(model)
    found = run(graph, input_0=Q.astype(np.float32), cotangent=np.ones((2, 4, 5, 2), np.float32))
    q = torch.tensor(Q, requires_grad=True)
    attention(q, torch.tensor(K), torch.tensor(V)).sum().backward()
    assert_close(found, q.grad.numpy(), 1e-5, "PyTorch")


def standardized(x, axes=(0, 2, 3)):
    mean = x.mean(axes, keepdim=True)
    return (x - mean) / ((x - mean) ** 2).mean(axes, keepdim=True).sqrt()


ROW, SCALES = normal(4), (normal(6), normal(6))
# Inputs, attributes, opset, the same by PyTorch, inputs to differentiate to.
FUNCTIONS = {
    "Mish": ([X], {}, 18, functional.mish, [0]),
    "Swish": ([X], {}, 24, functional.silu, [0]),
    "Softsign": ([X], {}, 18, functional.softsign, [0]),
    "Selu": ([X], {}, 18, None, [0]),
    "Clip": ([X, np.array(-0.5), np.array(0.7)], {}, 18, torch.clamp, [0]),
    "SwiGLU": ([X, X[::-1].copy()], {}, 28, lambda a, b: functional.silu(a) * b, [0, 1]),
    "GroupNormalization": (
        [X, *SCALES],
        {"num_groups": 3, "epsilon": 0.0625, "stash_type": 11},
        21,
        lambda x, w, b: functional.group_norm(x, 3, w, b, 0.0625),
        [0, 1, 2],
    ),
    "ReduceL1": ([X, np.array([1, 3])], {"keepdims": 0}, 18, lambda x, axes: x.abs().sum((1, 3)), [0]),
    "ReduceSumSquare": ([X, np.array([2])], {}, 18, lambda x, axes: (x * x).sum(2, keepdim=True), [0]),
    "ReduceLogSum": ([abs(X) + 1, np.array([2])], {}, 18, lambda x, axes: x.sum(2, keepdim=True).log(), [0]),
    "ReduceLogSumExp": ([X, np.array([2])], {}, 18, lambda x, axes: x.logsumexp(2, keepdim=True), [0]),
    "CenterCropPad": (
        [X, np.array([3, 6])],
        {"axes": [2, 3]},
        18,
        lambda x, shape: functional.pad(x[:, :, 1:4], (1, 1)),
        [0],
    ),
}
# Those whose bodies calculate in float32, or have constants of this type, whatever they are given.
SINGLE_FUNCTIONS = {
    "HardSwish": ([X], {}, 18, functional.hardswish, [0]),
    "Celu": ([X], {}, 18, functional.celu, [0]),
    "MeanVarianceNormalization": ([X], {}, 18, standardized, [0]),
    "LayerNormalization": (
        [X, ROW, ROW],
        {},
        18,
        lambda x, w, b: functional.layer_norm(x, (4,), w, b, 1e-5),
        [0, 1, 2],
    ),
    "RMSNormalization": ([X, ROW], {}, 23, lambda x, w: functional.rms_norm(x, (4,), w, 1e-5), [0, 1]),
}
BODIES_ALONE = {"SwiGLU"}  # too new for the runtime


def without(*names):
    """The derivatives without the rules of some operators."""
    return Rules(
        "less", {name: GRADIENTS._table["", name] for name in GRADIENTS.operators - {*names}}, GRADIENTS._stops
    )


@pytest.mark.parametrize("op_type", FUNCTIONS)
def test_bodies(op_type):
    """Through the body, whether or not there is a rule."""
    arrays, attributes, opset, function, wrt = FUNCTIONS[op_type]
    single = op_type not in BODIES_ALONE
    check_node(op_type, arrays, attributes, opset=opset, torch=function, wrt=wrt, single=single, rules=without(op_type))


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("op_type", SINGLE_FUNCTIONS)
def test_bodies_in_float32(op_type, dynamic):
    arrays, attributes, opset, function, wrt = SINGLE_FUNCTIONS[op_type]
    for at in wrt:
        given = [torch.tensor(array, requires_grad=position == at) for position, array in enumerate(arrays)]
        y = function(*given)
        cotangent = normal(*y.shape)
        (expected,) = torch.autograd.grad(y, given[at], torch.tensor(cotangent))
        model = one_node(op_type, arrays, at, attributes, opset=opset, dtype=np.float32, dynamic=dynamic)
        feeds = {f"input_{at}": arrays[at].astype(np.float32), "cotangent": cotangent.astype(np.float32)}
        found = run(gradient_graph(model, rules=without(op_type)), **feeds)
        assert_close(found, expected.numpy(), SINGLE, "float32")


def two_layers(op_type="Attention", opset=23):
    """A model of two named nodes of an operator, weights in between."""
    q, w = (
        ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT))
        for name, shape in (("q", ("batch", 4, 5, 16)), ("w", (16, 16)))
    )
    w.const_value = ir.tensor(normal(16, 16).astype(np.float32), name="w")
    first = ir.node(op_type, [q, q, q], name="/block1/attn/Attention")
    product = ir.node("MatMul", [first.outputs[0], w], name="/block1/proj/MatMul")
    second = ir.node(op_type, [product.outputs[0]] * 3, name="/block2/attn/Attention")
    for node in (first, product, second):
        node.outputs[0].name = f"{node.name}_output_0"
    nodes = [first, product, second]
    graph = ir.Graph([q], second.outputs, nodes=nodes, initializers=[w], opset_imports={"": opset}, name="two")
    second.outputs[0].type = q.type
    model = ir.Model(graph, ir_version=10)
    record_layers(model)
    return with_shapes(model)


def test_the_nodes_of_a_body_answer_to_the_layers_of_the_operator():
    inlined = inline_functions(two_layers(), GRADIENTS)
    check(inlined)
    layers = [set(layers_of(node)) for node in inlined.graph]
    assert all(
        any("block1.attn" in layer for layer in one) or "block1" in str(one) or "block2" in str(one) for one in layers
    )
    softmax = [layers_of(node)[-1] for node in inlined.graph if node.op_type == "Softmax"]
    assert [name.split(".")[0] for name in softmax] == ["block1", "block2"]


def test_names_of_tensors_outside_stay():
    before, after = two_layers(), inline_functions(two_layers(), GRADIENTS)
    names = {value.name for node in after.graph for value in node.outputs}
    assert names >= {node.outputs[0].name for node in before.graph}
    assert [value.name for value in after.graph.outputs] == [value.name for value in before.graph.outputs]


def test_weights_are_shared_and_the_model_is_not_changed():
    model = two_layers()
    before = ir.serde.serialize_model(model).SerializeToString()
    inlined = inline_functions(model, GRADIENTS)
    assert inlined.graph.initializers["w"].const_value is model.graph.initializers["w"].const_value
    assert ir.serde.serialize_model(model).SerializeToString() == before


def test_inlining_computes_the_same():
    model = two_layers()
    x = normal(3, 4, 5, 16).astype(np.float32)
    assert_close(run(inline_functions(model, GRADIENTS), q=x), run(model, q=x), 1e-6, "the body")


@pytest.mark.parametrize("opset", range(23, 27))
def test_the_opset_stays(opset):
    assert inline_functions(two_layers(opset=opset), GRADIENTS).opset_imports == {"": opset}


def test_what_has_a_rule_stays():
    rules = Rules("own", {"Attention": lambda step, dy: [dy, None, None]}, base=GRADIENTS)
    assert [node.op_type for node in inline_functions(two_layers(), rules).graph] == [
        "Attention",
        "MatMul",
        "Attention",
    ]


def test_weights_beyond_two_gigabytes():
    """Without ever being read: they lie in a file that does not exist."""
    model = two_layers()
    large = ir.ExternalTensor("missing.bin", 0, 3 * 2**30, ir.DataType.FLOAT, shape=ir.Shape([16, 16]), name="w")
    model.graph.initializers["w"].const_value = large
    inlined = inline_functions(model, GRADIENTS)
    assert inlined.graph.initializers["w"].const_value is large


def test_half_precision():
    x = normal(2, 4, 5, 16)
    found = {}
    for dtype in (np.float16, np.float32):
        model = one_node("RMSNormalization", [x, normal(16) * 0 + 0.5], opset=23, dtype=dtype)
        graph = gradient_graph(model, rules=without("RMSNormalization"))
        assert graph.graph.outputs[0].dtype == ir.DataType.from_numpy(np.dtype(dtype))
        found[dtype] = run(graph, input_0=x.astype(dtype), cotangent=np.ones_like(x, dtype))
    assert_close(found[np.float16], found[np.float32], 5e-3, "half precision")


def test_random_functions_and_dynamic_quantization_are_not_looked_into():
    model = with_shapes(one_node("DynamicQuantizeLinear", [X], dtype=np.float32, outputs=3))
    assert [node.op_type for node in inline_functions(model, GRADIENTS).graph] == ["DynamicQuantizeLinear"]
    model = with_shapes(one_node("Bernoulli", [X], dtype=np.float32))
    assert [node.op_type for node in inline_functions(model, GRADIENTS).graph] == ["Bernoulli"]


@pytest.mark.parametrize("op_type", FUNCTIONS)
def test_values_of_bodies(op_type):
    arrays, attributes, opset, *_ = FUNCTIONS[op_type]
    model = with_shapes(one_node(op_type, arrays, 0, attributes, opset=opset))
    inlined = inline_functions(model, without(op_type))
    assert op_type not in [node.op_type for node in inlined.graph]
    assert_close(evaluate(inlined, input_0=arrays[0]), evaluate(model, input_0=arrays[0]), 1e-7, op_type)


def test_an_operator_without_a_body_for_its_type_is_named():
    """ONNX's LayerNormalization has none for float64 within."""
    model = one_node("LayerNormalization", [X, ROW], attributes={"stash_type": 11}, opset=18)
    with pytest.raises(UnsupportedOperator, match="LayerNormalization"):
        gradient_graph(model, rules=without("LayerNormalization"))


def test_an_operator_that_the_inliner_cannot_do_is_named():
    """It wants the type of every input, also of those left out before one that is given."""
    arrays = [Q, K, V, None, normal(2, 4, 2, 16), normal(2, 4, 2, 2)]
    model = one_node("Attention", arrays, opset=23)
    with pytest.raises(UnsupportedOperator, match=r"ai\.onnx::Attention \(node 'node'"):
        gradient_graph(model)

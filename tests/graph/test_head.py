"""Folded heads against h((u * m) W), evaluated as it stands."""

import numpy as np
import onnx_ir as ir
import pytest

from craft_onnx.errors import InputError
from craft_onnx.graph.cuts import find_cuts, recommended_cut
from craft_onnx.graph.head import fold_concepts
from craft_onnx.graph.load import check
from craft_onnx.graph.normalize import normalize
from craft_onnx.graph.split import split

CONCEPTS = 4
# float32: the folded graph sums in another order than the whole one.
CLOSE = 1e-5


def coefficients(h, channel_axis, rng, count=3):
    """Masked coefficients u * m at every position, channels last, and a bank W."""
    sizes = list(h.graph.inputs[0].shape)
    positions = [size for axis, size in enumerate(sizes) if axis not in (0, channel_axis)]
    u = rng.exponential(size=(count, *positions, CONCEPTS)) * rng.random(size=(count, *[1] * len(positions), CONCEPTS))
    return u.astype(np.float32), rng.random(size=(CONCEPTS, sizes[channel_axis])).astype(np.float32)


def assert_folds(h, channel_axis, run, class_id, seed=0):
    u, w = coefficients(h, channel_axis, np.random.default_rng(seed))
    expected = run(h, np.ascontiguousarray(np.moveaxis(u @ w, -1, channel_axis)))
    folded = fold_concepts(h, w, class_id, channel_axis)
    given = u.reshape(len(u), -1, CONCEPTS).mean(1) if folded.pooled else u
    expected = expected if class_id is None else expected[:, class_id]
    actual = run(folded.model, given)
    assert actual.shape == expected.shape and actual.dtype == np.float32
    assert np.abs(actual - expected).max() <= CLOSE * np.abs(expected).max()
    if folded.linear:
        assert_affine(folded, given, run)
    return folded


def assert_affine(folded, u, run):
    """y(0.3 u + 0.7 v) = 0.3 y(u) + 0.7 y(v)."""
    v = u[::-1].copy()
    both = 0.3 * run(folded.model, u) + 0.7 * run(folded.model, v)
    np.testing.assert_allclose(run(folded.model, np.float32(0.3) * u + np.float32(0.7) * v), both, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("class_id", [None, 2])
def test_every_cut_of_every_family(any_net, run, class_id):
    for cut in find_cuts(any_net):
        _, h = split(any_net, cut.tensor)
        folded = assert_folds(h, cut.channel_axis, run, class_id)
        names = [value.name for value in (*folded.model.graph.inputs, *folded.model.graph.outputs)]
        assert names == ["u", "y"]


@pytest.mark.parametrize("class_id", [None, 2])
def test_folded_heads_of_normalized_models_pass_all_checks(any_net, run, class_id):
    model = normalize(any_net)
    for cut in find_cuts(model)[-4:]:
        check(assert_folds(split(model, cut.tensor)[1], cut.channel_axis, run, class_id).model)


# What the cuts before the heads must give: pooled, linear, operators for one class.
KINDS = {
    ("resnet", "relu_7"): (True, True, ["Gemm", "Reshape"]),
    ("densenet", "cat_5"): (True, False, ["Gemm", "Relu", "Gemm", "Reshape"]),
    ("mobilenet", "hardtanh_1"): (True, False, ["Gemm", "Reshape", "HardSwish", "Conv", "Reshape"]),
    ("vgg", "max_pool2d_1"): (False, False, ["Reshape", "Gemm", "Relu", "Gemm", "Reshape"]),
    ("flat", "relu_1"): (False, True, ["Reshape", "Gemm", "Reshape"]),
    ("convnext", "relu"): (True, False, None),
    ("vit", "layer_norm_4"): (False, True, None),  # the class token alone is read
    ("vit_mean", "relu"): (True, True, ["Gemm", "Reshape"]),
    ("mlp", "relu"): (False, True, ["Gemm", "Reshape"]),
}


@pytest.mark.parametrize(("name", "tensor"), KINDS)
def test_pooled_and_linear_heads_are_recognised(net, run, name, tensor):
    cut = next(cut for cut in find_cuts(net(name)) if cut.tensor == tensor)
    folded = assert_folds(split(net(name), tensor)[1], cut.channel_axis, run, 1)
    pooled, linear, operators = KINDS[name, tensor]
    assert (folded.pooled, folded.linear) == (pooled, linear)
    assert len(folded.model.graph.inputs[0].shape) == (2 if pooled else len(cut.shape))
    if operators:
        assert [node.op_type for node in folded.model.graph] == operators


@pytest.mark.parametrize("class_id", [None, 0, 1])
def test_small_trained_models(trained, run, class_id):
    cut = recommended_cut(trained)
    folded = assert_folds(split(trained, cut.tensor)[1], 1, run, class_id)
    assert folded.pooled and folded.linear
    assert sum(value.const_value.size for value in folded.model.graph.initializers.values()) <= 5005


def head(parse, body, run, axis=1, shape="N,6,4,4", classes=5, opset=20, bank=None, **arrays):
    """Fold a head given as ONNX text, for all classes and for one."""
    given = "".join(f", float[{','.join(map(str, array.shape))}] {name}" for name, array in arrays.items())
    header = f'<ir_version: 9, opset_import: ["" : {opset}]> h (float[{shape}] a{given}) => (float[N,{classes}] y)'
    h = parse(f"{header} {{ {body} }}", **arrays)
    folded = [assert_folds(h, axis, run, class_id) for class_id in (None, classes - 1)]
    assert (folded[0].pooled, folded[0].linear) == (folded[1].pooled, folded[1].linear)
    return folded[1]


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


POOLED_LINEAR = {
    "global pooling": "p = GlobalAveragePool(a) f = Flatten(p) y = Gemm(f, w, b)",
    "mean, axes gone": "i = Constant<value_ints = [2, 3]>() f = ReduceMean<keepdims = 0>(a, i) y = Gemm(f, w, b)",
    "mean, axes counted from the end": "i = Constant<value_ints = [-1, -2]>() f = ReduceMean<keepdims = 0>(a, i) "
    "y = Gemm(f, w, b)",
    "one mean after the other": "i = Constant<value_ints = [3]>() j = Constant<value_ints = [2]>() "
    "e = ReduceMean<keepdims = 0>(a, i) f = ReduceMean<keepdims = 0>(e, j) y = Gemm(f, w, b)",
    "a window as large as the map": "p = AveragePool<kernel_shape = [4, 4]>(a) f = Flatten(p) y = Gemm(f, w, b)",
    "squeeze": "p = GlobalAveragePool(a) i = Constant<value_ints = [2, 3]>() f = Squeeze(p, i) y = Gemm(f, w, b)",
    "transposed to channels last": "t = Transpose<perm = [0, 2, 3, 1]>(a) i = Constant<value_ints = [1, 2]>() "
    "f = ReduceMean<keepdims = 0>(t, i) y = Gemm(f, w, b)",
    "positions merged": "s = Constant<value_ints = [0, 6, 16]>() r = Reshape(a, s) i = Constant<value_ints = [2]>() "
    "f = ReduceMean<keepdims = 0>(r, i) y = Gemm(f, w, b)",
    "positions merged, channels last": "t = Transpose<perm = [0, 2, 3, 1]>(a) s = Constant<value_ints = [0, -1, 6]>() "
    "r = Reshape(t, s) i = Constant<value_ints = [1]>() f = ReduceMean<keepdims = 0>(r, i) y = Gemm(f, w, b)",
    "batch size from the activations": "p = GlobalAveragePool(a) n = Shape<start = 0, end = 1>(a) "
    "c = Constant<value_ints = [6]>() s = Concat<axis = 0>(n, c) f = Reshape(p, s) y = Gemm(f, w, b)",
    "all sizes from the activations": "s = Shape(a) z = Constant<value_ints = [0, 1]>() t = Gather(s, z) "
    "p = GlobalAveragePool(a) f = Reshape(p, t) y = Gemm(f, w, b)",
    "scaled per channel": "e = Mul(a, v) r = Add(v, e) p = GlobalAveragePool(r) f = Flatten(p) y = Gemm(f, w, b)",
    "MatMul and Add": "p = GlobalAveragePool(a) f = Flatten(p) m = MatMul(f, w) y = Add(b, m)",
    "scaled logits": "p = GlobalAveragePool(a) f = Flatten(p) m = Gemm(f, w, b) k = Constant<value = float {2.0}>() "
    "d = Sub(k, m) y = Div(d, k)",
    "logits reshaped": "p = GlobalAveragePool(a) f = Flatten(p) m = Gemm(f, w, b) s = Constant<value_ints = [-1, 5]>() "
    "y = Reshape(m, s)",
    "dropout": "p = GlobalAveragePool(a) f = Flatten(p) d, mask = Dropout(f) y = Gemm(d, w, b)",
    "identity": "i = Identity(a) p = GlobalAveragePool(i) f = Flatten(p) d = Identity(f) m = Gemm(d, w, b) "
    "y = Identity(m)",
    "no bias": "p = GlobalAveragePool(a) f = Flatten(p) y = Gemm(f, w)",
    "two linear layers": "p = GlobalAveragePool(a) f = Flatten(p) m = Gemm(f, v, c) y = Gemm(m, w, b)",
    "a pointwise convolution and a linear layer": "e = Conv(a, v, c) p = GlobalAveragePool(e) f = Flatten(p) "
    "y = Gemm(f, w, b)",
    "scaled Gemm": "p = GlobalAveragePool(a) f = Flatten(p) y = Gemm<alpha = 0.5, beta = 2.0>(f, w, b)",
}


@pytest.mark.parametrize("body", POOLED_LINEAR.values(), ids=POOLED_LINEAR)
def test_heads_that_pool_and_are_linear(parse, run, body):
    arrays = {"w": normal(6, 5), "b": normal(5, seed=1)}
    if "(a, v)" in body:
        arrays["v"] = normal(1, 6, 1, 1, seed=2)
    if ", v, c)" in body:
        arrays |= {"v": normal(6, 6, 1, 1, seed=2) if "Conv" in body else normal(6, 6, seed=2), "c": normal(6, seed=3)}
    if ", b)" not in body and "(b," not in body:
        del arrays["b"]
    folded = head(parse, body, run, **arrays)
    assert folded.pooled and folded.linear
    assert folded.model.graph.inputs[0].shape[1:] == (CONCEPTS,)


@pytest.mark.parametrize("body", ["f = Flatten(a) y = Gemm(f, w, b)", "f = Flatten(a) m = MatMul(f, w) y = Add(m, b)"])
def test_linear_layers_on_all_positions_are_linear_and_not_pooled(parse, run, body):
    folded = head(parse, body, run, w=normal(96, 5), b=normal(5, seed=1))
    assert folded.linear and not folded.pooled
    assert folded.model.graph.inputs[0].shape[1:] == (4, 4, CONCEPTS)


def test_pointwise_convolutions_commute_with_pooling(parse, run):
    body = "c = Conv(a, w, b) p = GlobalAveragePool(c) y = Flatten(p)"
    folded = head(parse, body, run, w=normal(5, 6, 1, 1), b=normal(5, seed=1))
    assert folded.pooled and folded.linear


def test_convolutions_behind_the_pooling_keep_one_class(parse, run):
    body = "p = GlobalAveragePool(a) c = Conv(p, w, b) y = Flatten(c)"
    folded = head(parse, body, run, w=normal(5, 6, 1, 1), b=normal(5, seed=1))
    assert folded.pooled and folded.linear
    assert sum(value.const_value.size for value in folded.model.graph.initializers.values()) < 20


def test_channels_last_activations(parse, run):
    body = "i = Constant<value_ints = [1, 2]>() f = ReduceMean<keepdims = 0>(a, i) y = Gemm(f, w, b)"
    folded = head(parse, body, run, axis=3, shape="N,4,4,6", w=normal(6, 5), b=normal(5, seed=1))
    assert folded.pooled and folded.linear


def test_old_opsets(parse, run):
    body = "f = ReduceMean<axes = [2, 3], keepdims = 0>(a) y = Gemm(f, w, b)"
    folded = head(parse, body, run, opset=13, w=normal(6, 5), b=normal(5, seed=1))
    assert folded.pooled and folded.linear


NOT_POOLED = {
    "greatest value": "p = GlobalMaxPool(a) f = Flatten(p) y = Gemm(f, w, b)",
    "not linear before": "r = Sigmoid(a) p = GlobalAveragePool(r) f = Flatten(p) y = Gemm(f, w, b)",
    "a smaller window": "p = AveragePool<kernel_shape = [3, 3]>(a) q = GlobalMaxPool(p) f = Flatten(q) "
    "y = Gemm(f, w, b)",
    "rows only": "i = Constant<value_ints = [2]>() p = ReduceMean(a, i) q = GlobalMaxPool(p) f = Flatten(q) "
    "y = Gemm(f, w, b)",
    "two readers": "p = GlobalAveragePool(a) q = GlobalMaxPool(a) s = Add(p, q) f = Flatten(s) y = Gemm(f, w, b)",
    "positions weighted": "m = Mul(a, v) p = GlobalAveragePool(m) f = Flatten(p) y = Gemm(f, w, b)",
    "spatial convolution": "c = Conv<pads = [1, 1, 1, 1]>(a, v) p = GlobalAveragePool(c) f = Flatten(p) "
    "y = Gemm(f, w, b)",
}


@pytest.mark.parametrize("name", NOT_POOLED)
def test_heads_that_need_every_position(parse, run, name):
    arrays = {"w": normal(6, 5), "b": normal(5, seed=1)}
    if name == "positions weighted":
        arrays["v"] = normal(1, 1, 4, 4, seed=2)
    if name == "spatial convolution":
        arrays["v"] = normal(6, 6, 3, 3, seed=2)
    folded = head(parse, NOT_POOLED[name], run, **arrays)
    assert not folded.pooled
    assert folded.linear == (name in ("positions weighted", "spatial convolution"))
    assert folded.model.graph.inputs[0].shape[1:] == (4, 4, CONCEPTS)


NOT_LINEAR = {
    "a product with itself": "p = GlobalAveragePool(a) f = Flatten(p) g = Mul(f, f) y = Gemm(g, w, b)",
    "normalized": "p = GlobalAveragePool(a) f = Flatten(p) s = Softmax(f) y = Gemm(s, w, b)",
    "in the denominator": "p = GlobalAveragePool(a) f = Flatten(p) k = Constant<value = float {1.0}>() "
    "g = Add(f, k) r = Div(k, g) y = Gemm(r, w, b)",
    "clipped": "p = GlobalAveragePool(a) f = Flatten(p) z = Constant<value = float {1.0}>() g = Clip(f, z) "
    "y = Gemm(g, w, b)",
}


@pytest.mark.parametrize("body", NOT_LINEAR.values(), ids=NOT_LINEAR)
def test_heads_that_are_not_linear(parse, run, body):
    folded = head(parse, body, run, w=normal(6, 5), b=normal(5, seed=1))
    assert folded.pooled and not folded.linear


def test_a_head_that_does_not_end_in_a_linear_layer(parse, run):
    body = "p = GlobalAveragePool(a) f = Flatten(p) m = Gemm(f, w, b) y = Softmax(m)"
    folded = head(parse, body, run, w=normal(6, 5), b=normal(5, seed=1))
    assert folded.pooled and [node.op_type for node in folded.model.graph][-1] == "Gather"


def test_a_graph_may_use_the_new_names_already(parse, run):
    body = "u = GlobalAveragePool(a) concept_bank = Flatten(u) y = Gemm(concept_bank, w, b)"
    assert head(parse, body, run, w=normal(6, 5), b=normal(5, seed=1)).pooled


def test_folding_leaves_h_as_it_is(net):
    _, h = split(net("mobilenet"), "hardtanh_1")
    before = ir.serde.serialize_model(h).SerializeToString()
    fold_concepts(h, np.ones((4, 16), np.float32), 0, 1)
    assert ir.serde.serialize_model(h).SerializeToString() == before


def test_what_cannot_be_folded_is_refused(net):
    _, h = split(net("resnet"), "relu_7")
    bank = np.ones((4, 16), np.float32)
    for wrong, message in (
        (bank[:, :15], r"15 columns, the activations have 16 channels"),
        (bank[0], r"shape \(16,\) is no matrix"),
        (bank * np.nan, r"no matrix of finite numbers"),
        (bank[:0], r"shape \(0, 16\) is no matrix"),
    ):
        with pytest.raises(InputError, match=message):
            fold_concepts(h, wrong, 0, 1)
    for class_id in (5, -1):
        with pytest.raises(InputError, match=rf"no class {class_id}\. Classes go from 0 to 4"):
            fold_concepts(h, bank, class_id, 1)
    with pytest.raises(InputError, match="Axis 4 of activations"):
        fold_concepts(h, bank, 0, 4)

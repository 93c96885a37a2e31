"""Halves of models: h(g(x)) = f(x) at every cut, and nothing is lost or carried along."""

import numpy as np
import onnx_ir as ir
import pytest

from craft_onnx.errors import InputError
from craft_onnx.graph.cuts import find_cuts, recommended_cut
from craft_onnx.graph.load import check
from craft_onnx.graph.names import layers_of
from craft_onnx.graph.normalize import normalize
from craft_onnx.graph.split import segment, split

# The halves run the same float32 operators as the whole; onnxruntime fuses some differently.
CLOSE = 2e-6


def assert_halves(model, tensor, run, shape):
    g, h = split(model, tensor)
    for count in (1, 3):
        x = np.random.default_rng(count).normal(size=(count, *shape)).astype(np.float32)
        expected, actual = run(model, x), run(h, run(g, x))
        assert np.abs(actual - expected).max() <= CLOSE * np.abs(expected).max(), tensor
    return g, h


def test_every_cut_of_every_family(any_net, run):
    for cut in find_cuts(any_net):
        assert_halves(any_net, cut.tensor, run, (3, 32, 32))


def test_halves_of_normalized_models_pass_all_checks(any_net, run):
    model = normalize(any_net)
    for cut in find_cuts(model):
        for half in assert_halves(model, cut.tensor, run, (3, 32, 32)):
            check(half)


def test_the_segment_between_two_cuts_of_every_family(any_net, run):
    cuts = find_cuts(any_net)
    first, last = cuts[0].tensor, cuts[-1].tensor
    (g_first, _), (g_last, _) = split(any_net, first), split(any_net, last)
    between = segment(any_net, first, last)
    check(between)
    x = np.random.default_rng(0).normal(size=(3, 3, 32, 32)).astype(np.float32)
    expected, actual = run(g_last, x), run(between, run(g_first, x))
    assert np.abs(actual - expected).max() <= CLOSE * np.abs(expected).max()
    with pytest.raises(InputError, match="does not come behind"):
        segment(any_net, last, first)


def test_what_is_read_of_one_token_is_computed_for_that_token(net, run):
    """In a second half that has the last layer; the segment up to a tensor of that layer has all of its tokens."""
    model = normalize(net("vit"))
    tokens = ir.Shape(["batch", 17, 12])
    cuts = [cut.tensor for cut in find_cuts(model) if str(shape_of(model, cut.tensor)) == str(tokens)]
    _, h = assert_halves(model, cuts[0], run, (3, 32, 32))
    assert str(shape_of(h, cuts[-1])) == "[batch,1,12]"
    assert str(segment(model, cuts[0], cuts[-1]).graph.outputs[0].shape) == str(tokens)


def shape_of(model, name):
    return next(value.shape for node in model.graph for value in node.outputs if value.name == name)


def test_small_trained_models(trained, run):
    tensor = recommended_cut(trained).tensor
    g, h = assert_halves(trained, tensor, run, trained.graph.inputs[0].shape[1:])
    assert len(g.graph) + len(h.graph) == len(trained.graph)


def names(model):
    return {value.name for value in model.graph.initializers.values()}


def test_each_half_has_only_the_weights_it_uses(net):
    model = net("resnet")
    g, h = split(model, "relu_2")
    shared = names(g) & names(h)
    assert names(g) | names(h) == names(model)
    assert "stem.0.weight" in names(g) - names(h) and "fc.weight" in names(h) - names(g)
    assert shared == set()


def test_weights_that_both_halves_use_are_in_both(parse, run):
    model = parse(
        """<ir_version: 9, opset_import: ["" : 20]> g (float[N,4] x, float[4,4] w) => (float[N,4] y) {
        a = MatMul(x, w) b = Relu(a) y = MatMul(b, w) }""",
        w=np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32),
    )
    g, h = assert_halves(model, "b", run, (4,))
    assert names(g) == names(h) == {"w"}


def test_names_layers_and_dynamic_batch_survive(net):
    model = net("resnet")
    g, h = split(model, "relu_2")
    assert g.graph.outputs[0].name == h.graph.inputs[0].name == "relu_2"
    assert g.graph.inputs[0].name == model.graph.inputs[0].name
    assert h.graph.outputs[0].name == model.graph.outputs[0].name
    batch = model.graph.inputs[0].shape[0]
    assert h.graph.inputs[0].shape == g.graph.outputs[0].shape == ir.Shape([batch, 8, 16, 16])
    assert h.graph.inputs[0].dtype == g.graph.outputs[0].dtype == ir.DataType.FLOAT
    layers = {layer for half in (g, h) for node in half.graph for layer in layers_of(node)}
    assert layers == {layer for node in model.graph for layer in layers_of(node)}


def test_the_model_stays_as_it_is(net):
    model = net("vit")
    before = ir.serde.serialize_model(model).SerializeToString()
    split(model, "add_94")
    assert ir.serde.serialize_model(model).SerializeToString() == before


@pytest.mark.parametrize(
    "reading",
    [
        "s = Shape(x)",
        "n = Shape<start = 0, end = 1>(x) r = Constant<value_ints = [4, 6, 6]>() s = Concat<axis = 0>(n, r)",
        "m = Shape(x) i = Constant<value_ints = [0]>() n = Gather(m, i) r = Constant<value_ints = [4, 36]>() "
        "s = Concat<axis = 0>(n, r)",
    ],
)
def test_a_batch_size_read_before_the_cut_is_read_from_the_cut(parse, run, reading):
    sizes = "N,4,36" if "36" in reading else "N,4,6,6"
    header = f'<ir_version: 9, opset_import: ["" : 20]> g (float[N,4,6,6] x) => (float[{sizes}] y)'
    model = parse(f"{header} {{ {reading} f = Flatten(x) b = Relu(f) y = Reshape(b, s) }}")
    _, h = assert_halves(model, "b", run, (4, 6, 6))
    assert [value.name for value in h.graph.inputs] == ["b"]


def test_a_tensor_that_is_no_cut_is_refused(net):
    with pytest.raises(InputError, match="'relu_1' does not separate the graph"):
        split(net("resnet"), "relu_1")
    with pytest.raises(InputError, match="no tensor 'layer9' inside the model"):
        split(net("resnet"), "layer9")
    output = net("resnet").graph.outputs[0].name
    with pytest.raises(InputError, match="inside the model"):
        split(net("resnet"), output)

"""Cuts against a literal search for paths around every tensor, and what users' names for them mean."""

import numpy as np
import onnx_ir as ir
import pytest

from craft_onnx.errors import InputError
from craft_onnx.graph.cuts import find_cuts, recommended_cut, resolve_cut, signed_cut
from craft_onnx.graph.flow import Flow

HEADER = '<ir_version: 9, opset_import: ["" : 20]> g (float[N,4,6,6] x) => (float[N,4,6,6] y)'


def separates(model, tensor):
    """Literally: no path from the image to the logits goes around the tensor."""
    reached, stack = set(), [model.graph.inputs[0]]
    while stack:
        value = stack.pop()
        if value.name == tensor or value in reached:
            continue
        reached.add(value)
        stack += [output for node in value.consumers() for output in node.outputs]
    return model.graph.outputs[0] not in reached


def random_model(seed, count=30):
    """Nodes that add, concatenate nothing, or work on constants; several lead nowhere."""
    rng = np.random.default_rng(seed)
    image = ir.Value(name="x", shape=ir.Shape(["N", 4]), type=ir.TensorType(ir.DataType.FLOAT))
    weight = ir.Value(name="w", const_value=ir.tensor(np.ones(4, np.float32), name="w"))
    values, nodes, still = [image], [], [weight]
    for index in range(count):
        output = ir.Value(name=f"v{index}")
        pool = still if rng.random() < 0.1 else values
        inputs = [pool[-1 - min(int(rng.exponential(0.7)), len(pool) - 1)] for _ in range(2)]
        inputs = inputs[:1] if rng.random() < 0.6 else [inputs[0], still[-1] if rng.random() < 0.2 else inputs[1]]
        nodes.append(ir.node(["Relu", "Add"][len(inputs) - 1], inputs, outputs=[output]))
        (still if pool is still else values).append(output)
    graph = ir.Graph([image], [values[-1]], nodes=nodes, initializers=[weight], opset_imports={"": 20}, name="random")
    values[-1].type = image.type
    return ir.Model(graph, ir_version=10)


@pytest.mark.parametrize("start", range(0, 300, 100))
def test_separators_are_the_tensors_that_no_path_goes_around(start):
    found = 0
    for seed in range(start, start + 100):
        model = random_model(seed)
        inside = [value.name for node in model.graph for value in node.outputs][:-1]
        expected = [name for name in inside if separates(model, name)]
        if model.graph.outputs[0].name in expected:
            expected.remove(model.graph.outputs[0].name)
        actual = [value.name for value in Flow(model).separators]
        # what does not depend on the picture, or leads nowhere, cannot be gone through by any path
        assert actual == expected, seed
        found += len(actual)
    assert found > 100


def shuffle(model, rng):
    """Another execution order: any node next whose inputs are there."""
    waiting = list(model.graph)
    model.graph.remove(waiting)
    while waiting:
        made = {value for node in model.graph for value in node.outputs}
        ready = [n for n in waiting if all(v.producer() is None or v in made for v in n.inputs)]
        chosen = ready[rng.integers(len(ready))]
        waiting.remove(chosen)
        model.graph.append(chosen)


def test_other_execution_orders_give_the_same_cuts():
    rng, changed = np.random.default_rng(0), 0
    for seed in range(50):
        model = random_model(seed)
        order, expected = list(model.graph), {value.name for value in Flow(model).separators}
        shuffle(model, rng)
        changed += order != list(model.graph)
        assert {value.name for value in Flow(model).separators} == expected
    assert changed > 40


def test_large_graphs_are_searched_in_one_pass():
    # 0.3 s; a search for every tensor would take minutes
    assert len(Flow(random_model(0, count=20_000)).separators) > 1000


def test_small_trained_models(trained):
    cuts = find_cuts(trained)
    assert [cut.index for cut in cuts] == list(range(len(cuts)))
    best = recommended_cut(trained)
    assert [cut for cut in cuts if cut.recommended] == [best]
    assert best.nonnegative and best.channel_axis == 1 and best.channels == best.shape[1] in (64, 256)
    assert cuts[best.index + 1].op_type == "GlobalAveragePool"


RECOMMENDED = {
    "resnet": ("layer2", "Relu", (16, 8, 8)),
    "densenet": ("block2", "Concat", (24, 8, 8)),
    "mobilenet": ("block2", "Clip", (16, 8, 8)),
    "vgg": ("features.3", "MaxPool", (12, 8, 8)),
    "convnext": ("relu", "Relu", (8, 8, 8)),
}


@pytest.mark.parametrize("name", RECOMMENDED)
def test_the_last_non_negative_map_before_pooling_is_recommended(net, name):
    layer, op_type, shape = RECOMMENDED[name]
    cut = recommended_cut(net(name))
    assert cut.layer.startswith(layer) and cut.op_type == op_type and cut.shape[1:] == shape


def test_nothing_inside_a_residual_branch_is_a_cut(net):
    layers = [cut.tensor for cut in find_cuts(net("resnet"))]
    assert len(layers) == 12 and "relu_1" not in layers  # the ReLU inside the first residual block


def test_sign_of_cuts_matches_what_they_hold(any_net, run):
    from craft_onnx.graph.split import split

    x = np.random.default_rng(0).normal(size=(4, 3, 32, 32)).astype(np.float32)
    for cut in find_cuts(any_net):
        activations = run(split(any_net, cut.tensor)[0], x)
        assert activations.shape[1:] == cut.shape[1:]
        assert cut.nonnegative == (activations.min() >= 0), cut


def test_tokens_have_their_channels_last(net):
    axes = {cut.tensor: cut.channel_axis for cut in find_cuts(net("vit"))}
    assert axes["conv2d"] == axes["view"] == 1
    assert axes["transpose"] == axes["add_94"] == axes["layer_norm_4"] == 2


def test_channel_axis_is_followed_through_transpositions(parse):
    model = parse(
        """<ir_version: 9, opset_import: ["" : 20]> g (float[N,3,8,8] x, float[4,3,3,3] w) => (float[N,8] y) {
        c = Conv(x, w)
        a = Transpose<perm = [0, 2, 3, 1]>(c)
        b = Relu(a)
        d = Concat<axis = 3>(b, b)
        s = Constant<value_ints = [0, 36, 8]>()
        e = Reshape(d, s)
        f = Transpose<perm = [0, 2, 1]>(e)
        r = Constant<value_ints = [2]>()
        y = ReduceMean<keepdims = 0>(f, r) }""",
        w=np.ones((4, 3, 3, 3), np.float32),
    )
    found = {cut.tensor: (cut.channel_axis, cut.channels) for cut in find_cuts(model)}
    assert found == {"c": (1, 4), "a": (3, 4), "b": (3, 4), "d": (3, 8), "e": (2, 8), "f": (1, 8)}
    assert recommended_cut(model).tensor == "d"


def test_the_layer_is_recommended_not_its_transposition(parse):
    text = HEADER.replace("N,4,6,6] y", "N,6,6,4] y")
    model = parse(text + " { a = Relu(x) b = Identity(a) c = Transpose<perm = [0, 2, 3, 1]>(b) y = Neg(c) }")
    assert recommended_cut(model).tensor == "a"


def test_maps_of_classes_are_not_recommended(parse):
    header = '<ir_version: 9, opset_import: ["" : 20]> g (float[N,4,6,6] x, float[5,4,1,1] w) => (float[N,5] y)'
    body = "{ a = Relu(x) b = Conv(a, w) c = Relu(b) d = GlobalAveragePool(c) y = Flatten(d) }"
    assert recommended_cut(parse(header + body, w=np.ones((5, 4, 1, 1), np.float32))).tensor == "a"


def test_a_batch_size_read_early_is_no_path(net):
    model = net("vit")
    assert sum(node.op_type == "Shape" for node in model.graph) > 0
    assert len(find_cuts(model)) == 10


def test_other_sizes_read_early_are_paths(parse):
    text = HEADER.replace("[N,4,6,6] x", "[N,4,H,6] x").replace("[N,4,6,6] y", "[N,24,H] y")
    model = parse(
        text + " { a = Relu(x) b = Sigmoid(a) s = Shape(a) c = Reshape(b, s) d = Abs(c) "
        "t = Constant<value_ints = [0, 24, -1]>() y = Reshape(d, t) }"
    )
    assert [cut.tensor for cut in find_cuts(model)] == ["a", "c", "d"]
    with pytest.raises(InputError, match=r"b is no cut: it lies inside a branch, what follows it also needs 's'"):
        resolve_cut(model, "b")


def test_names_of_layers_tensors_and_indices_find_cuts(net):
    model = net("resnet")
    cuts = find_cuts(model)
    assert (
        resolve_cut(model, "layer1") == resolve_cut(model, "layer1.1.relu") == resolve_cut(model, "relu_4") == cuts[5]
    )
    assert resolve_cut(model, 5) == resolve_cut(model, "5", cuts) == cuts[5]
    assert resolve_cut(model, "stem.0") == resolve_cut(model, "stem.1") == cuts[0]  # Conv and its BatchNorm are one


def test_a_number_may_be_a_tensors_name(parse):
    model = parse(HEADER + " { a = Relu(x) b = Sigmoid(a) y = Abs(b) }")
    values = {value.name: value for node in model.graph for value in node.outputs}
    values["b"].name, values["a"].name = "0", "191"
    assert resolve_cut(model, "0").op_type == "Sigmoid"
    assert resolve_cut(model, 0).op_type == resolve_cut(model, "191").op_type == "Relu"


def test_a_name_inside_a_branch_says_why_and_offers_the_nearest_cuts(net):
    with pytest.raises(InputError) as caught:
        resolve_cut(net("resnet"), "layer1.1.conv1")
    assert caught.value.problem == (
        "layer1.1.conv1 (relu_3) is no cut: it lies inside a branch, what follows it also needs 'relu_2'."
    )
    assert caught.value.remedy == (
        "The nearest: 'relu_2' (layer1.0.relu, Relu, 8x16x16) before it and 'add_76' (layer1.1, Add, 8x16x16) after it."
    )


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("x", "it is the model's input"),
        ("y", "it is the model's output"),
        ("k", "it does not depend on the picture"),
        ("dead", "it does not lead to the logits"),
        ("left", "it lies inside a branch, what follows it also needs 'right'"),
    ],
)
def test_reasons_why_a_tensor_is_no_cut(parse, name, reason):
    body = "{ k = Constant<value = float {2.0}>() a = Relu(x) left, right = Split<axis = 1, num_outputs = 2>(a) "
    model = parse(HEADER + body + "dead = Neg(a) b = Concat<axis = 1>(right, left) y = Mul(b, k) }")
    with pytest.raises(InputError, match=reason):
        resolve_cut(model, name)


def test_integers_are_no_cut(parse):
    model = parse(HEADER + " { a = Cast<to = 6>(x) b = Cast<to = 1>(a) y = Relu(b) }")
    assert [cut.tensor for cut in find_cuts(model)] == ["b"]
    with pytest.raises(InputError, match="it holds int32, not floating-point numbers"):
        resolve_cut(model, "a")


def test_a_tensor_whose_first_axis_is_not_the_batch_is_no_cut(parse):
    model = parse(
        HEADER + " { a = Transpose<perm = [1, 0, 2, 3]>(x) b = Relu(a) y = Transpose<perm = [1, 0, 2, 3]>(b) }"
    )
    assert find_cuts(model) == []
    with pytest.raises(
        InputError, match=r"first axis is not the batch, its shape is \(4, N, 6, 6\)\. The model has no other cut"
    ):
        resolve_cut(model, "b")


def test_values_that_subgraphs_capture_are_paths(parse):
    model = parse(
        HEADER
        + """ {
        a = Relu(x) b = Sigmoid(a)
        t = Constant<value = bool {1}>()
        c = If (t) <then_branch = one () => (float[N,4,6,6] p) { p = Add(a, b) },
                    else_branch = two () => (float[N,4,6,6] q) { q = Identity(b) }>
        y = Abs(c) }"""
    )
    assert [cut.tensor for cut in find_cuts(model)] == ["a", "c"]


def test_a_typo_offers_near_matches(net):
    with pytest.raises(InputError, match=r"no tensor or layer 'layr1'.*layer1"):
        resolve_cut(net("resnet"), "layr1")


def test_an_index_out_of_range_names_the_range(net):
    for at in (12, "12", -1):
        with pytest.raises(InputError, match=r"no cut number -?\d+\. The model's cuts are numbered from 0 to 11\."):
            resolve_cut(net("resnet"), at)


def test_without_a_non_negative_map_other_cuts_are_named(net):
    with pytest.raises(InputError, match=r"another kind: 'relu' .*17x12.*, 'mean' .* Cut at 'relu'"):
        recommended_cut(net("vit_mean"))
    with pytest.raises(InputError, match=r"sign is not known: .*'layer_norm_4'.* behind a ReLU or a Sigmoid"):
        recommended_cut(net("vit"))
    with pytest.raises(InputError, match=r"another kind: 'relu' \(net\.2, Relu, 20\)"):
        recommended_cut(net("mlp"))


@pytest.mark.parametrize(
    ("name", "tensor"),
    [("vit", "add_115"), ("vit_mean", "relu"), ("convnext", "relu"), ("resnet", None), ("mlp", None)],
)
def test_the_place_to_cut_where_signs_do_not_matter(net, name, tensor):
    found = signed_cut(net(name))
    if name == "resnet":  # behind a ReLU, whatever the sign
        assert found == recommended_cut(net(name))
    else:
        assert (found and found.tensor) == tensor
    if name == "vit":  # the output of its first block: the head reads the class token of the second
        assert found.layer == "blocks.0"
        with pytest.raises(InputError, match="semi-NMF takes activations of any sign at 'add_115': --factoriser"):
            recommended_cut(net(name))


def test_finding_cuts_leaves_the_model_as_it_is(net):
    model = net("vit")
    before = ir.serde.serialize_model(model).SerializeToString()
    find_cuts(model)
    assert ir.serde.serialize_model(model).SerializeToString() == before

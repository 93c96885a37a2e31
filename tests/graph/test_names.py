import json

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from craft_onnx.errors import InputError
from craft_onnx.graph.names import LAYERS_KEY, carry_layers, find_tensor, layer_of, layers_of, record_layers
from craft_onnx.graph.normalize import normalize
from craft_onnx.graph.paths import is_keras3, name_paths


def chain(*steps, weights=()):
    """A model of one operator behind the other: (op_type, node name, output name, names of weights, scopes)."""
    nodes, value, used = [], "x", []
    for op_type, node_name, output, *rest in steps:
        names = rest[0] if rest else []
        node = helper.make_node(op_type, [value, *names], [output], node_name)
        if len(rest) > 1:
            node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=repr(rest[1]))
        nodes.append(node)
        used += [name for name in names if name not in used]
        value = output
    initializers = [numpy_helper.from_array(np.ones((4,), np.float32), name) for name in used]
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in ("x", value)]
    graph = helper.make_graph(nodes, "g", info[:1], info[1:], initializers)
    return ir.serde.deserialize_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]))


def recorded(*steps):
    model = chain(*steps)
    record_layers(model)
    return model


KERAS = (
    ("Mul", "Conv__1", "Conv__1:0", ["resnet50_1/res5c_branch2c_1/convolution/merged_input:0"]),
    ("Add", "a", "resnet50_1/bn5c_branch2c_1/batchnorm/add_1:0", ["const_fold_opt__5"]),
    ("Relu", "resnet50_1/activation_1/Relu", "resnet50_1/activation_1/Relu:0"),
    ("Relu", "resnet50_1/activation_1_2/Relu", "resnet50_1/activation_1_2/Relu:0"),
    ("Relu", "resnet50_1/activation_48_1/Relu", "resnet50_1/activation_48_1/Relu:0"),
    ("Softmax", "resnet50_1/fc1000_1/Softmax", "fc1000"),
)
TORCH = (
    ("Mul", "node_1", "getitem", ["conv1.weight"], ["", "bn1", "_native_batch_norm"]),
    ("Relu", "node_relu", "relu", [], ["", "relu", "relu"]),
    ("Mul", "node_2", "getitem_1", ["layer4.0.conv1.weight"], ["", "layer4", "layer4.0", "layer4.0.bn1", "x"]),
    ("Relu", "node_relu_1", "relu_1", [], ["", "layer4", "layer4.0", "layer4.0.relu", "relu_1"]),
    ("Mul", "node_3", "getitem_2", ["layer4.2.conv3.weight"], ["", "layer4", "layer4.2", "layer4.2.bn3", "y"]),
    ("Relu", "node_relu_2", "relu_2", [], ["", "layer4", "layer4.2", "layer4.2.relu", "relu_2"]),
    ("Identity", "node_view", "view", [], ["", "view"]),
    ("Mul", "node_linear", "linear", ["fc.weight"], ["", "fc", "linear"]),
)
TORCHSCRIPT = (
    ("Mul", "/conv1/Conv", "/conv1/Conv_output_0", ["onnx::Conv_1"]),
    ("Relu", "/relu/Relu", "/relu/Relu_output_0"),
    ("Mul", "/layer4/layer4.1/conv1/Conv", "/layer4/layer4.1/conv1/Conv_output_0", ["onnx::Conv_2"]),
    ("Relu", "/layer4/layer4.1/relu/Relu", "/layer4/layer4.1/relu/Relu_output_0"),
    ("Relu", "/layer4/layer4.1/relu_1/Relu", "/layer4/layer4.1/relu_1/Relu_output_0"),
    ("Mul", "/fc/Gemm", "99", ["fc.weight"]),
)


@pytest.mark.parametrize(
    ("steps", "name", "tensor"),
    [
        (KERAS, "activation_48", "resnet50_1/activation_48_1/Relu:0"),
        (KERAS, "activation", "resnet50_1/activation_1/Relu:0"),
        (KERAS, "activation_1", "resnet50_1/activation_1_2/Relu:0"),  # not `activation`, whose scope is activation_1
        (KERAS, "activation_48_1", "resnet50_1/activation_48_1/Relu:0"),
        (KERAS, "resnet50_1/activation_48_1/Relu:0", "resnet50_1/activation_48_1/Relu:0"),
        (KERAS, "resnet50_1/activation_48_1/Relu", "resnet50_1/activation_48_1/Relu:0"),
        (KERAS, "res5c_branch2c", "Conv__1:0"),
        (KERAS, "bn5c_branch2c", "resnet50_1/bn5c_branch2c_1/batchnorm/add_1:0"),
        (KERAS, "fc1000", "fc1000"),
        (KERAS, "Conv__1", "Conv__1:0"),
        (KERAS, "x", "x"),
        (TORCH, "layer4", "relu_2"),
        (TORCH, "layer4.2", "relu_2"),
        (TORCH, "layer4/2", "relu_2"),
        (TORCH, "layer4.0", "relu_1"),
        (TORCH, "layer4.2.conv3", "getitem_2"),
        (TORCH, "layer4.2.bn3", "getitem_2"),
        (TORCH, "conv3", "getitem_2"),
        (TORCH, "conv1", "getitem"),  # a path that begins with it goes before one that has it inside
        (TORCH, "relu", "relu"),
        (TORCH, "0.relu", "relu_1"),
        (TORCH, "fc", "linear"),
        (TORCHSCRIPT, "layer4", "/layer4/layer4.1/relu_1/Relu_output_0"),
        (TORCHSCRIPT, "layer4.1.relu", "/layer4/layer4.1/relu_1/Relu_output_0"),  # the module's last call
        (TORCHSCRIPT, "layer4.1.conv1", "/layer4/layer4.1/conv1/Conv_output_0"),
        (TORCHSCRIPT, "/layer4/layer4.1/relu/Relu", "/layer4/layer4.1/relu/Relu_output_0"),
        (TORCHSCRIPT, "fc", "99"),
    ],
)
def test_a_name_finds_its_tensor_recorded_or_not(steps, name, tensor):
    assert find_tensor(chain(*steps), name).name == tensor
    assert find_tensor(recorded(*steps), name).name == tensor


@pytest.mark.parametrize(
    ("steps", "name", "near"),
    [
        (KERAS, "activation_49", "activation_48"),
        (TORCH, "layer3", "layer4"),
        (TORCH, "layer4.2.conv4", "layer4.2.conv3"),
        (TORCH, "layer4.2.con", "layer4.2.conv3"),  # whole components only
        (TORCH, "layer", "layer4"),
        (TORCH, "linaer", "linear"),
    ],
)
def test_an_unknown_name_gets_near_matches(steps, name, near):
    with pytest.raises(InputError, match=f"no tensor or layer '{name}'") as caught:
        find_tensor(recorded(*steps), name)
    assert near in caught.value.remedy


@pytest.mark.parametrize("name", ["", ".", "zzzzzz", "fc.weight"])
def test_nothing_like_it(name):
    with pytest.raises(InputError, match="no tensor or layer"):
        find_tensor(recorded(*TORCH), name)


def test_layer_of_is_the_most_telling_name():
    model = recorded(*TORCH)
    listed = {value.name: layer_of(value) for node in model.graph for value in node.outputs}
    assert listed["getitem_2"] == "layer4.2.bn3"  # the layer that made the tensor, not the weights' alone
    assert listed["relu_2"] == "layer4.2.relu"
    assert listed["view"] == "view"  # no layer: its own name
    assert layer_of(model.graph.inputs[0]) == "x"
    assert layer_of(recorded(*KERAS).graph.node(4).outputs[0]) == "activation_48"


def test_shape_arithmetic_is_no_tensor_of_a_layer(parse):
    model = parse("""
        <ir_version: 10, opset_import: ["" : 18]> g (float[n, 4] x) => (float[n, 4] y)
        { a = Relu(x)  s = Shape(a)  b = Relu(a)  y = Reshape(b, s) }""")
    for node, layers in zip(model.graph, (["block.relu"], ["block.late"], ["head"], ["head"]), strict=True):
        node.metadata_props[LAYERS_KEY] = json.dumps(layers)
    model.graph.node(1).outputs[0].dtype = ir.DataType.INT64
    assert find_tensor(model, "block").name == "a"


@pytest.mark.parametrize(
    ("name", "keras3", "paths"),
    [
        ("outer_1/inner_1/conv_3_1/Conv2D:0", True, ["inner/conv_3"]),
        ("StatefulPartitionedCall/resnet50_1/activation_48_1/Relu:0", True, ["activation_48"]),
        ("StatefulPartitionedCall/StatefulPartitionedCall/net_1/conv_1/Conv2D:0", True, ["conv"]),
        ("Func/StatefulPartitionedCall/input/_0:0", False, []),
        ("resnet50_1/Cast:0", True, []),
        (":/0", False, []),
        ("MobilenetV1/Conv2d_13_pointwise/Relu6:0", False, ["MobilenetV1/Conv2d_13_pointwise"]),
        ("model/dense/MatMul/ReadVariableOp:0", False, ["model/dense"]),
        (
            "model/re_lu/Relu6;model/bn/FusedBatchNormV3;model/conv/Conv2D",
            False,
            ["model/conv", "model/bn", "model/re_lu"],
        ),
        ("gpu_0/conv1_1", False, ["gpu_0/conv1_1"]),
        ("/model/encoder/layer.0/dense/MatMul_output_0", False, ["model.encoder.layer.0.dense"]),
        ("/features/features.18/features.18.0/Conv_output_0", False, ["features.18.0"]),
        ("/Flatten_output_0", False, []),
        ("relu_3", False, []),
    ],
)
def test_paths_in_the_names_of_exporters(name, keras3, paths):
    assert name_paths(name, keras3) == paths


def test_keras_numbers_are_stripped_only_where_all_layers_have_them():
    assert is_keras3(["m_1/a_1/Relu:0", "m_1/b_2_1/Conv2D/Read:0", "m_1/Cast:0"])
    assert not is_keras3(["model/conv_1/Relu:0", "model/conv_2/Relu:0"])  # Keras 2: the layers' own numbers
    assert not is_keras3(["m_1/a_1/Relu:0", "m_1/conv/Relu:0"])
    assert not is_keras3(["/layer_1/layer_1.0/Relu", "x"])


def test_a_constant_shared_between_layers_names_none():
    model = recorded(("Mul", "a", "t", ["block1.scale"]), ("Mul", "b", "y", ["block1.scale"]))
    assert [layers_of(node) for node in model.graph] == [[], []]


def test_recorded_layers_stay():
    model = recorded(*TORCH)
    model.graph.node(0).metadata_props[LAYERS_KEY] = '["mine"]'
    record_layers(model)
    assert layers_of(model.graph.node(0)) == ["mine"]


# How passes rewrite graphs, and what the new nodes must answer to.
BEFORE = """
    <ir_version: 10, opset_import: ["" : 18]> g (float[n, 4] x, float[4] w) => (float[n, 4] y)
    { a = Mul(x, w)  b = Neg(a)  c = Relu(b)  d = Abs(c)  y = Add(d, c) }"""
REWRITES = {
    "merged": ("{ b = Div(x, w)  c = Relu(b)  d = Abs(c)  y = Add(d, c) }", {"b": "ab"}),
    "split in two": (
        "{ a = Mul(x, w)  t = Exp(a)  b = Log(t)  c = Relu(b)  d = Abs(c)  y = Add(d, c) }",
        {"t": "b", "b": "b"},
    ),
    "all at once": ("{ y = Div(x, w) }", {"y": "abcdy"}),
    "inside kept": ("{ b = Div(x, w)  c = Relu(b)  y = Exp(c) }", {"b": "ab", "c": "c", "y": "dy"}),
    "renamed": ("{ q = Mul(x, w)  b = Neg(q)  c = Relu(b)  d = Abs(c)  y = Add(d, c) }", {"q": "ab", "b": "b"}),
    "behind the input": (
        "{ p = Exp(x)  a = Mul(p, w)  b = Neg(a)  c = Relu(b)  d = Abs(c)  y = Add(d, c) }",
        {"p": "a", "a": "a"},
    ),
}


@pytest.mark.parametrize("rewrite", REWRITES)
def test_new_nodes_answer_to_the_layers_between_surviving_tensors(parse, rewrite):
    text, expected = REWRITES[rewrite]
    before = parse(BEFORE, w=np.ones(4, np.float32))
    after = parse(BEFORE.partition("{")[0] + text, w=np.ones(4, np.float32))
    for node in before.graph:
        node.metadata_props[LAYERS_KEY] = json.dumps([node.outputs[0].name])
    for node in after.graph:
        node.metadata_props.pop(LAYERS_KEY)
    carry_layers(before, after)
    found = {node.outputs[0].name: "".join(layers_of(node)) for node in after.graph}
    assert {name: found[name] for name in expected} == expected


def test_merged_batchnorm_answers_to_both_and_the_block_ends_where_it_did(net):
    model = normalize(net("resnet"))
    assert find_tensor(model, "layer1.0.conv1.0") is find_tensor(model, "layer1.0.conv1.1")  # Conv and BatchNorm
    assert find_tensor(model, "layer1.0.conv1.0").producer().op_type == "Conv"
    last = find_tensor(model, "layer2")
    assert last.producer().op_type == "Relu" and [n.op_type for n, _ in last.uses()] == ["ReduceMean"]

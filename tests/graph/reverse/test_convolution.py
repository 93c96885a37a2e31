"""Gradients of convolutions."""

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F
from support.gradient_oracle import check_node, one_node

from craft_onnx.errors import UnsupportedOperator
from craft_onnx.graph.reverse.gradients.convolution import WIDEST
from craft_onnx.graph.reverse.vjp import gradient_graph

RNG = np.random.default_rng(3)
# One axis after the other, so that odd and even lengths are met.
LENGTHS = (9, 8, 7)
KERNEL = (3, 2, 3)


def arrays(rank, group=1, channels=4, outputs=6, kernel=KERNEL, lengths=LENGTHS):
    """x, weights and bias of a Conv; those of a ConvTranspose with `outputs` and `channels` exchanged."""
    weights = (outputs, channels // group, *kernel[:rank])
    return [RNG.standard_normal(shape) for shape in [(2, channels, *lengths[:rank]), weights, (outputs,)]]


def each(rank, number):
    return number[:rank] if isinstance(number, list) else [number] * rank


def geometry(rank, stride=1, pads=0, dilation=1, group=1):
    """Attributes; numbers for all axes, or lists of which the first axes are taken (of pads: of both ends)."""
    front, back = (each(rank, part) for part in (pads if isinstance(pads, tuple) else (pads, pads)))
    return {"strides": each(rank, stride), "dilations": each(rank, dilation), "pads": front + back, "group": group}


def torch_conv(attributes):
    """The same Conv by PyTorch, on explicitly padded input."""
    pads, rank = attributes["pads"], len(attributes["strides"])
    pairs = [number for axis in reversed(range(rank)) for number in (pads[axis], pads[axis + rank])]
    convolve = (F.conv1d, F.conv2d, F.conv3d)[rank - 1]
    return lambda x, w, b: convolve(
        F.pad(x, pairs), w, b, attributes["strides"], 0, attributes["dilations"], attributes["group"]
    )


GEOMETRIES = {
    "dense": {},
    "padded": {"pads": 1},
    "asymmetric": {"pads": ([2, 0, 1], [0, 1, 2])},
    "strided": {"stride": 2, "pads": 1},
    "strided_unlike": {"stride": [2, 3, 1]},
    "stride_beyond_kernel": {"stride": [4, 3, 5]},
    "dilated": {"dilation": [2, 3, 1], "pads": 2},
    "strided_dilated": {"stride": [2, 2, 3], "dilation": [2, 1, 2], "pads": 1},
    "pads_beyond_kernel": {"pads": ([3, 0, 3], [0, 4, 3])},
    "strided_pads_beyond_kernel": {"stride": 2, "pads": ([4, 3, 3], [1, 5, 3])},
    "groups": {"group": 2, "pads": 1},
    "strided_groups": {"group": 2, "stride": 2, "pads": 1},
}


@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_conv(rank, name):
    attributes = geometry(rank, **GEOMETRIES[name])
    check_node(
        "Conv", arrays(rank, attributes["group"]), attributes | {"kernel_shape": KERNEL[:rank]},
        wrt=(0, 1, 2), torch=torch_conv(attributes),
    )  # fmt: skip


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("multiplier", [1, 2])
def test_depthwise(stride, multiplier):
    attributes = geometry(2, stride, 1, group=4)
    given = arrays(2, 4, outputs=4 * multiplier)
    check_node("Conv", given, attributes | {"kernel_shape": [3, 2]}, wrt=(0, 1, 2), torch=torch_conv(attributes))


@pytest.mark.parametrize("name", [name for name in GEOMETRIES if "group" not in GEOMETRIES[name]])
def test_depthwise_geometries(name):
    attributes = geometry(2, **GEOMETRIES[name], group=4)
    given = arrays(2, 4, outputs=4)
    check_node("Conv", given, attributes | {"kernel_shape": KERNEL[:2]}, torch=torch_conv(attributes))


def types(given, attributes, dynamic=False):
    """Operators of the gradient graph of one convolution, those of its weights and shapes left out."""
    graph = gradient_graph(one_node("Conv", given, 0, attributes, dtype=np.float32, dynamic=dynamic))
    return {node.op_type for node in graph.graph} & {"Conv", "ConvTranspose", "MatMul"}


def test_depthwise_strides_are_spread_by_a_product():
    attributes = geometry(2, stride=[2, 3], pads=1, group=4)
    given = arrays(2, 4, outputs=4)
    assert types(given, attributes) == {"MatMul", "Conv"}
    assert types(given, attributes, dynamic=True) == {"ConvTranspose"}
    assert types(given, geometry(2, stride=2, pads=4, group=4)) == {"ConvTranspose"}
    dense = arrays(2, 2, outputs=4)
    assert types(dense, geometry(2, stride=2, group=2)) == {"ConvTranspose"}
    for width, expected in ((2 * WIDEST, {"MatMul", "Conv"}), (2 * WIDEST + 2, {"ConvTranspose"})):
        wide = arrays(2, 4, outputs=4, lengths=(4, width))
        assert types(wide, geometry(2, stride=[1, 2], group=4)) == expected


@pytest.mark.parametrize("stride", [1, 2])
def test_windows_of_one_element(stride):
    attributes = geometry(2, stride)
    given = arrays(2, kernel=(1, 1))
    check_node("Conv", given, attributes | {"kernel_shape": [1, 1]}, wrt=(0, 1, 2), torch=torch_conv(attributes))


def test_without_attributes_and_bias():
    given = arrays(2)[:2]
    check_node("Conv", given, torch=F.conv2d)
    check_node("Conv", given, wrt=(1,), dynamic=[False], torch=F.conv2d)


def same(lengths, kernel, strides, lower):
    """The pads that SAME_UPPER and SAME_LOWER stand for, by the definition of the operator."""
    totals = [
        max((-(-n // stride) - 1) * stride + size - n, 0)
        for n, size, stride in zip(lengths, kernel, strides, strict=True)
    ]
    small, large = [total // 2 for total in totals], [-(-total // 2) for total in totals]
    return large + small if lower else small + large


@pytest.mark.parametrize("stride", [1, 2, [2, 3], 4])
@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER", "VALID"])
def test_automatic_pads(auto_pad, stride):
    strides = each(2, stride)
    lower = auto_pad == "SAME_LOWER"
    pads = [0] * 4 if auto_pad == "VALID" else same(LENGTHS[:2], KERNEL[:2], strides, lower)
    expected = torch_conv({"pads": pads, "strides": strides, "dilations": [1, 1], "group": 1})
    attributes = {"auto_pad": auto_pad, "strides": strides, "kernel_shape": KERNEL[:2]}
    check_node("Conv", arrays(2), attributes, wrt=(0, 1, 2), torch=expected)


def torch_transpose(attributes, rest=0):
    """The same ConvTranspose by PyTorch without pads; then zeros behind, and pads cut off."""
    pads, rank = attributes["pads"], len(attributes["strides"])
    pairs = [cut for i in reversed(range(rank)) for cut in (-pads[i], each(rank, rest)[i] - pads[i + rank])]
    convolve = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[rank - 1]

    def function(x, w, b):
        whole = convolve(x, w, None, attributes["strides"], 0, 0, attributes["group"], attributes["dilations"])
        return F.pad(whole, pairs) + b.reshape(-1, *[1] * rank)

    return function


def transpose_arrays(rank, group=1):
    x, w, _ = arrays(rank, channels=4, outputs=4, lengths=(5, 4, 3))
    w = RNG.standard_normal((4, 6 // group, *w.shape[2:]))
    return [x, w, RNG.standard_normal(6)]


TRANSPOSED = {
    "dense": ({}, 0),
    "padded": ({"pads": ([1, 0, 1], [0, 1, 1])}, 0),
    "strided": ({"stride": [2, 3, 2]}, 0),
    "strided_padded": ({"stride": 2, "pads": ([1, 0, 2], [1, 2, 0])}, 0),
    "rest": ({"stride": [2, 3, 2], "pads": 1}, [1, 2, 1]),
    "rest_of_a_window": ({"dilation": [2, 3, 2], "pads": 1}, [1, 2, 1]),
    "dilated": ({"stride": 2, "dilation": [1, 2, 2]}, 0),
    "groups": ({"group": 2, "stride": 2, "pads": 1}, 1),
}


@pytest.mark.parametrize("name", TRANSPOSED)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_conv_transpose(rank, name):
    options, rest = TRANSPOSED[name]
    attributes = geometry(rank, **options)
    more = {"kernel_shape": KERNEL[:rank], "output_padding": each(rank, rest)}
    given = transpose_arrays(rank, attributes["group"])
    check_node("ConvTranspose", given, attributes | more, wrt=(0, 1, 2), torch=torch_transpose(attributes, rest))


@pytest.mark.parametrize(
    "attributes",
    [
        {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
        {"auto_pad": "SAME_LOWER", "strides": [2, 1]},
        {"auto_pad": "VALID", "strides": [2, 2]},
        {"output_shape": [10, 7], "strides": [2, 2]},
        {"output_shape": [9, 7], "strides": [2, 2], "auto_pad": "SAME_UPPER", "output_padding": [1, 0]},
    ],
    ids=str,
)
def test_automatic_pads_of_conv_transpose(attributes):
    more = {"kernel_shape": KERNEL[:2]}
    # Fixed lengths of the output leave none of the input open.
    dynamic = [False] if "output_shape" in attributes else [False, True]
    check_node("ConvTranspose", transpose_arrays(2), attributes | more, wrt=(0, 1, 2), dynamic=dynamic)


def test_weights_of_open_size_are_named():
    with pytest.raises(UnsupportedOperator, match=r"Conv 'node' needs the size of its kernel, which is \('n2', 'n3'\)"):
        gradient_graph(one_node("Conv", arrays(2), 1, dynamic=True))


@pytest.mark.parametrize("group", [1, 2, 4])
def test_turned_weights_are_folded_when_a_session_loads(group, tmp_path):
    given = arrays(2, group, outputs=4)
    graph = gradient_graph(one_node("Conv", given, 0, geometry(2, pads=1, group=group), dtype=np.float32))
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(tmp_path / "folded.onnx")
    content = ir.serde.serialize_model(graph).SerializeToString()
    ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    (conv,) = ir.load(tmp_path / "folded.onnx").graph
    parts = np.split(given[1].astype(np.float32), group)
    turned = np.concatenate([np.flip(part, (2, 3)).swapaxes(0, 1) for part in parts])
    np.testing.assert_array_equal(conv.inputs[1].const_value.numpy(), turned)


@pytest.mark.parametrize("attributes", [{"pads": [1] * 4}, {"strides": [2, 2], "group": 4}])
def test_no_weights_are_copied(attributes):
    given = arrays(2, attributes.get("group", 1), outputs=4)
    graph = gradient_graph(one_node("Conv", given, 0, attributes, dtype=np.float32))
    large = [name for name, value in graph.graph.initializers.items() if value.const_value.size > 10]
    assert large == ["input_1"]


@pytest.mark.parametrize(
    ("block", "options"),
    [
        ((3, 2), {}),
        ((2, 2), {"strides": [2, 1]}),
        ((3, 3), {"pads": [1, 1, 1, 1], "dilations": [1, 2], "strides": [2, 2]}),
    ],
)
def test_sums_of_windows(block, options):
    image, channels = (6, 7), 3
    torch_options = {"stride": options.get("strides", 1), "dilation": options.get("dilations", 1)}
    torch_options["padding"] = options.get("pads", [0, 0])[:2]
    count = F.unfold(torch.zeros(1, channels, *image), block, **torch_options).shape[2]
    arrays = [np.random.default_rng(0).standard_normal((2, channels * block[0] * block[1], count))]
    arrays += [np.array(image), np.array(block)]
    check_node(
        "Col2Im", arrays, options, torch=lambda x, *_: F.fold(x, image, block, **torch_options), dynamic=(False,)
    )


def test_channels_stay_in_blocks_behind_strides():
    """In float32, with channels in eights, a pooling of single positions is behind the ConvTranspose: the identity."""
    attributes = geometry(2, stride=2, pads=1)
    given = arrays(2, channels=16, outputs=16, kernel=(3, 3))
    graph = gradient_graph(one_node("Conv", given, 0, attributes, dtype=np.float32))
    pools = [node for node in graph.graph if node.op_type == "AveragePool"]
    assert [list(node.attributes["kernel_shape"].as_ints()) for node in pools] == [[1, 1]]
    assert pools[0].inputs[0].producer().op_type == "ConvTranspose"
    x = torch.tensor(given[0], requires_grad=True)
    y = torch_conv(attributes)(x, *map(torch.tensor, given[1:]))
    cotangent = RNG.standard_normal(y.shape)
    y.backward(torch.tensor(cotangent))
    session = ort.InferenceSession(ir.to_proto(graph).SerializeToString(), providers=["CPUExecutionProvider"])
    feeds = dict(zip((i.name for i in session.get_inputs()), (given[0], cotangent), strict=True))
    (dx,) = session.run(None, {name: array.astype(np.float32) for name, array in feeds.items()})
    # Sums of up to 64 products, rounded to float32.
    np.testing.assert_allclose(dx, x.grad, rtol=1e-4, atol=1e-5)

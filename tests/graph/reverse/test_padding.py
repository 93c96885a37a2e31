"""The gradient of Pad."""

import numpy as np
import onnx_ir as ir
import pytest
from support.gradient_oracle import check_model, check_node, one_node

from craft_onnx.errors import UnsupportedOperator
from craft_onnx.graph.reverse.vjp import gradient_graph

torch = pytest.importorskip("torch")
RNG = np.random.default_rng(6)
X = RNG.standard_normal((2, 3, 5))
MODES = ["constant", "reflect", "edge", "wrap"]
TORCH = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("pads", "axes"),
    [
        ([0, 1, 2, 0, 2, 1], None),
        ([2, 0, 3, 1], [2, 1]),
        ([0, 4], [-1]),
        ([4, 0], [-1]),
        ([0, 0], [1]),
        ([-1, 0, 2, -2], [2, 1]),
        ([-1, -2], [2]),
        ([-1, 2], [2]),
    ],
)
def test_pad(mode, pads, axes):
    arrays = [X, np.array(pads)] + ([None, np.array(axes)] if axes else [])
    check_node("Pad", arrays, {"mode": mode}, opset=19)


@pytest.mark.parametrize("mode", MODES)
def test_pad_agrees_with_pytorch(mode):
    pads = np.array([0, 0, 1, 2, 0, 0, 2, 3])
    check_node(
        "Pad",
        [RNG.standard_normal((2, 3, 4, 5)), pads],
        {"mode": mode},
        opset=19,
        torch=lambda x, pads: torch.nn.functional.pad(x, (2, 3, 1, 2), mode=TORCH[mode]),
    )


def test_the_edge_repeated_many_times():
    check_node("Pad", [X, np.array([7, 9]), None, np.array([1])], {"mode": "edge"})


@pytest.mark.parametrize("pads", [[0, 1, 2, 0, 2, 1], [0, -1, 2, 0, 0, -2]])
def test_the_number_that_is_filled_in(pads):
    check_node("Pad", [X, np.array(pads), np.array(0.3)], wrt=(0, 2))


def test_computed_pads():
    text = """<ir_version: 10, opset_import: ["" : 18]> g (T[n, 3] x) => (T[m, k] y)
        { pads = Concat <axis=0> (size, size) size = Shape (x) y = Pad (x, pads) }"""
    text = text.replace(
        "pads = Concat <axis=0> (size, size) size = Shape (x)", "size = Shape (x) pads = Concat <axis=0> (size, size)"
    )

    def build(dtype):
        return ir.from_onnx_text(text.replace("T[", "double[" if dtype == np.float64 else "float["))

    check_model(build, RNG.standard_normal((2, 3)))
    text = text.replace("Pad (x", 'Pad <mode="edge"> (x')
    with pytest.raises(UnsupportedOperator, match="it computes the widths of a padding that is not constant"):
        gradient_graph(build(np.float32))


def test_more_than_all_is_refused():
    with pytest.raises(UnsupportedOperator, match="it pads with more than all of its input"):
        gradient_graph(one_node("Pad", [X, np.array([9, 0]), None, np.array([2])], attributes={"mode": "reflect"}))


@pytest.mark.parametrize(("height", "width"), [(4, 7), (8, 3), (5, 6), (9, 9)])
def test_center_crop_pad(height, width):
    """By the body that ONNX defines it with."""
    text = f"""<ir_version: 10, opset_import: ["" : 18]> g (T[n, 2, 5, 6] x) => (T[n, 2, {height}, {width}] y)
        <int64[2] size = {{{height}, {width}}}> {{ y = CenterCropPad <axes=[2, 3]> (x, size) }}"""

    def build(dtype):
        return ir.from_onnx_text(text.replace("T[", "double[" if dtype == np.float64 else "float["))

    check_model(build, RNG.standard_normal((2, 2, 5, 6)))

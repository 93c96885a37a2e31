"""The gradient of Resize."""

import numpy as np
import onnx_ir as ir
import pytest
from support.gradient_oracle import SINGLE, check_model, check_node, one_node, run

from craft_onnx.errors import UnsupportedOperator
from craft_onnx.graph.reverse.vjp import gradient_graph

torch = pytest.importorskip("torch")
RNG = np.random.default_rng(7)
X = RNG.standard_normal((2, 3, 5, 7))
COORDINATES = ["half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel", "half_pixel_symmetric"]
ROUNDING = ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]


def scales(*numbers):
    return np.array(numbers, np.float32)


def check_resize(x, by=None, to=None, **attributes):
    check_node("Resize", [x, None, by, None if to is None else np.array(to)], attributes, opset=19)


@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_modes(mode, coordinates):
    options = {"mode": mode, "coordinate_transformation_mode": coordinates}
    check_resize(X, by=scales(1, 1, 2, 3), **options)
    check_resize(X, to=[2, 3, 9, 4], **options)
    if (mode, coordinates) != ("cubic", "pytorch_half_pixel"):  # onnxruntime differs from ONNX's reference there
        check_resize(X, to=[2, 3, 1, 7], **options)


@pytest.mark.parametrize("rounding", ROUNDING)
@pytest.mark.parametrize("coordinates", COORDINATES)
def test_rounding_to_the_nearest(coordinates, rounding):
    """Whole scales too, some of which only repeat positions."""
    options = {"coordinate_transformation_mode": coordinates, "nearest_mode": rounding}
    for factors in ((1, 1, 2, 3), (1, 1, 4, 1), (2, 1, 1, 5)):
        check_resize(X, by=scales(*factors), **options)


# Where the length is cut down to a whole number, ONNX's reference and onnxruntime differ in what they put into the
# equations. The gradient follows whoever runs it: it is the adjoint of what that one computes.
@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_adjoint_in_onnxruntime(mode, coordinates):
    attributes = {"mode": mode, "coordinate_transformation_mode": coordinates}
    model = one_node("Resize", [X, None, scales(1, 1, 1.7, 0.6)], attributes=attributes, dtype=np.float32, opset=19)
    x = X.astype(np.float32)
    y = run(model, input_0=x)
    cotangent = RNG.standard_normal(y.shape).astype(np.float32)
    dx = run(gradient_graph(model), input_0=x, cotangent=cotangent)
    assert abs((dx * x).sum() - (cotangent * y).sum()) <= SINGLE * np.abs(cotangent * y).sum()


@pytest.mark.parametrize("factors", [(2, 3), (0.6, 0.5), (1.5, 2)])
@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_smoothed_before_it_is_made_smaller(mode, factors):
    check_resize(X, by=scales(1, 1, *factors), mode=mode, antialias=1)


def test_some_axes():
    check_resize(X, by=scales(2, 2.5), axes=[2, 3], mode="linear")
    check_resize(X, to=[6, 3], axes=[3, 2], mode="linear")


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_other_layouts(mode):
    check_resize(RNG.standard_normal((2, 3, 4)), by=scales(1, 1, 2.5), mode=mode)
    check_resize(RNG.standard_normal((2, 3, 4, 2)), by=scales(1, 2, 2, 1), mode=mode)
    check_resize(RNG.standard_normal((1, 2, 3, 4, 5)), by=scales(1, 1, 2, 1.5, 2), mode=mode)
    check_resize(RNG.standard_normal((1, 2, 3, 4, 5)), by=scales(1, 1, 2, 3, 2), mode=mode)


def test_nearest_agrees_with_pytorch():
    interpolate = torch.nn.functional.interpolate
    check_node(
        "Resize",
        [X, None, scales(1, 1, 2, 2)],
        {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
        torch=lambda x, roi, by: interpolate(x, scale_factor=2, mode="nearest"),
    )


@pytest.mark.parametrize("corners", [True, False])
def test_linear_agrees_with_pytorch(corners):
    interpolate = torch.nn.functional.interpolate
    check_node(
        "Resize",
        [X, None, None, np.array([2, 3, 8, 10])],
        {"mode": "linear", "coordinate_transformation_mode": "align_corners" if corners else "half_pixel"},
        torch=lambda x, roi, by, to: interpolate(x, (8, 10), mode="bilinear", align_corners=corners),
    )


def test_a_region():
    attributes = {"mode": "linear", "coordinate_transformation_mode": "tf_crop_and_resize", "extrapolation_value": 2.0}
    region = np.array([0, 0, 0.1, 0.2, 1, 1, 0.8, 1.3])
    check_node("Resize", [X, region, None, np.array([2, 3, 4, 5])], attributes)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_a_computed_size(mode):
    """Twice the height and width, as exporters write it with open lengths."""
    text = f"""<ir_version: 10, opset_import: ["" : 18]> g (T[n, 3, h, w] x) => (T[n, 3, i, j] y)
        <int64[2] two = {{2, 2}}> {{ outer = Shape <end=2> (x) inner = Shape <start=2> (x) twice = Mul (inner, two)
          size = Concat <axis=0> (outer, twice) y = Resize <mode="{mode}"> (x, , , size) }}"""

    def build(dtype):
        return ir.from_onnx_text(text.replace("T[", "double[" if dtype == np.float64 else "float["))

    check_model(build, X)


def test_a_computed_scale():
    text = """<ir_version: 10, opset_import: ["" : 18]> g (T[2, 3, n] x) => (T[i, j, k] y)
        { shape = Shape (x) f = Cast <to=1> (shape) s = Sqrt (f) scale = Div (s, s) more = Add (scale, scale)
          y = Resize <mode="linear"> (x, , more) }"""

    def build(dtype):
        return ir.from_onnx_text(text.replace("T[", "double[" if dtype == np.float64 else "float["))

    check_model(build, RNG.standard_normal((2, 3, 4)), single=False)


def test_a_rounded_ratio_is_refused():
    attributes = {"keep_aspect_ratio_policy": "not_larger"}
    model = one_node("Resize", [X, None, None, np.array([2, 3, 9, 9])], attributes=attributes, opset=18)
    with pytest.raises(UnsupportedOperator, match="it keeps the ratio of its sides"):
        gradient_graph(model)


def test_repeated_positions_are_pooled():
    """No product with a matrix where a sum over blocks is all."""
    graph = gradient_graph(one_node("Resize", [X, None, scales(1, 1, 2, 2)], dynamic=True)).graph
    assert [node.op_type for node in graph] == ["AveragePool", "Mul"]

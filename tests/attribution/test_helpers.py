"""Targets, baselines, channels and rasters."""

import numpy as np
import pytest

from craft_onnx.attribution.baselines import baseline_of
from craft_onnx.attribution.channels import reduce_channels
from craft_onnx.attribution.grid import Grid
from craft_onnx.attribution.model import CallableModel, as_inputs, as_model
from craft_onnx.attribution.targets import Channel, LinearCombination, Logit, as_target
from craft_onnx.attribution.upsample import upsampled
from craft_onnx.description import Preprocessing
from craft_onnx.errors import InputError

ROWS = np.array([2, 0, 1, 2])


@pytest.mark.parametrize(
    ("target", "shape"),
    [
        (Logit(1), (4, 5)),
        (Logit([4, 0, 2]), (4, 5)),
        (LinearCombination([1, 0, -1, 2, 0.5]), (4, 5)),
        (LinearCombination(np.arange(15).reshape(3, 5)), (4, 5)),
        (Channel(1), (4, 3, 2, 5)),
        (Channel([2, 0, 1], channel_axis=3), (4, 2, 5, 3)),
        (Channel([0, 1, 1], channel_axis=-1), (4, 7, 2)),
    ],
)
def test_the_cotangent_is_the_derivative_of_the_value(target, shape):
    rng = np.random.default_rng(0)
    y, direction = rng.standard_normal((2, *shape))
    change = target.value(y + direction, ROWS) - target.value(y, ROWS)  # exact: all of them are linear
    dy = target.cotangent(y, ROWS)
    assert dy.shape == y.shape and dy.dtype == y.dtype
    np.testing.assert_allclose((dy * direction).reshape(4, -1).sum(axis=1), change, rtol=1e-12, atol=1e-12)


def test_values_are_those_of_each_row():
    y = np.arange(20.0).reshape(4, 5)
    assert Logit([4, 0, 2]).value(y, ROWS).tolist() == [2, 9, 10, 17]
    assert Channel([1, 0, 1]).value(np.arange(16.0).reshape(4, 2, 2), ROWS).tolist() == [2.5, 6.5, 8.5, 14.5]


@pytest.mark.parametrize(
    ("target", "shape"), [(Logit(5), (4, 5)), (Channel(2), (4, 2, 2)), (LinearCombination([1, 2]), (4, 5))]
)
def test_what_the_model_does_not_have(target, shape):
    with pytest.raises(InputError) as caught:
        target.cotangent(np.zeros(shape), ROWS)
    assert caught.value.remedy


def test_any_object_with_value_and_cotangent_is_a_target():
    target = LinearCombination([1.0])
    assert as_target(target, None) is target


PREPROCESSING = Preprocessing((4, 4), "NHWC", scale=1 / 255, mean=(0.5, 0.4, 0.3), std=(0.2, 0.5, 0.25))


class Prepared:
    layout, preprocessing = "NHWC", PREPROCESSING


@pytest.mark.parametrize(
    ("baseline", "pixel"),
    [
        ("zero", [0, 0, 0]),
        (1.5, [1.5] * 3),
        ([1, 2, 3], [1, 2, 3]),
        ("black", [-2.5, -0.8, -1.2]),
        ("white", [2.5, 1.2, 2.8]),
    ],
)
def test_baselines_of_one_colour(baseline, pixel):
    found = baseline_of(Prepared(), np.ones((2, 4, 4, 3), np.float32), baseline)
    np.testing.assert_allclose(found, np.broadcast_to(np.array(pixel, np.float32), (2, 4, 4, 3)), rtol=1e-5)


def test_blur_leaves_the_mean_and_takes_the_detail():
    x = np.random.default_rng(0).standard_normal((2, 3, 40, 60)).astype(np.float32)
    soft = baseline_of(None, x, "blur")
    np.testing.assert_allclose(soft.mean(axis=(2, 3)), x.mean(axis=(2, 3)), atol=0.02)
    assert soft.std() < 0.3
    flat = np.full((1, 3, 40, 60), 2.0, np.float32)
    np.testing.assert_allclose(baseline_of(None, flat, "blur"), flat, rtol=1e-6)


def test_channels():
    values = np.random.default_rng(0).standard_normal((2, 3, 4, 5))
    np.testing.assert_allclose(reduce_channels(values, None, "sum"), values.sum(1), rtol=1e-6)
    np.testing.assert_allclose(reduce_channels(values, None, "max_abs"), np.abs(values).max(1), rtol=1e-6)
    last = values.transpose(0, 2, 3, 1)
    np.testing.assert_allclose(reduce_channels(last, None, "mean_abs"), np.abs(values).mean(1), rtol=1e-6)
    assert reduce_channels(values, None, None).shape == values.shape
    with pytest.raises(InputError, match="not seen to be pictures"):
        reduce_channels(np.zeros((2, 7)), None, "sum")


@pytest.mark.parametrize("size", [(7, 7), (12, 15), (3, 4), (2, 9)])
def test_upsampling_is_pytorchs(size):
    torch = pytest.importorskip("torch")
    maps = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
    expected = torch.nn.functional.interpolate(torch.tensor(maps)[:, None], size, mode="bilinear")[:, 0]
    np.testing.assert_allclose(upsampled(maps, size), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "axis", "grid"),
    [
        ((1, 8, 7, 5), 1, (7, 5, False, 0)),
        ((1, 7, 5, 8), -1, (7, 5, False, 0)),
        ((1, 196, 8), 2, (14, 14, True, 0)),
        ((1, 8, 197), 1, (14, 14, True, 1)),
    ],
)
def test_grids(shape, axis, grid):
    found = Grid.of(shape, axis, (224, 224))
    assert (found.height, found.width, found.tokens, found.extra) == grid


@pytest.mark.parametrize("shape", [(1, 8), (1, 195, 8), (1, 2, 3, 4, 8)])
def test_no_grid(shape):
    with pytest.raises(InputError, match="are no grid over a picture"):
        Grid.of(shape, -1, (224, 224))


def test_a_function_is_a_model():
    model = as_model(lambda x: x.reshape(len(x), -1)[:, :3])
    assert isinstance(model, CallableModel)
    x = np.random.default_rng(0).standard_normal((7, 3, 2, 2)).astype(np.float32)
    np.testing.assert_array_equal(model.predict(x, 3), model.predict([x[:2], x[2:]], 16))
    with pytest.raises(InputError, match="A int is no model"):
        as_model(3)


@pytest.mark.parametrize(("x", "problem"), [(np.zeros((0, 3, 4, 4)), "no rows"), (np.zeros((1, 3), int), "int64")])
def test_inputs_are_preprocessed_pictures(x, problem):
    with pytest.raises(InputError, match=problem):
        as_inputs(x)

import numpy as np
import pytest
import torch

from craft_onnx.attribution.occlusion import covered, occlusion
from craft_onnx.errors import InputError

RNG = np.random.default_rng(0)


def quadratic(x):
    flat = x.reshape(len(x), -1)
    return np.stack([flat.sum(1) ** 2, (flat**3).sum(1)], axis=1)


def literal(function, x, window, stride, baseline):
    """Zeiler & Fergus, window by window."""
    total, count = np.zeros(x.shape[1:]), np.zeros(x.shape[1:])
    height, width = x.shape[1:]
    y = 0
    while True:
        left = 0
        while True:
            rows, columns = slice(y, y + window[0]), slice(left, left + window[1])
            hidden = x.copy()
            hidden[:, rows, columns] = baseline
            total[rows, columns] += function(x[None])[0] - function(hidden[None])[0]
            count[rows, columns] += 1
            if left + window[1] >= width:
                break
            left += stride[1]
        if y + window[0] >= height:
            break
        y += stride[0]
    return total / count


@pytest.mark.parametrize("window, stride", [((3, 4), (2, 3)), ((1, 1), (1, 1)), ((8, 9), (5, 1)), ((4, 4), (4, 4))])
def test_it_is_what_a_window_by_window_loop_finds(window, stride):
    x = RNG.normal(size=(2, 3, 8, 9))
    maps = occlusion(quadratic, x, [0, 1], window=window, stride=stride, baseline=0.25)
    for i in range(2):
        expected = literal(lambda rows, i=i: quadratic(rows)[:, i], x[i], window, stride, 0.25)
        np.testing.assert_allclose(maps[i], expected, rtol=1e-6, atol=1e-6)  # maps are float32


@pytest.mark.parametrize("window, stride", [((3, 4), (2, 3)), ((5, 5), (5, 5)), ((12, 1), (1, 1))])
def test_it_is_captums(model, inputs, window, stride):
    attr = pytest.importorskip("captum.attr")
    method = attr.Occlusion(lambda x: torch.from_numpy(model.predict(x.numpy())))
    expected = method.attribute(
        torch.from_numpy(inputs), (3, *window), strides=(3, *stride), target=[0, 1, 2, 3, 4], baselines=0.1
    ).numpy()
    maps = occlusion(model, inputs, [0, 1, 2, 3, 4], window=window, stride=stride, baseline=0.1)
    # Captum's attribution is the same for all channels; both sum differences of float32 logits.
    np.testing.assert_allclose(maps, expected[:, 0], atol=2e-6)


def test_linear_models_are_explained_exactly():
    weights, x = RNG.normal(size=(3, 6, 6)), RNG.normal(size=(1, 3, 6, 6))
    maps = occlusion(lambda rows: (rows * weights).sum(axis=(1, 2, 3))[:, None], x, 0, window=1, stride=1, baseline=2.0)
    np.testing.assert_allclose(maps[0], ((x[0] - 2) * weights).sum(axis=0), rtol=1e-6)


def test_windows_cover_everything_and_the_last_may_stick_out():
    pixels = covered(10, 4, 3)
    assert pixels.astype(int).tolist() == [[1] * 4 + [0] * 6, [0] * 3 + [1] * 4 + [0] * 3, [0] * 6 + [1] * 4]
    assert covered(11, 4, 3)[-1].astype(int).tolist() == [0] * 9 + [1] * 2


@pytest.mark.parametrize("options", [{"window": 13}, {"window": 4, "stride": 5}, {"window": 0}, {"stride": 0}])
def test_windows_that_leave_gaps_are_refused(model, inputs, options):
    with pytest.raises(InputError, match="does not cover"):
        occlusion(model, inputs, 0, **options)

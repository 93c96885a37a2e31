import numpy as np
import pytest

from craft_onnx.attribution.baselines import blurred
from craft_onnx.attribution.fidelity import deletion, insertion, ranking
from craft_onnx.attribution.targets import LinearCombination, Logit, Probability
from craft_onnx.errors import InputError

RNG = np.random.default_rng(0)


def softmax(y):
    powers = np.exp(y - y.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def literal_curve(model, x, one, class_id, steps, start, end):
    """The original's loop: the next pixels of `end` are put into `start`, in the order of the map."""
    order = np.argsort(-one.ravel(), kind="stable")
    current, values = start.copy(), []
    bounds = np.rint(np.linspace(0, one.size, steps + 1)).astype(int)
    for previous, bound in zip([0, *bounds], bounds, strict=False):
        rows, columns = np.unravel_index(order[previous:bound], one.shape)
        current[:, rows, columns] = end[:, rows, columns]
        values.append(softmax(model.predict(current[None]))[0, class_id])
    return np.array(values)


@pytest.mark.parametrize("steps", [1, 7, 144])
def test_curves_are_what_a_step_by_step_loop_finds(model, inputs, steps):
    maps, classes = RNG.normal(size=(5, 12, 12)), [0, 1, 2, 3, 4]
    away = deletion(model, inputs, maps, classes, steps=steps, baseline=0.2, batch_size=7)
    back = insertion(model, inputs, maps, classes, steps=steps)
    blur = blurred(inputs, (1, 2, 3))
    for i in range(5):
        gone = np.full_like(inputs[i], 0.2)
        expected = literal_curve(model, inputs[i], maps[i], i, steps, inputs[i], gone)
        np.testing.assert_allclose(away.values[i], expected, atol=1e-6)
        expected = literal_curve(model, inputs[i], maps[i], i, steps, blur[i], inputs[i])
        np.testing.assert_allclose(back.values[i], expected, atol=1e-6)
    np.testing.assert_allclose(away.areas, np.trapezoid(away.values, away.fractions), rtol=1e-12)
    assert away.fractions[0] == 0 and away.fractions[-1] == 1 and away.values.shape == (5, steps + 1)


def test_a_linear_model_has_the_areas_that_one_can_count():
    """Pixels worth 3, 2, 1, 0, removed in this order and in the opposite one."""
    x = np.array([3.0, 2, 1, 0]).reshape(1, 1, 2, 2)
    maps = np.arange(4)[::-1].reshape(1, 2, 2)
    target = Logit(0)

    def model(rows):
        return rows.sum(axis=(2, 3))

    right = deletion(model, x, maps, target, steps=4)
    assert right.values.tolist() == [[6, 3, 1, 0, 0]] and right.areas[0] == pytest.approx((4.5 + 2 + 0.5 + 0) / 4)
    assert deletion(model, x, -maps, target, steps=4).values.tolist() == [[6, 6, 5, 3, 0]]
    assert insertion(model, x, maps, target, steps=4, baseline=0).values.tolist() == [[0, 3, 5, 6, 6]]


def test_classes_are_measured_as_probabilities_and_targets_as_they_are(model, inputs):
    maps = RNG.normal(size=(5, 12, 12))
    predicted = model.predict(inputs).argmax(axis=1)
    assert np.array_equal(
        deletion(model, inputs, maps).values, deletion(model, inputs, maps, Probability(predicted)).values
    )
    np.testing.assert_allclose(deletion(model, inputs, maps, 1).values[:, 0], softmax(model.predict(inputs))[:, 1])
    difference = LinearCombination([1, -1, 0, 0, 0])
    logits = model.predict(inputs)
    np.testing.assert_allclose(
        deletion(model, inputs, maps, difference).values[:, 0], logits[:, 0] - logits[:, 1], rtol=1e-6
    )


def test_equal_pixels_go_as_they_lie():
    assert ranking(np.array([[[1.0, 2], [2, 1]]]), (1, 2, 2)).tolist() == [[[2, 0], [1, 3]]]


def test_maps_that_do_not_fit(model, inputs):
    with pytest.raises(InputError, match=r"shape \(5, 6, 6\)"):
        deletion(model, inputs, np.zeros((5, 6, 6)))
    with pytest.raises(InputError, match="NaN"):
        insertion(model, inputs, np.full((5, 12, 12), np.nan))
    with pytest.raises(InputError, match="145 steps"):
        insertion(model, inputs, np.zeros((5, 12, 12)), steps=145)

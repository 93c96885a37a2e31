import numpy as np
import pytest
import torch

from craft_onnx.attribution.attribute import attribute
from craft_onnx.attribution.gradients import saliency
from craft_onnx.errors import CraftWarning, InputError


def autograd(halves, x, class_ids):
    x = torch.tensor(x, requires_grad=True)
    g, h = halves
    return torch.autograd.grad(h(g(x))[torch.arange(len(x)), torch.tensor(class_ids)].sum(), x)[0].numpy()


def test_saliency_is_the_absolute_gradient(model, halves, inputs):
    classes = [0, 1, 2, 3, 4]
    expected = np.abs(autograd(halves, inputs, classes)).max(axis=1)
    np.testing.assert_allclose(saliency(model, inputs, classes, batch_size=2), expected, rtol=1e-5, atol=1e-7)


def test_without_targets_the_predicted_class_is_explained(model, inputs):
    predicted = model.predict(inputs).argmax(axis=1)
    np.testing.assert_array_equal(saliency(model, inputs), saliency(model, inputs, predicted))


def test_attribute_carries_values_and_options(model, inputs):
    result = attribute(model, inputs, 3, "saliency", channels="sum", seed=7)
    np.testing.assert_allclose(result.values, model.predict(inputs)[:, 3], rtol=1e-6)
    assert result.to_json() == {
        "method": "saliency", "values": result.values.tolist(), "residual": None, "provider": "torch", "seed": 7,
        "options": {"channels": "sum"},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("targets", "options", "problem"),
    [
        (5, {}, "There is no class 5 among 5."),
        ([0, 1, -1, 2, 3], {}, "There is no class -1 among 5."),
        ([0, 1], {}, "2 entries of class were given for at least"),
        ("cat", {}, "'cat' is no class"),
        (0, {"steps": 3}, "saliency has no option 'steps'."),
        (0, {"channels": "median"}, "There is no reduction 'median'"),
    ],
)
def test_mistakes_are_two_sentences(model, inputs, targets, options, problem):
    with pytest.raises(InputError) as caught:
        attribute(model, inputs, targets, "saliency", **options)
    assert caught.value.problem.startswith(problem) and caught.value.remedy.endswith(".")


def test_what_does_not_fit_in_memory_goes_in_halves(model, inputs, monkeypatch):
    expected = saliency(model, inputs, 1)
    whole = model.vjp

    def little_memory(x, *args, **kwargs):
        if len(x) > 1:
            raise MemoryError
        return whole(x, *args, **kwargs)

    monkeypatch.setattr(model, "vjp", little_memory)
    with pytest.warns(CraftWarning, match="do not fit in memory"):
        np.testing.assert_allclose(saliency(model, inputs, 1), expected, rtol=1e-5, atol=1e-7)

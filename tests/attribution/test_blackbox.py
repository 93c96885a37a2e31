"""What all black-box methods have in common."""

import itertools

import numpy as np
import pytest

from craft_onnx.attribution.registry import methods
from craft_onnx.attribution.targets import Channel, Logit
from craft_onnx.errors import InputError

SMALL = {
    "occlusion": {"window": 4, "stride": 3},
    "rise": {"n_masks": 50, "feature_res": 4},
    "sobol": {"grid_size": 3, "nb_design": 8},
    "kernel_shap": {"segments": (3, 4), "n_samples": 100},
    "lime": {"segments": 4, "n_samples": 60},
}
SEEDED = ["rise", "sobol", "kernel_shap", "lime"]
# Batches of other sizes sum in another order, in float32.
RELATIVE = 1e-5


def close(maps, expected):
    return np.abs(maps - expected).max() <= RELATIVE * np.abs(expected).max()


def explain(name, model, x, targets=None, **options):
    return methods()[name].run(model, x, targets, **SMALL[name], **options)[0]


def test_these_are_all_black_box_methods():
    assert SMALL.keys() == {name for name, one in methods().items() if one.needs == "predictions"}


@pytest.mark.parametrize("name", SMALL)
def test_maps_do_not_depend_on_the_batch_size_or_on_the_company(model, inputs, name):
    maps = explain(name, model, inputs, 2)
    assert maps.shape == (5, 12, 12) and maps.dtype == np.float32 and maps.std() > 0
    for batch_size in (1, 7, 1000):
        assert close(explain(name, model, inputs, 2, batch_size=batch_size), maps)
    assert close(explain(name, model, inputs[3:4], 2), maps[3:4])


@pytest.mark.parametrize("name", SMALL)
def test_channels_may_come_last(model, inputs, name):
    maps = explain(name, model, inputs, 1)
    last = explain(name, lambda x: model.predict(np.ascontiguousarray(x.transpose(0, 3, 1, 2))),
                   inputs.transpose(0, 2, 3, 1), 1)  # fmt: skip
    assert close(last, maps)


@pytest.mark.parametrize("name", SEEDED)
def test_the_seed_decides(model, inputs, name):
    x = inputs[:1]
    first = explain(name, model, x, 0, seed=3)
    assert np.array_equal(first, explain(name, model, x, 0, seed=3))
    assert not close(first, explain(name, model, x, 0, seed=4))


@pytest.mark.parametrize("name", SMALL)
def test_every_input_has_its_own_class_by_default_the_predicted_one(model, inputs, name):
    mean = model.predict(inputs).mean(axis=0)

    def centred(x):
        return model.predict(x) - mean

    predicted = centred(inputs).argmax(axis=1)
    assert len(set(predicted)) > 1
    maps = explain(name, centred, inputs)
    assert np.array_equal(maps, explain(name, centred, inputs, Logit(predicted)))
    assert close(maps[:1], explain(name, centred, inputs[:1], int(predicted[0])))


@pytest.mark.parametrize("name", SMALL)
def test_targets_may_be_read_from_activations(model, inputs, name):
    def mean_of_channel(x):
        return model.g(x)[:, 3].mean(axis=(1, 2), keepdims=True)[:, 0]

    maps = explain(name, model, inputs[:2], Channel(3))
    assert close(maps, explain(name, mean_of_channel, inputs[:2], 0))


@pytest.mark.parametrize("name", SMALL)
def test_progress_ends_with_all_copies(model, inputs, name):
    told = []
    explain(name, model, inputs, progress=lambda done, total: told.append((done, total)))
    assert told[-1][0] == told[-1][1] and all(a[0] < b[0] for a, b in itertools.pairwise(told))


@pytest.mark.parametrize("name", SMALL)
def test_a_target_that_never_changes_has_an_even_map(inputs, name):
    maps = explain(name, lambda x: np.full((len(x), 2), 3.5, np.float32), inputs, 0)
    np.testing.assert_allclose(maps, 3.5 if name == "rise" else 0, atol=2e-6)


@pytest.mark.parametrize("name", SMALL)
def test_copies_go_through_in_batches(inputs, name):
    """Never more rows in memory than a batch has, and none too small but the last."""
    seen = []

    def model(x):
        seen.append(len(x))
        return x.reshape(len(x), -1)[:, :4]

    explain(name, model, inputs, 1, batch_size=32)
    copies = [count for count in seen if count != len(inputs)]  # occlusion asks for the inputs themselves too
    assert set(copies[:-1]) == {32}


@pytest.mark.parametrize("name", SMALL)
def test_senseless_batches_are_refused(model, inputs, name):
    with pytest.raises(InputError, match="batch_size 0"):
        explain(name, model, inputs, 0, batch_size=0)

"""`tol=`: how many points of a design the intervals need."""

import numpy as np
import pytest

from craft_onnx.concepts import importance
from craft_onnx.concepts.craft import XPLIQUE, Craft
from craft_onnx.concepts.importance import Importance, refined
from craft_onnx.errors import CraftWarning, InputError
from craft_onnx.runtime.model import SplitModel


def narrowing(asked, clipped=False):
    """Intervals whose half width is 8 / points; a clipped one ends at 0."""

    def estimate(points):
        asked.append(points)
        half, values = 8 / points, np.array([0.5, 0.01])
        low = np.maximum(values - half, 0) if clipped else values - half
        return Importance(values, np.stack([low, values + half], 1), values, 0.0, False, points)

    return estimate


@pytest.mark.parametrize("clipped", [False, True])
def test_points_are_doubled_until_the_intervals_are_narrow(clipped):
    asked = []
    found, points = refined(narrowing(asked, clipped), 32, 0.05)
    assert asked == [32, 64, 128, 256] and points == found.evaluations == 256  # 8 / 256 <= 0.05 < 8 / 128


def test_without_a_tolerance_nothing_is_doubled():
    asked = []
    assert refined(narrowing(asked), 32, None)[1] == 32 and asked == [32]


def test_the_bound_is_said():
    asked = []
    with pytest.warns(CraftWarning, match=r"9600 points.*0\.00083.*not 1e-06"):
        _, points = refined(narrowing(asked), 300, 1e-6)
    assert points == asked[-1] == 9600  # 300 doubled as long as it is 16384 at most
    with pytest.warns(CraftWarning, match="20000 points"):
        assert refined(narrowing(asked), 20000, 1e-6)[1] == 20000


def test_of_a_craft(bundles, images):
    craft = Craft(SplitModel(bundles["mlp"]), number_of_concepts=4, batch_size=16, patch_size=16, nb_design=8)
    craft.fit(images, class_id=2)
    craft.estimate_importance()
    wide = (craft.importance_.intervals[:, 1] - craft.importance_.values).max()
    craft.estimate_importance(tol=wide / 3)
    assert craft.points_ > 8 and np.log2(craft.points_ / 8) % 1 == 0
    assert (craft.importance_.intervals[:, 1] - craft.importance_.values).max() <= wide / 3
    points = craft.points_
    assert np.allclose(craft.estimate_importance(nb_design=points), craft.estimate_importance(tol=wide / 3))
    assert craft.estimate_importance(images[:2], tol=wide).shape == (4,) and craft.points_ == points


def test_linear_heads_need_no_points(bundles, images):
    craft = Craft(SplitModel(bundles["linear"]), number_of_concepts=4, batch_size=16, patch_size=16)
    craft.fit(images, class_id=2)
    assert np.array_equal(craft.estimate_importance(tol=1e-9), craft.estimate_importance())
    assert craft.importance_.exact and craft.points_ == 256


def test_what_cannot_be_met(bundles, images, monkeypatch):
    craft = Craft(SplitModel(bundles["mlp"]), number_of_concepts=4, batch_size=16, patch_size=16, **XPLIQUE)
    craft.fit(images, class_id=2)
    with pytest.raises(InputError, match="no intervals"):
        craft.estimate_importance(tol=0.1)
    with pytest.raises(InputError, match="tolerance of 0"):
        craft.estimate_importance(tol=0)
    monkeypatch.setattr(importance, "MOST_POINTS", 64)
    craft = Craft(SplitModel(bundles["mlp"]), number_of_concepts=4, batch_size=16, patch_size=16, nb_design=32)
    craft.fit(images, class_id=2)
    with pytest.warns(CraftWarning, match="With 64 points"):
        craft.estimate_importance(tol=1e-9)

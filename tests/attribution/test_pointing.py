import numpy as np
import pytest

from craft_onnx.attribution.pointing import energy_inside, pointing_game
from craft_onnx.errors import InputError

RNG = np.random.default_rng(0)


def test_the_maximum_must_lie_inside():
    masks = np.zeros((3, 6, 7), bool)
    masks[:, 2:4, 3:5] = True
    maps = RNG.random((3, 6, 7))
    maps[0, 3, 4], maps[1, 4, 4], maps[2, 0, 0] = 2, 2, 2
    assert pointing_game(maps, masks).tolist() == [1, 0, 0]


def test_tolerance_is_a_distance_in_pixels():
    mask, maps = np.zeros((20, 20), bool), np.zeros((400, 20, 20))
    mask[5:8, 9:12] = True
    maps.reshape(400, 400)[np.arange(400), np.arange(400)] = 1
    inside = np.argwhere(mask)
    distances = np.sqrt(np.square(np.argwhere(np.ones((20, 20)))[:, None] - inside).sum(axis=2)).min(axis=1)
    for tolerance in (0, 1, 3.2, 15):
        hits = pointing_game(maps, np.broadcast_to(mask, maps.shape), tolerance)
        assert np.array_equal(hits == 1, distances <= tolerance)


def test_equal_maxima_share_the_hit():
    masks = np.zeros((1, 4, 4), bool)
    masks[0, 0] = True
    assert pointing_game(np.ones((1, 4, 4)), masks).tolist() == [0.25]


def test_energy_is_the_share_of_what_is_positive():
    masks = np.zeros((3, 4, 4), bool)
    masks[:, :, 0] = True
    maps = np.stack([np.ones((4, 4)), np.where(masks[0], 3.0, -1.0), -np.ones((4, 4))])
    assert energy_inside(maps, masks).tolist() == [0.25, 1, 0]


@pytest.mark.parametrize("maps, masks", [
    (np.ones((2, 4, 4)), np.ones((2, 4, 5), bool)),
    (np.ones((4, 4)), np.ones((4, 4), bool)),
    (np.ones((2, 4, 4)), np.ones((2, 4, 4))),
    (np.ones((1, 4, 4)), np.zeros((1, 4, 4), bool)),
])  # fmt: skip
def test_maps_and_masks_that_do_not_fit(maps, masks):
    for measure in (pointing_game, energy_inside):
        with pytest.raises(InputError, match=r"belong together|no regions|picture 0 is empty"):
            measure(maps, masks)

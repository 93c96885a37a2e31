"""Values recorded from Xplique 2.0.2 and craft-xai 0.0.3: tests/reference has the scripts that made them."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from craft_onnx.concepts.craft import XPLIQUE, Craft
from craft_onnx.concepts.factorisation import encode, factorise
from craft_onnx.runtime.model import SplitModel

REFERENCE = Path(__file__).parents[1] / "reference"
SETTINGS = {"number_of_concepts": 6, "batch_size": 16, "patch_size": 16}
# craft-xai has Xplique's method without its penalty: the same crops on a grid, scikit-learn's encoder with its default
# stopping rule, an unscrambled Halton sequence of 32 points, Jansen's estimator.
CRAFT_XAI = XPLIQUE | {"alpha_W": 0.0}


class Peer(NamedTuple):
    """Settings, the sides of the pictures, and how far two solvers are apart after 200 iterations in float32.

    Convolutions of numpy and PyTorch differ by 3e-7. From there W comes to differ by 3e-6 with Xplique's penalty and by
    3.5e-5 without it, where the problem is flatter; importances by less.
    """

    settings: dict
    sides: dict
    solver: float
    importances: float


PEERS = {
    "xplique": Peer(XPLIQUE, {}, 2e-5, 1e-5),
    "craft_xai": Peer(CRAFT_XAI, {"height": 40, "width": 40}, 1e-4, 5e-5),  # it takes square pictures only
}


@pytest.fixture(scope="module", params=PEERS)
def peer(request):
    return PEERS[request.param]


@pytest.fixture(scope="module")
def recorded(peer):
    name = next(name for name in PEERS if PEERS[name] is peer)
    with np.load(REFERENCE / f"{name}.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def fitted(peer, small_net, weights):
    """fitted(head) -> a Craft with the peer's settings, and the images."""
    images = small_net.pictures(**peer.sides)

    def fit(head):
        g, h = small_net.first_half(weights), small_net.second_half(weights, head)
        craft = Craft(g, h, **SETTINGS, **peer.settings)
        craft.fit(images, class_id=2)
        return craft, images

    return fit


def close(found, expected, share):
    return found.shape == expected.shape and np.abs(found - expected).max() <= share * np.abs(expected).max()


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_from_pictures_to_importances(head, peer, recorded, fitted):
    craft, images = fitted(head)
    assert craft.crops_.shape == tuple(recorded["crops_shape"])
    assert np.array_equal(craft.crops_[recorded["crops_index"]], recorded["crops"])
    assert close(craft.pooled_, recorded["activations"], 1e-6)
    assert close(craft.concept_bank_, recorded["w"], peer.solver)
    assert close(craft.crops_u_, recorded["crops_u"], peer.solver)
    assert close(craft.transform(images[:3]), recorded["transform"], peer.solver)
    assert close(craft.estimate_importance(), recorded[f"{head}_importances"], peer.importances)
    assert close(craft.estimate_importance(images[3:4]), recorded[f"{head}_local"], peer.importances)


def test_from_the_same_activations(peer, recorded):
    """The factorisation is scikit-learn's: the same bits on one machine, the order of sums on another."""
    a, alpha = recorded["activations"], peer.settings["alpha_W"]
    found = factorise(a, 6, alpha, False, 0, encoder="sklearn", tol=1e-4, max_iter=200)
    assert close(found.w, recorded["w"], peer.solver) and close(found.u, recorded["crops_u"], peer.solver)


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_from_the_same_concepts(head, peer, recorded, fitted):
    """Importances of the recorded concept bank: encoder, design and estimator are the peer's."""
    craft, images = fitted(head)
    craft.concept_bank_ = recorded["w"]
    a = craft.halves_.g(images[:3]).transpose(0, 2, 3, 1)
    u = encode(a.reshape(-1, 24), recorded["w"], "sklearn", peer.settings["alpha_W"])
    assert close(u.reshape(recorded["transform"].shape), recorded["transform"], 1e-5)
    assert close(craft.estimate_importance(), recorded[f"{head}_importances"], 1e-5)


def test_the_preset_on_a_bundle_samples_its_linear_head_too(bundles, images):
    craft = Craft(SplitModel(bundles["linear"]), **SETTINGS, **XPLIQUE)
    craft.fit(images, class_id=2)
    with np.load(REFERENCE / "xplique.npz") as recorded:
        assert close(craft.estimate_importance(), recorded["linear_importances"], 1e-5)
    assert craft.importance_.intervals is None

import numpy as np
import pytest

from craft_onnx.concepts.craft import Craft
from craft_onnx.concepts.torch_modules import array_function
from craft_onnx.errors import InputError

torch = pytest.importorskip("torch")


@pytest.fixture
def module():
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU(), torch.nn.Dropout(0.5)]
    made = torch.nn.Sequential(*layers).train()
    made[1].running_mean += torch.linspace(-0.5, 0.5, 8)
    return made


@pytest.fixture
def images():
    return np.random.default_rng(0).random((6, 3, 12, 10), np.float32)


def test_modules_in_training_mode_run_in_evaluation_mode_and_stay_as_they_were(module, images):
    module[3].eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    found = array_function(module)(images)
    assert [each.training for each in module] == [True, True, True, False] and module.training
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    with torch.no_grad():
        expected = module.eval()(torch.tensor(images)).numpy()
    assert isinstance(found, np.ndarray) and np.array_equal(found, expected)
    # A row does not change with the others, which training mode would let it.
    assert np.allclose(array_function(module.train())(images[2:3])[0], expected[2], atol=1e-6)


def test_methods_of_modules_are_modules(images):
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Conv2d(3, 4, 1)

        def features(self, x):
            return self.layer(x).abs()

        def head(self, a):
            return a.mean(dim=(2, 3))

    torch.manual_seed(1)
    net = Net()
    craft = Craft(net.features, net.head, number_of_concepts=2, patch_size=6)
    craft.fit(torch.tensor(images), class_id=1)
    assert craft.estimate_importance().sum() == pytest.approx(1, abs=0.05)  # h is linear, which nobody knows
    assert not craft.importance_.exact
    assert craft.transform(torch.tensor(images[0])).shape == (1, 12, 10, 2)


def test_pooling_and_affine_layers_are_seen(module, images):
    nn = torch.nn
    pool, linear = nn.AdaptiveAvgPool2d(1), nn.Linear(8, 5)
    heads = {
        True: [nn.Sequential(pool, nn.Flatten(), nn.Sequential(nn.Dropout(), linear), nn.Identity())],
        False: [
            nn.Sequential(pool, nn.Flatten(), linear, nn.ReLU()),
            nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 5)),
            nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten(), linear),
            nn.Sequential(nn.ReLU(), pool, nn.Flatten(), linear),
            nn.Sequential(),
            linear,
        ],
    }
    for expected, some in heads.items():
        assert [array_function(head).affine_after_pooling for head in some] == [expected] * len(some)
    head = heads[True][0]
    seen, unseen = (Craft(module, h, 3, patch_size=6) for h in (head, array_function(head).__call__))
    for craft in (seen, unseen):
        craft.fit(images, class_id=4)
    exact = seen.estimate_importance()
    assert seen.importance_.exact and not seen.head_.evaluate(np.ones((2, 3), np.float32)).shape[1:]
    # Six images, two designs of 256 points each.
    assert np.allclose(exact, unseen.estimate_importance(), atol=0.01) and not unseen.importance_.exact
    assert seen.importance_.bias == pytest.approx(float(linear.bias[4].detach()), abs=1e-6)
    head[0].register_forward_hook(lambda *_: None)
    assert not array_function(head).affine_after_pooling


def test_precision_and_place_are_those_of_the_parameters(module, images):
    assert array_function(module.double())(images).dtype == np.float64
    assert array_function(module.double(), device=torch.device("cpu"))(images[:1]).shape == (1, 8, 10, 8)
    with pytest.raises(InputError, match=r"on cpu, device='cuda:0' was asked for.*module\.to\('cuda:0'\)"):
        array_function(module, device=torch.device("cuda", 0))
    without = torch.nn.Flatten()
    assert array_function(without, device="cuda")(images).shape == (6, 360)


def test_other_callables_are_left_alone():
    assert array_function(len) is len
    kept = np.maximum.reduce
    assert array_function(kept) is kept

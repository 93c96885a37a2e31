import numpy as np
import onnx_ir as ir
import pytest

from craft_onnx.errors import InputError
from craft_onnx.graph.load import check
from craft_onnx.graph.names import record_layers
from craft_onnx.graph.randomize import randomized, weighted_layers

RNG = np.random.default_rng(0)
WEIGHTS = {
    "conv1.weight": (4, 3, 3, 3), "conv1.bias": (4,), "norm.scale": (4,), "norm.bias": (4,), "norm.mean": (4,),
    "norm.var": (4,), "slope": (4, 1, 1), "fc.weight": (5, 4), "fc.bias": (5,), "limit": (),
}  # fmt: skip
TEXT = """
<ir_version: 9, opset_import: ["": 18]> net (float[N,3,8,8] x) => (float[N,5] y) {
  a = Conv(x, "conv1.weight", "conv1.bias")
  b = BatchNormalization(a, "norm.scale", "norm.bias", "norm.mean", "norm.var")
  c = PRelu(b, slope)
  d = Min(c, limit)
  e = GlobalAveragePool(d)
  f = Flatten(e)
  y = Gemm <transB = 1> (f, "fc.weight", "fc.bias")
}"""


@pytest.fixture
def model():
    arrays = {name: RNG.random(shape) + 0.1 for name, shape in WEIGHTS.items()}
    made = ir.from_onnx_text(TEXT, [ir.tensor(np.float32(array), name=name) for name, array in arrays.items()])
    record_layers(made)
    return made


def weights(model):
    return {name: value.const_value.numpy() for name, value in model.graph.initializers.items()}


def test_layers_are_listed_from_the_logits_back(model):
    listed = weighted_layers(model)
    assert len(listed) == 4 and listed[0].startswith("fc") and listed[-1].startswith("conv1")


@pytest.mark.parametrize("how", ["shuffle", "normal"])
def test_only_the_weights_of_the_layers_change(model, how):
    before = weights(model)
    fc, prelu, norm, conv = weighted_layers(model)
    changed = randomized(model, [fc, norm], how)
    check(changed)
    after = weights(changed)
    different = {name for name in before if not np.array_equal(before[name], after[name])}
    assert different == {"fc.weight", "fc.bias", "norm.scale", "norm.bias"}
    assert all(np.array_equal(array, before[name]) for name, array in weights(model).items())
    after = weights(randomized(model, [conv, prelu], how))
    different = {name for name in before if not np.array_equal(before[name], after[name])}
    assert different == {"conv1.weight", "conv1.bias", "slope"}


def test_shuffled_weights_are_the_same_numbers(model):
    before, after = weights(model), weights(randomized(model, weighted_layers(model)))
    for name in before:
        assert np.array_equal(np.sort(before[name], axis=None), np.sort(after[name], axis=None))


def test_normal_weights_keep_mean_and_deviation(model):
    wide = model.graph.initializers["conv1.weight"]
    array = RNG.gamma(2, 0.1, (4, 3, 3, 3)).astype(np.float32)
    wide.const_value = ir.tensor(array, name=wide.name)
    drawn = np.stack([weights(randomized(model, [weighted_layers(model)[-1]], "normal", s))["conv1.weight"]
                      for s in range(100)])  # fmt: skip
    assert drawn.dtype == np.float32
    assert drawn.mean() == pytest.approx(array.mean(), abs=4 * array.std() / np.sqrt(drawn.size))
    assert drawn.std() == pytest.approx(array.std(), rel=0.03)


def test_the_seed_decides_and_layers_are_independent(model):
    layers = weighted_layers(model)
    first, all_of_them = (weights(randomized(model, some, seed=2)) for some in (layers[:1], layers))
    assert np.array_equal(first["fc.weight"], all_of_them["fc.weight"])
    assert not np.array_equal(first["fc.weight"], weights(randomized(model, layers, seed=3))["fc.weight"])


def test_unknown_layers_and_ways(model):
    with pytest.raises(InputError, match="'pool'"):
        randomized(model, ["pool"])
    with pytest.raises(InputError, match="'zeros'"):
        randomized(model, [], "zeros")

import pytest

from craft_onnx.description import PRESETS, Description, Preprocessing
from craft_onnx.errors import InputError


@pytest.mark.parametrize("preset", PRESETS)
def test_a_description_survives_json(preset):
    rule = Preprocessing.preset(preset, (224, 192), "NHWC", resize_to=256, interpolation="bicubic")
    described = Description("keras", "ab" * 32, rule, softmax_removed=True)
    assert Description.loads(described.dumps()) == described


@pytest.mark.parametrize(
    "fields",
    [{"mean": (1.0,)}, {"std": (0.0, 1.0, 1.0)}, {"size": (0, 4)}, {"resize_to": 8}, {"channel_order": "gray"}],
)
def test_impossible_rules_are_refused(fields):
    with pytest.raises(InputError):
        Preprocessing(**({"size": (16, 16)} | fields))


@pytest.mark.parametrize("text", ["", "[]", '{"colour": 1}', '{"preprocessing": {"size": 3}}'])
def test_other_metadata_is_refused(text):
    with pytest.raises(InputError):
        Description.loads(text)


def test_an_unknown_preset_names_the_known_ones():
    with pytest.raises(InputError, match="torch, caffe, tf, none"):
        Preprocessing.preset("imagenet", (224, 224))


@pytest.mark.parametrize(
    ("shape", "size", "layout"),
    [
        (("batch", 3, 224, 192), (224, 192), "NCHW"),
        ((1, 96, 64, 3), (96, 64), "NHWC"),
        ((1, 1, 28, 28), (28, 28), "NCHW"),
    ],
)
def test_layout_and_size_follow_the_input(shape, size, layout):
    rule = Preprocessing.for_input(shape, mean=(127,), std=(128,))
    assert (rule.size, rule.layout, len(rule.mean)) == (size, layout, 1 if 1 in shape[1:] else 3)
    assert set(rule.mean) == {127.0}


def test_an_open_size_must_be_given_and_a_fixed_one_kept():
    with pytest.raises(InputError, match="--size"):
        Preprocessing.for_input(("n", 3, "h", "w"), "torch")
    assert Preprocessing.for_input(("n", 3, "h", "w"), "torch", size=(32, 48)).size == (32, 48)
    with pytest.raises(InputError, match="not the model's input"):
        Preprocessing.for_input(("n", 3, 64, 64), "torch", size=(32, 48))
    with pytest.raises(InputError, match="not that of RGB"):
        Preprocessing.for_input(("n", 10), "torch")


def test_a_baked_rule_takes_channels_last():
    with pytest.raises(InputError, match="channels last"):
        Preprocessing((8, 8), "NCHW", baked=True)

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

"""Names of layers, and which of them feed which."""

import pytest

import craft_onnx as co
from craft_onnx.relevance.layers import Layers


class Conv2d:
    """Stands for PyTorch's, which is known by its name."""


def test_names_are_those_of_the_model_in_order(birds):
    convolutions = ["features.0", "features.2", "features.4", "features.6", "features.8"]
    assert co.get_layer_names(birds, ["Conv", "Gemm"]) == [*convolutions, "head"]
    assert co.get_layer_names(birds, [Conv2d]) == convolutions
    assert co.get_layer_names(birds, ["Linear"]) == ["head"]


def test_every_name_means_its_own_layer(residual):
    names = co.get_layer_names(residual, ["Conv", "Relu", "Dense"])
    assert names == ["conv1", "act1", "conv2", "act2", "positive", "y"]
    assert [Layers(residual)[name].tensor for name in names] == names


def test_which_layer_feeds_which(residual):
    feeding = Layers(residual).feeding(["conv1", "conv2", "both", "y"])
    assert feeding == {"conv1": [], "conv2": ["conv1"], "both": ["conv1", "conv2"], "y": ["both"]}


@pytest.mark.parametrize("kinds", [["LSTM"], []])
def test_kinds_that_are_not_there(birds, kinds):
    with pytest.raises(co.InputError, match="The model has no layer of"):
        co.get_layer_names(birds, kinds)


def test_something_else_than_a_model():
    with pytest.raises(co.InputError, match="A function has no graph"):
        co.CondAttribution(lambda x: x)

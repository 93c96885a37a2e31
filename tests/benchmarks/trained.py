"""The ResNet50 of the benchmarks with trained weights, and photographs as it takes them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from common import ResNet50
from numpy.typing import NDArray
from torch import nn

MEANS = (103.939, 116.779, 123.68)  # of blue, green and red


def keras_resnet50(path: Path) -> ResNet50:
    """PyTorch's like of a Keras file with the layers and names of Keras's first ResNet50."""
    import keras

    layers = {layer.name: layer for layer in keras.saving.load_model(path).layers}
    net = ResNet50(stride_first=True)
    for conv, norm, name in _pairs(net):
        kernel, bias = layers[name].get_weights()
        conv.weight.data = torch.tensor(kernel.transpose(3, 2, 0, 1))
        source = layers[_norm_of(name)]
        gamma, beta, mean, variance = source.get_weights()
        norm.load_state_dict(_tensors(weight=gamma, bias=beta, running_mean=mean - bias, running_var=variance), False)
        norm.eps = source.epsilon
    kernel, bias = layers["fc1000"].get_weights()
    net.fc.load_state_dict(_tensors(weight=kernel.T, bias=bias))
    return net.eval()


def _pairs(net: ResNet50) -> Iterator[tuple[nn.Conv2d, nn.BatchNorm2d, str]]:
    """Every convolution, the normalization behind it, and Keras's name of the convolution."""
    yield net.stem[0], net.stem[1], "conv1"
    for number, stage in enumerate((net.layer1, net.layer2, net.layer3, net.layer4), start=2):
        for letter, block in zip("abcdef", stage, strict=False):
            for index, branch in enumerate(("2a", "2b", "2c")):
                yield block.body[3 * index], block.body[3 * index + 1], f"res{number}{letter}_branch{branch}"
            if isinstance(block.shortcut, nn.Sequential):
                yield block.shortcut[0], block.shortcut[1], f"res{number}{letter}_branch1"


def _norm_of(name: str) -> str:
    return "bn_conv1" if name == "conv1" else name.replace("res", "bn")


def _tensors(**arrays: NDArray[np.float32]) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(array) for name, array in arrays.items()}


def photographs(folder: Path, count: int, side: int = 224) -> NDArray[np.float32]:
    """The first pictures of a folder, their middle, (count, 3, side, side): blue, green and red without their means."""
    from PIL import Image, ImageOps

    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))[:count]
    pictures = [np.asarray(ImageOps.fit(Image.open(path).convert("RGB"), (side, side)), np.float32) for path in paths]
    return np.ascontiguousarray((np.stack(pictures)[..., ::-1] - np.array(MEANS, np.float32)).transpose(0, 3, 1, 2))

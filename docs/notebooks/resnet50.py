"""ResNet50 as PyTorch modules, with the children that torchvision's has, and weights from a file.

torchvision's file of weights (`resnet50-0676ba61.pth`, any with its names) loads as it is; so does a Keras ResNet50 of
2016 (`.keras`, layers named `res2a_branch2a` and so on), whose preprocessing is folded into the first convolution.
"""

from pathlib import Path

import torch
from torch import nn

BLOCKS = (3, 4, 6, 3)
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
KERAS_MEAN = torch.tensor([123.68, 116.779, 103.939])  # of red, green and blue, 0..255


class Bottleneck(nn.Module):
    """Three convolutions and a shortcut."""

    def __init__(self, fan_in: int, width: int, stride: int, first: bool) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(fan_in, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if first:
            shortcut = nn.Conv2d(fan_in, 4 * width, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(4 * width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Feature maps of 4 * width channels."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu(self.bn3(self.conv3(out)) + shortcut)


class ResNet50(nn.Module):
    """As in torchvision: the first eight children are everything before the pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        self.relu, self.maxpool = nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
        fan_in = 64
        for number, count in enumerate(BLOCKS):
            width = 64 << number
            blocks = [Bottleneck(fan_in, width, 1 if number == 0 else 2, True)]
            blocks += [Bottleneck(4 * width, width, 1, False) for _ in range(count - 1)]
            setattr(self, f"layer{number + 1}", nn.Sequential(*blocks))
            fan_in = 4 * width
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d((1, 1)), nn.Linear(2048, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (n, 1000) of images (n, 3, H, W)."""
        for child in list(self.children())[:9]:
            x = child(x)
        return self.fc(x.flatten(1))


def resnet50(weights: str | Path | None = None) -> ResNet50:
    """The network, with the weights of a file; without one they are random."""
    torch.manual_seed(0)
    model = ResNet50()
    if weights is None:
        return model
    if Path(weights).suffix == ".keras":
        _load_keras(model, weights)
    else:
        model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return model


@torch.no_grad()
def _load_keras(model: ResNet50, path: str | Path) -> None:
    """Weights of the network of 2015, which strides in the first convolution of a block."""
    import keras

    layers = {layer.name: layer for layer in keras.models.load_model(path, compile=False).layers}
    _fill(model.conv1, model.bn1, layers["conv1"], layers["bn_conv1"])
    _fold_preprocessing(model)
    for number, count in enumerate(BLOCKS):
        for block, letter in zip(getattr(model, f"layer{number + 1}"), "abcdef"[:count], strict=True):
            name = f"{number + 2}{letter}_branch"
            block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
            for i, part in enumerate("abc", 1):
                pair = getattr(block, f"conv{i}"), getattr(block, f"bn{i}")
                _fill(*pair, layers[f"res{name}2{part}"], layers[f"bn{name}2{part}"])
            if block.downsample is not None:
                _fill(*block.downsample, layers[f"res{name}1"], layers[f"bn{name}1"])
    kernel, bias = map(torch.tensor, layers["fc1000"].get_weights())
    model.fc.weight.copy_(kernel.T)
    model.fc.bias.copy_(bias)


def _fill(convolution: nn.Conv2d, norm: nn.BatchNorm2d, kernel, statistics) -> None:
    """A convolution and what follows it; Keras has a bias in between, which moves the mean."""
    weight, bias = map(torch.tensor, kernel.get_weights())
    gamma, beta, mean, variance = map(torch.tensor, statistics.get_weights())
    convolution.weight.copy_(weight.permute(3, 2, 0, 1))
    norm.weight.copy_(gamma)
    norm.bias.copy_(beta)
    norm.running_mean.copy_(mean - bias)
    norm.running_var.copy_(variance)
    norm.eps = statistics.epsilon


def _fold_preprocessing(model: ResNet50) -> None:
    """From blue, green, red less their means to (RGB / 255 - MEAN) / STD; half a grey value off at the border."""
    weight = model.conv1.weight.flip(1)
    model.bn1.running_mean -= (weight * (255 * MEAN - KERAS_MEAN).view(1, 3, 1, 1)).sum(dim=(1, 2, 3))
    model.conv1.weight.copy_(weight * (255 * STD).view(1, 3, 1, 1))

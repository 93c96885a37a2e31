"""MobileNetV2, ViT-B/16 and VGG16 with seeded random weights, beside the ResNet50 of `common`."""

from collections.abc import Callable

import torch
from common import resnet50
from torch import nn


class InvertedResidual(nn.Module):
    """Sandler et al. 2018, figure 4d."""

    def __init__(self, channels: int, out: int, stride: int, expansion: int):
        super().__init__()
        wide = channels * expansion
        expand = [nn.Conv2d(channels, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6()]
        self.body = nn.Sequential(
            *(expand if expansion > 1 else []),
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False), nn.BatchNorm2d(wide), nn.ReLU6(),
            nn.Conv2d(wide, out, 1, bias=False), nn.BatchNorm2d(out),
        )  # fmt: skip
        self.residual = stride == 1 and channels == out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x) if self.residual else self.body(x)


class MobileNetV2(nn.Module):
    """Sandler et al. 2018, table 2, width 1."""

    # expansion, channels, repeats, first stride
    TABLE = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))

    def __init__(self, classes: int = 1000):
        super().__init__()
        layers = [nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU6()]
        channels = 32
        for expansion, out, repeats, stride in self.TABLE:
            for repeat in range(repeats):
                layers.append(InvertedResidual(channels, out, 1 if repeat else stride, expansion))
                channels = out
        layers += [nn.Conv2d(channels, 1280, 1, bias=False), nn.BatchNorm2d(1280), nn.ReLU6()]
        self.features = nn.Sequential(*layers)
        self.fc = nn.Linear(1280, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.features(x).mean((2, 3)))


class Block(nn.Module):
    """A pre-norm transformer layer."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width, 1e-6), nn.LayerNorm(width, 1e-6)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def attention(self, x: torch.Tensor) -> torch.Tensor:
        n, tokens, width = x.shape
        q, k, v = self.qkv(x).reshape(n, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        weights = ((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(n, tokens, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """Dosovitskiy et al. 2020, table 1: ViT-Base with patches of 16."""

    def __init__(self, classes: int = 1000, width: int = 768, depth: int = 12, heads: int = 12):
        super().__init__()
        self.patches = nn.Conv2d(3, width, 16, 16)
        self.token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.positions = nn.Parameter(0.02 * torch.randn(1, 197, width))
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm, self.fc = nn.LayerNorm(width, 1e-6), nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.positions
        return self.fc(self.norm(self.blocks(x))[:, 0])


class VGG16(nn.Module):
    """Simonyan & Zisserman 2014, table 1, column D."""

    WIDTHS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))

    def __init__(self, classes: int = 1000):
        super().__init__()
        layers, channels = [], 3
        for width, repeats in self.WIDTHS:
            for _ in range(repeats):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Linear(7 * 7 * 512, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, classes)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x).flatten(1))


def _seeded(make: Callable[[], nn.Module]) -> nn.Module:
    """With weights under which activations neither vanish nor explode, and biases that differ."""
    torch.manual_seed(0)
    net = make()
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias, std=0.1)
    return net.eval()


NETWORKS = {
    "ResNet50": lambda: _seeded(resnet50),
    "MobileNetV2": lambda: _seeded(MobileNetV2),
    "ViT-B/16": lambda: _seeded(ViT),
}
# Those with the rules of every composite.
PLAIN_NETWORKS = {"VGG16": lambda: _seeded(VGG16), "ResNet50": NETWORKS["ResNet50"]}

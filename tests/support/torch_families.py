"""Families of classifiers in PyTorch, in their published shape with fewer channels: (N, 3, 64, 64) to (N, 5)."""

import torch
from torch import nn
from torch.nn.functional import gelu


def conv(inputs, outputs, kernel=3, stride=1, groups=1, activation=nn.ReLU):
    layers = [nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)]
    return nn.Sequential(*layers, nn.BatchNorm2d(outputs), *([activation()] if activation else []))


class Head(nn.Sequential):
    def __init__(self, channels):
        super().__init__(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 5))


class SqueezeExcite(nn.Module):
    def __init__(self, channels, inside, activation=nn.SiLU):
        super().__init__()
        self.down, self.up, self.activation = (
            nn.Conv2d(channels, inside, 1),
            nn.Conv2d(inside, channels, 1),
            activation(),
        )

    def forward(self, x):
        return x * torch.sigmoid(self.up(self.activation(self.down(x.mean((2, 3), keepdim=True)))))


class Bottleneck(nn.Module):
    """ResNet's; with groups and squeeze and excitation, RegNetY's."""

    def __init__(self, inputs, inside, outputs, stride=1, groups=1, squeeze=False):
        super().__init__()
        self.body = nn.Sequential(
            conv(inputs, inside, 1),
            conv(inside, inside, 3, stride, groups),
            SqueezeExcite(inside, inputs // 4, nn.ReLU) if squeeze else nn.Identity(),
            conv(inside, outputs, 1, activation=None),
        )
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else conv(inputs, outputs, 1, stride, activation=None)

    def forward(self, x):
        return torch.relu(self.body(x) + self.shortcut(x))


def resnet50():
    """He et al. 2015, the bottlenecks of table 1, an eighth as wide and less deep."""
    layers, channels = [conv(3, 8, 7, 2), nn.MaxPool2d(3, 2, 1)], 8
    for stage, (width, blocks) in enumerate([(8, 2), (16, 2), (32, 3), (64, 2)]):
        for block in range(blocks):
            layers.append(Bottleneck(channels, width, 4 * width, 2 if stage and not block else 1))
            channels = 4 * width
    return nn.Sequential(*layers, Head(channels))


def regnet():
    """RegNetY: grouped bottlenecks as wide inside as outside, with squeeze and excitation."""
    layers, channels = [conv(3, 8, 3, 2)], 8
    for width, blocks in [(16, 1), (32, 2), (48, 2)]:
        for block in range(blocks):
            layers.append(Bottleneck(channels, width, width, 1 if block else 2, width // 8, squeeze=True))
            channels = width
    return nn.Sequential(*layers, Head(channels))


class Inverted(nn.Module):
    """MobileNetV2's inverted residual; with squeeze and excitation and SiLU, EfficientNet's."""

    def __init__(self, inputs, outputs, expand, kernel, stride, activation, squeeze):
        super().__init__()
        inside = inputs * expand
        self.body = nn.Sequential(
            conv(inputs, inside, 1, activation=activation) if expand > 1 else nn.Identity(),
            conv(inside, inside, kernel, stride, inside, activation),
            SqueezeExcite(inside, max(1, inputs // 4)) if squeeze else nn.Identity(),
            conv(inside, outputs, 1, activation=None),
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x):
        return x + self.body(x) if self.residual else self.body(x)


def _mobile(stages, activation, squeeze):
    layers, channels = [conv(3, 8, 3, 2, activation=activation)], 8
    for expand, width, blocks, stride, kernel in stages:
        for block in range(blocks):
            layers.append(Inverted(channels, width, expand, kernel, 1 if block else stride, activation, squeeze))
            channels = width
    return nn.Sequential(*layers, conv(channels, 64, 1, activation=activation), Head(64))


def mobilenet_v2():
    """Sandler et al. 2018, table 2, a quarter as wide and less deep."""
    stages = [(1, 4, 1, 1), (6, 6, 2, 2), (6, 8, 2, 2), (6, 16, 2, 2), (6, 24, 1, 1), (6, 40, 2, 2), (6, 80, 1, 1)]
    return _mobile([(*stage, 3) for stage in stages], nn.ReLU6, squeeze=False)


def efficientnet():
    """Tan and Le 2019, table 1, a quarter as wide and less deep."""
    stages = [(1, 4, 1, 1, 3), (6, 6, 1, 2, 3), (6, 10, 2, 2, 5), (6, 20, 1, 2, 3), (6, 28, 2, 1, 5), (6, 48, 1, 2, 5)]
    return _mobile(stages, nn.SiLU, squeeze=True)


class Dense(nn.Module):
    def __init__(self, channels, growth):
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            conv(channels, 4 * growth, 1),
            nn.Conv2d(4 * growth, growth, 3, padding=1),
        )

    def forward(self, x):
        return torch.cat([x, self.body(x)], 1)


def densenet():
    """Huang et al. 2016: BatchNorm and ReLU before the convolutions, where they cannot be merged into them."""
    layers, channels, growth = [conv(3, 16, 7, 2), nn.MaxPool2d(3, 2, 1)], 16, 8
    for blocks in (2, 4, 3):
        for _ in range(blocks):
            layers.append(Dense(channels, growth))
            channels += growth
        channels //= 2
        layers.append(nn.Sequential(nn.BatchNorm2d(2 * channels), nn.ReLU(), nn.Conv2d(2 * channels, channels, 1)))
        layers.append(nn.AvgPool2d(2))
    return nn.Sequential(*layers[:-1], nn.BatchNorm2d(channels), nn.ReLU(), Head(channels))


class Attention(nn.Module):
    """Multi-head attention over the tokens (N, T, C), with a bias of the heads where one is given."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads, self.qkv, self.out = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x, bias=None):
        n, t, c = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.out(mixed.transpose(1, 2).reshape(n, t, c))


class Perceptron(nn.Sequential):
    def __init__(self, width):
        super().__init__(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))


class Encoder(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, 1e-6), nn.LayerNorm(width, 1e-6)
        self.attention, self.perceptron = Attention(width, heads), Perceptron(width)

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.perceptron(self.norm2(x))


class ViT(nn.Module):
    """Dosovitskiy et al. 2020: patches, a class token, positions, encoders."""

    def __init__(self, width=24, heads=3, blocks=2):
        super().__init__()
        self.patches = nn.Conv2d(3, width, 16, 16)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.positions = nn.Parameter(torch.randn(1, 17, width))
        self.blocks = nn.Sequential(*[Encoder(width, heads) for _ in range(blocks)])
        self.norm, self.head = nn.LayerNorm(width, 1e-6), nn.Linear(width, 5)

    def forward(self, x):
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(x.shape[0], -1, -1), tokens], 1) + self.positions
        return self.head(self.norm(self.blocks(tokens))[:, 0])


class ConvNeXtBlock(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.depthwise, self.norm = nn.Conv2d(width, width, 7, padding=3, groups=width), nn.LayerNorm(width, 1e-6)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.scale = nn.Parameter(torch.full((width,), 1e-6))

    def forward(self, x):
        inside = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        return x + (self.scale * self.down(gelu(self.up(inside)))).permute(0, 3, 1, 2)


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of a feature map."""

    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def convnext():
    """Liu et al. 2022, the stages of the tiny one, narrow and less deep."""
    layers = [nn.Conv2d(3, 8, 4, 4), ChannelNorm(8)]
    for stage, blocks in enumerate((1, 1, 2, 1)):
        width = 8 << stage
        if stage:
            layers += [ChannelNorm(width // 2), nn.Conv2d(width // 2, width, 2, 2)]
        layers += [ConvNeXtBlock(width) for _ in range(blocks)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), ChannelNorm(64), nn.Flatten(), nn.Linear(64, 5))


class Window(nn.Module):
    """Swin's block on maps (N, H, W, C): attention inside windows, shifted by rolling, with biases by position."""

    def __init__(self, width, heads, side, window, shift):
        super().__init__()
        self.side, self.window, self.shift = side, window, shift
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention, self.perceptron = Attention(width, heads), Perceptron(width)
        self.table = nn.Parameter(torch.randn((2 * window - 1) ** 2, heads))
        self.register_buffer("index", self._index())
        self.register_buffer("mask", self._mask())

    def forward(self, x):
        x = x + self._attend(self.norm1(x))
        return x + self.perceptron(self.norm2(x))

    def _attend(self, x):
        if self.shift:
            x = torch.roll(x, (-self.shift, -self.shift), (1, 2))
        windows = self._split(x)
        bias = self.table[self.index].permute(2, 0, 1)[None] + self.mask[:, None]  # (windows, heads, tokens, tokens)
        biases = bias.repeat(x.shape[0], 1, 1, 1)
        x = self._join(self.attention(windows, biases), x.shape[0])
        return torch.roll(x, (self.shift, self.shift), (1, 2)) if self.shift else x

    def _split(self, x):
        """Windows (N * windows, tokens, C)."""
        w, c = self.window, x.shape[-1]
        return x.reshape(-1, self.side // w, w, self.side // w, w, c).transpose(2, 3).reshape(-1, w * w, c)

    def _join(self, windows, batch):
        w, c, count = self.window, windows.shape[-1], self.side // self.window
        return windows.reshape(batch, count, count, w, w, c).transpose(2, 3).reshape(batch, self.side, self.side, c)

    def _index(self):
        """The row of the table for every pair of tokens of a window."""
        places = torch.stack(torch.meshgrid(torch.arange(self.window), torch.arange(self.window), indexing="ij"))
        offsets = (places.flatten(1)[:, :, None] - places.flatten(1)[:, None]) + self.window - 1
        return offsets[0] * (2 * self.window - 1) + offsets[1]

    def _mask(self):
        """-100 between tokens that were not neighbours before the map was rolled: (windows, tokens, tokens)."""
        region = torch.zeros(self.side)
        region[self.side - self.window :] += 1
        region[self.side - self.shift :] += 1 if self.shift else 0
        regions = self._split((3 * region[:, None] + region)[None, :, :, None])[..., 0]
        return torch.where(regions[:, None] == regions[:, :, None], 0.0, -100.0) * (self.shift > 0)


class Merging(nn.Module):
    """Four neighbours become one token of twice the width."""

    def __init__(self, width):
        super().__init__()
        self.norm, self.reduce = nn.LayerNorm(4 * width), nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x):
        corners = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.reduce(self.norm(torch.cat(corners, -1)))


class Swin(nn.Module):
    """Liu et al. 2021: two stages of two blocks."""

    def __init__(self, width=12):
        super().__init__()
        self.patches, self.norm = nn.Conv2d(3, width, 4, 4), nn.LayerNorm(2 * width)
        self.stages = nn.Sequential(
            Window(width, 3, 16, 4, 0), Window(width, 3, 16, 4, 2), Merging(width),
            Window(2 * width, 6, 8, 4, 0), Window(2 * width, 6, 8, 4, 2),
        )  # fmt: skip
        self.head = nn.Linear(2 * width, 5)

    def forward(self, x):
        x = self.norm(self.stages(self.patches(x).permute(0, 2, 3, 1)))
        return self.head(x.mean((1, 2)))


FAMILIES = {
    "resnet50": resnet50,
    "mobilenet_v2": mobilenet_v2,
    "efficientnet": efficientnet,
    "regnet": regnet,
    "densenet": densenet,
    "convnext": convnext,
    "vit": ViT,
    "swin": Swin,
}

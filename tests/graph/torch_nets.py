"""Small PyTorch networks, one for every family of classifiers, with seeded weights; used by the fixtures."""

import torch
from torch import nn


def conv(inputs, outputs, kernel=3, stride=1, groups=1, activation=nn.ReLU):
    layers = [nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups), nn.BatchNorm2d(outputs)]
    return nn.Sequential(*layers, *([activation()] if activation else []))


class Residual(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv1, self.conv2 = conv(channels, channels), conv(channels, channels, activation=None)
        self.relu = nn.ReLU()

    def forward(self, x):
        return self.relu(self.conv2(self.conv1(x)) + x)


class ResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = conv(3, 8, stride=2)
        self.layer1 = nn.Sequential(Residual(8), Residual(8))
        self.layer2 = nn.Sequential(conv(8, 16, stride=2), Residual(16))
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(16, 5)

    def forward(self, x):
        return self.fc(torch.flatten(self.avgpool(self.layer2(self.layer1(self.stem(x)))), 1))


class Dense(nn.Module):
    def __init__(self, channels, growth=4, count=3):
        super().__init__()
        self.layers = nn.ModuleList([conv(channels + i * growth, growth) for i in range(count)])

    def forward(self, x):
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return x


class DenseNet(nn.Module):
    """With an average over the positions written as one, and a network of two layers behind it."""

    def __init__(self):
        super().__init__()
        self.stem, self.block1 = conv(3, 8, stride=2), Dense(8)
        self.transition = nn.Sequential(conv(20, 12, 1), nn.AvgPool2d(2))
        self.block2 = Dense(12)
        self.classifier = nn.Sequential(nn.Linear(24, 10), nn.ReLU(), nn.Linear(10, 5))

    def forward(self, x):
        return self.classifier(self.block2(self.transition(self.block1(self.stem(x)))).mean((2, 3)))


class SqueezeExcite(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.pool, self.down, self.up = nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, 4, 1), nn.Conv2d(4, channels, 1)

    def forward(self, x):
        return x * torch.sigmoid(self.up(torch.relu(self.down(self.pool(x)))))


class MobileNet(nn.Module):
    """With squeeze and excitation, hard swish, and 1x1 convolutions behind the pooling."""

    def __init__(self):
        super().__init__()
        self.stem = conv(3, 8, stride=2, activation=nn.Hardswish)
        self.block1 = nn.Sequential(conv(8, 16, 1), conv(16, 16, groups=16), SqueezeExcite(16), conv(16, 8, 1))
        self.block2 = nn.Sequential(conv(8, 16, 1, activation=nn.ReLU6), conv(16, 16, 3, 2, 16, nn.ReLU6))
        self.pool, self.head, self.classifier = nn.AdaptiveAvgPool2d(1), nn.Conv2d(16, 12, 1), nn.Conv2d(12, 5, 1)

    def forward(self, x):
        x = self.pool(self.block2(self.block1(self.stem(x))))
        return torch.flatten(self.classifier(nn.functional.hardswish(self.head(x))), 1)


class VGG(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(conv(3, 8), nn.MaxPool2d(2), conv(8, 12), nn.MaxPool2d(2))
        self.classifier = nn.Sequential(nn.Linear(12 * 64, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 5))

    def forward(self, x):
        x = self.features(x)
        return self.classifier(x.view(x.shape[0], -1))


class FlatLinear(nn.Module):
    """Convolutions, then one linear layer over all positions: affine, not pooled."""

    def __init__(self):
        super().__init__()
        self.features, self.fc = nn.Sequential(conv(3, 8, stride=2), conv(8, 12, stride=2)), nn.Linear(12 * 64, 5)

    def forward(self, x):
        return self.fc(self.features(x).flatten(1))


class ViT(nn.Module):
    """Patches, a class token, two blocks of PyTorch's own encoder; the batch size is read at the beginning."""

    def __init__(self, mean=False):
        super().__init__()
        self.mean = mean
        self.patches = nn.Conv2d(3, 12, 8, 8)
        self.class_token = nn.Parameter(torch.randn(1, 1, 12))
        self.blocks = nn.ModuleList([Block(12) for _ in range(2)])
        self.norm, self.head = nn.LayerNorm(12), nn.Linear(12, 5)

    def forward(self, x):
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(x.shape[0], -1, -1), tokens], 1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(torch.relu(tokens).mean(1) if self.mean else self.norm(tokens)[:, 0])


class Block(nn.Module):
    def __init__(self, width, heads=2):
        super().__init__()
        self.heads, self.norm1, self.norm2 = heads, nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x):
        n, t, p = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(n, t, 3, self.heads, p // self.heads).permute(2, 0, 3, 1, 4)
        mixed = torch.softmax(q @ k.transpose(-1, -2) / p**0.5, -1) @ v
        x = x + self.out(mixed.transpose(1, 2).reshape(n, t, p))
        return x + self.mlp(self.norm2(x))


class ConvNeXt(nn.Module):
    """Channels last inside the blocks, a LayerNorm behind the pooling."""

    def __init__(self):
        super().__init__()
        self.stem, self.depthwise = nn.Conv2d(3, 8, 4, 4), nn.Conv2d(8, 8, 7, padding=3, groups=8)
        self.norm, self.up, self.down = nn.LayerNorm(8), nn.Linear(8, 32), nn.Linear(32, 8)
        self.head_norm, self.head = nn.LayerNorm(8), nn.Linear(8, 5)

    def forward(self, x):
        x = self.stem(x)
        inside = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        x = x + self.down(nn.functional.gelu(self.up(inside))).permute(0, 3, 1, 2)
        return self.head(self.head_norm(torch.relu(x).mean([2, 3])))


class MLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 20), nn.ReLU(), nn.Linear(20, 5))

    def forward(self, x):
        return self.net(x)


NETS = {
    "resnet": ResNet,
    "densenet": DenseNet,
    "mobilenet": MobileNet,
    "vgg": VGG,
    "flat": FlatLinear,
    "vit": ViT,
    "vit_mean": lambda: ViT(mean=True),
    "convnext": ConvNeXt,
    "mlp": MLP,
}


def built(name):
    """A network, (N, 3, 32, 32) to (N, 5), always with the same weights."""
    torch.manual_seed(0)
    net = NETS[name]().eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):  # statistics other than 0 and 1, so that merging them is not trivial
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    return net


def exported(name):
    """The ONNX model of a network, with a dynamic batch and its layers' names."""
    program = torch.onnx.export(
        built(name),
        (torch.zeros(2, 3, 32, 32),),
        dynamo=True,
        external_data=False,
        verbose=False,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
    )
    return program.model

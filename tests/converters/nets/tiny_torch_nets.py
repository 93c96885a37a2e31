"""Small PyTorch nets with trained-like statistics, as a user's own module: factories and pickles import it by name."""

import torch
from torch import nn

INPUT_SHAPE = (3, 16, 16)


class Block(nn.Module):
    def __init__(self, before, after):
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = nn.Conv2d(before, after, 1)

    def forward(self, x):
        return self.relu(self.bn1(self.conv1(x)) + self.downsample(x))


class TinyResNet(nn.Module):
    def __init__(self, head=None):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.layer3 = nn.Sequential(Block(8, 8))
        self.layer4 = nn.Sequential(Block(8, 12), Block(12, 12))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.5)
        self.fc = nn.Linear(12, 5)
        self.head = head or nn.Identity()

    def forward(self, x):
        x = self.layer4(self.layer3(self.relu(self.bn1(self.conv1(x)))))
        return self.head(self.fc(self.dropout(torch.flatten(self.avgpool(x), 1))))


class MatrixExponential(nn.Module):
    def forward(self, x):
        return torch.linalg.matrix_exp(x[:, :, None] * x[:, None, :]).sum(1)


class OnlyPairs(nn.Module):
    def forward(self, x):
        return x.reshape(2, 5).roll(1, 0)


class Branching(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else 2 * x


def trained(net, seed=0):
    """The net with statistics like those of training, in training mode, as constructors leave it."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in net.state_dict().items():
        if tensor.is_floating_point():
            noise = torch.randn(tensor.shape, generator=generator)
            positive = name.endswith(("running_var", "bn1.weight"))
            tensor.copy_(0.5 + noise.abs() if positive else 0.4 * noise)
    return net


def resnet():
    return trained(TinyResNet())


def softmax_resnet():
    return trained(TinyResNet(nn.Softmax(1)))


def not_a_model():
    return {"weights": 1}


def broken():
    raise KeyError("checkpoint")


def fully_convolutional():
    """Class maps pooled to (N, classes, 1, 1), as in SqueezeNet."""
    return trained(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 5, 1), nn.AdaptiveAvgPool2d(1)))

"""The networks of the benchmark as zennit wants them, and its attributor."""

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from common import Bottleneck, ResNet50
from networks import PLAIN_NETWORKS
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))
from zoo.catalogue import import_torchvision

import_torchvision()  # zennit imports it too, and cannot where it was built for another PyTorch

from zennit.attribution import Gradient
from zennit.canonizers import SequentialMergeBatchNorm
from zennit.composites import EpsilonPlusFlat
from zennit.layer import Sum


class Residual(nn.Module):
    """A block whose sum is a module, for which there is a rule."""

    def __init__(self, block: Bottleneck):
        super().__init__()
        self.body, self.shortcut, self.sum, self.relu = block.body, block.shortcut, Sum(), nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(self.sum(torch.stack([self.shortcut(x), self.body(x)], -1)))


def _with_modules(net: nn.Module) -> nn.Module:
    """Sums and averages as modules."""
    if not isinstance(net, ResNet50):
        return net
    blocks = [Residual(block) for stage in (net.layer1, net.layer2, net.layer3, net.layer4) for block in stage]
    return nn.Sequential(net.stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), net.fc)


def attributor(network: str) -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    """From pictures and what relevance starts from to the prediction and the relevance of the pictures."""
    net = _with_modules(PLAIN_NETWORKS[network]())  # zennit is slower with channels last
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    composite = EpsilonPlusFlat(canonizers=[SequentialMergeBatchNorm()])
    return Gradient(model=net, composite=composite).__enter__()

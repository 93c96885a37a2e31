"""The small network as PyTorch modules, for the packages that want such; and how a record is written."""

from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).parent


def halves(weights, head):
    """g and h, through the head "linear" or "mlp"."""

    def layer(kind, name, *args, **kwargs):
        module = kind(*args, **kwargs)
        module.weight.data, module.bias.data = map(torch.from_numpy, weights[name])
        return module

    conv, fc = torch.nn.Conv2d, torch.nn.Linear
    relu, pool, flat = torch.nn.ReLU, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    g = torch.nn.Sequential(
        layer(conv, "conv1", 3, 12, 5, stride=2), relu(), layer(conv, "conv2", 12, 24, 3, stride=2), relu()
    )
    linear = [layer(fc, "linear", 24, 5)]
    mlp = [layer(fc, "hidden", 24, 16), relu(), layer(fc, "out", 16, 5)]
    return g.eval(), torch.nn.Sequential(pool, flat, *(linear if head == "linear" else mlp)).eval()


def write(name, packages, values):
    """Save the arrays with the versions of the packages that made them."""
    path = HERE / f"{name}.npz"
    values = {"versions": np.array([f"{package} {version(package)}" for package in packages])} | values
    np.savez_compressed(path, **values)
    print({name: getattr(value, "shape", value) for name, value in values.items()}, path.stat().st_size, "bytes")

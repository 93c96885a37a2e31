"""Record what Xplique's CraftTorch computes for the small network: python tests/concepts/record_xplique.py

Needs an environment of its own with xplique and torch; see the versions in the file it writes.
"""

from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from small_net import first_half, network, pictures
from xplique.concepts import CraftTorch

OUT = Path(__file__).parent / "data" / "xplique.npz"
SETTINGS = {"number_of_concepts": 6, "batch_size": 16, "patch_size": 16, "device": "cpu"}
CLASS_ID = 2


def torch_halves(weights, head):
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


def record():
    weights, images = network(), pictures()
    packages = ("xplique", "torch", "scikit-learn", "scipy")
    values = {"versions": np.array([f"{name} {version(name)}" for name in packages])}
    for head in ("linear", "mlp"):
        g, h = torch_halves(weights, head)
        craft = CraftTorch(g, h, **SETTINGS)
        np.random.seed(0)  # noqa: NPY002  # scikit-learn's NMF in Xplique draws from numpy's global state
        crops, crops_u, w = craft.fit(torch.from_numpy(images), class_id=CLASS_ID)
        values[f"{head}_importances"] = craft.estimate_importance()
        values[f"{head}_local"] = craft.estimate_importance(torch.from_numpy(images[3:4]))
    values |= {
        "crops_shape": np.array(crops.shape),
        "crops_index": np.array([0, 1, 5, 50, 107]),
        "crops": crops[[0, 1, 5, 50, 107]],
        "crops_u": crops_u,
        "w": w,
        "transform": craft.transform(torch.from_numpy(images[:3])),
    }
    ours, theirs = first_half(weights)(images), g(torch.from_numpy(images)).detach().numpy()
    print("numpy against torch, g:", np.abs(ours - theirs).max())
    OUT.parent.mkdir(exist_ok=True)
    np.savez_compressed(OUT, **values)
    print({name: getattr(value, "shape", value) for name, value in values.items()}, OUT.stat().st_size, "bytes")


if __name__ == "__main__":
    record()

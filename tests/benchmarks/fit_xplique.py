"""One run of fit + importance with Xplique's CraftTorch; prints JSON. Run by fit_importance.py in Xplique's Python.

COUNT, of random pictures, or FOLDER with the network and the pictures that fit_importance.py has written
"""

import json
import sys
import time
import warnings

warnings.filterwarnings("ignore")

import numpy as np
import torch
from common import THREADS, ResNet50, resnet50
from memory_peak import peak_mb
from torch import nn
from xplique.concepts import CraftTorch

torch.set_num_threads(THREADS)


class Head(nn.Module):
    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, a: torch.Tensor) -> torch.Tensor:
        return self.net.head(a)


def given(source: str) -> tuple[nn.Module, np.ndarray]:
    """The network and the pictures."""
    if source.isdigit():
        shape = (3, 224, 224)
        return resnet50(), np.stack(
            [np.random.default_rng(i).normal(size=shape).astype(np.float32) for i in range(int(source))]
        )
    net = ResNet50(stride_first=True)
    net.load_state_dict(torch.load(f"{source}/weights.pt"))
    return net.eval(), np.load(f"{source}/pictures.npy")


def main(source: str) -> None:
    """Fit and estimate, on the same pictures as in fit_ours.py."""
    net, x = given(source)
    g = nn.Sequential(net.stem, net.layer1, net.layer2, net.layer3, net.layer4)
    start = time.perf_counter()
    craft = CraftTorch(g, Head(net), number_of_concepts=10, patch_size=80, batch_size=64, device="cpu")
    craft.fit(torch.from_numpy(x), class_id=0)
    fitted = time.perf_counter()
    craft.estimate_importance()
    end = time.perf_counter()

    print(
        json.dumps(
            {"fit_s": fitted - start, "importance_s": end - fitted, "total_s": end - start, "peak_mb": peak_mb()}
        )
    )


if __name__ == "__main__":
    main(sys.argv[1])

"""One side of `relmax.py`, in a process of its own: FOLDER SIDE."""

import os

THREADS = int(os.environ.setdefault("OMP_NUM_THREADS", "2"))

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from serving import serve

BATCH = 8
Array = NDArray[np.float32]


def ours(folder: Path, x: Array, classes: list[int]) -> Callable[[], Any]:
    """FeatureVisualization on the ONNX file."""
    import craft_onnx as co

    attribution = co.CondAttribution(co.load(folder / "bundle", threads=THREADS))
    layers = dict.fromkeys(co.get_layer_names(attribution.model, ["Conv", "Gemm"]), co.ChannelConcept())
    dataset = list(zip(x, classes, strict=True))

    def run() -> Array:
        with tempfile.TemporaryDirectory() as path:
            found = co.FeatureVisualization(attribution, dataset, layers, path=path)
            found.run("epsilon_plus_flat", batch_size=BATCH)
            return np.concatenate([found.best(layer).rel[0] for layer in layers])

    return run


def zennit_crp(folder: Path, x: Array, classes: list[int]) -> Callable[[], Any]:
    """zennit-crp on PyTorch."""
    import torch
    import zennit_nets  # makes torchvision importable, which zennit-crp needs
    from crp.attribution import CondAttribution
    from crp.concepts import ChannelConcept
    from crp.helper import get_layer_names, load_maximization
    from crp.visualization import FeatureVisualization

    torch.set_num_threads(THREADS)
    net = zennit_nets.PLAIN_NETWORKS["VGG16"]()
    layers = dict.fromkeys(get_layer_names(net, [torch.nn.Conv2d, torch.nn.Linear]), ChannelConcept())
    dataset = [(torch.from_numpy(row), one) for row, one in zip(x, classes, strict=True)]
    attribution = CondAttribution(net)

    def run() -> Array:
        with tempfile.TemporaryDirectory() as path:
            found = FeatureVisualization(attribution, dataset, layers, path=path, device="cpu")
            found.run(zennit_nets.EpsilonPlusFlat(), 0, len(dataset), BATCH)
            return np.concatenate([load_maximization(found.RelMax.PATH, layer)[1][0] for layer in layers])

    return run


SIDES = {"ours": ours, "zennit-crp": zennit_crp}

if __name__ == "__main__":
    folder, side = Path(sys.argv[1]), sys.argv[2]
    x, classes = np.load(folder / "x.npy"), np.load(folder / "classes.npy").tolist()
    run = SIDES[side](folder, x, classes)
    np.save(folder / f"{side}.npy", run())
    serve(run)

"""One side of `relevance.py`, in a process of its own: FOLDER SIDE NETWORK."""

import os

THREADS = int(os.environ.setdefault("OMP_NUM_THREADS", "2"))
# On a machine that others use too, threads of PyTorch that wait busily for each other take ten times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from serving import serve

COMPOSITE, CONDITIONS = "epsilon_plus_flat", 10
# Where the conditions are: the last feature map.
LAYERS = {"VGG16": "features", "ResNet50": "layer4"}
Array = NDArray[np.float32]


def forward(folder: Path, network: str, x: Array, classes: list[int]) -> Callable[[], Any]:
    """onnxruntime's forward pass alone."""
    model = _model(folder)
    return lambda: model.predict(x, len(x))


def ours(folder: Path, network: str, x: Array, classes: list[int]) -> Callable[[], Any]:
    """A call of CondAttribution, a class for each picture."""
    attribution = _attribution(folder)
    return lambda: attribution(x, _classes(classes), COMPOSITE, batch_size=len(x)).heatmap


def ten(folder: Path, network: str, x: Array, classes: list[int]) -> Callable[[], Any]:
    """Ten conditions on the same layer in one call."""
    attribution, conditions = _attribution(folder), _channels(network, classes)

    def run() -> Array:
        results = attribution.generate(x, conditions, COMPOSITE, batch_size=1)
        return np.stack([result.heatmap for result in results])

    return run


def calls(folder: Path, network: str, x: Array, classes: list[int]) -> Callable[[], Any]:
    """The same conditions in ten calls."""
    attribution, conditions = _attribution(folder), _channels(network, classes)
    return lambda: np.stack([attribution(x, [one], COMPOSITE, batch_size=len(x)).heatmap for one in conditions])


def zennit(folder: Path, network: str, x: Array, classes: list[int]) -> Callable[[], Any]:
    """Zennit on PyTorch, with its canonizer and its module for sums of branches."""
    import torch
    from zennit_nets import attributor

    torch.set_num_threads(THREADS)
    attribute = attributor(network)
    selected = torch.zeros(len(x), 1000)
    selected[range(len(x)), classes] = 1

    def run() -> Array:
        return attribute(torch.from_numpy(x), lambda prediction: prediction * selected)[1].detach().numpy().sum(axis=1)

    return run


def _model(folder: Path) -> Any:
    import craft_onnx as co

    return co.load(folder / "bundle", threads=THREADS)


def _attribution(folder: Path) -> Any:
    import craft_onnx as co

    return co.CondAttribution(_model(folder))


def _classes(classes: list[int]) -> list[dict[str, Any]]:
    return [{"y": [one]} for one in classes]


def _channels(network: str, classes: list[int]) -> list[dict[str, Any]]:
    return [{LAYERS[network]: [channel], "y": [classes[0]]} for channel in range(CONDITIONS)]


SIDES = {"forward": forward, "ours": ours, "zennit": zennit, "ten": ten, "calls": calls}

if __name__ == "__main__":
    folder, side, network = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    x, classes = np.load(folder / "x.npy"), np.load(folder / "classes.npy").tolist()
    run = SIDES[side](folder, network, x, classes)
    np.save(folder / f"{side}.npy", run())
    serve(run)

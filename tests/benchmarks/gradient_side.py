"""One side of `gradient.py`, in a process of its own: FOLDER SIDE NETWORK ROWS DEVICE."""

import os

THREADS = int(os.environ.setdefault("OMP_NUM_THREADS", "2"))

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray
from serving import serve

COTANGENTS = 10
Array = NDArray[np.float32]
Product = Callable[[Array, Array], Array]  # of x and a cotangent


def forward(folder: Path, network: str, device: str) -> Product:
    """onnxruntime's forward pass alone."""
    from craft_onnx.runtime.sessions import Session

    session = Session(folder / "model.onnx", device, THREADS)
    return lambda x, cotangent: session.run({session.inputs[0].name: x})[0]


def combined(folder: Path, network: str, device: str) -> Product:
    """The combined gradient graph."""
    from craft_onnx.runtime.sessions import Session

    session = Session(folder / "gradient.onnx", device, THREADS)
    return lambda x, cotangent: session.run({session.inputs[0].name: x, "cotangent": cotangent})[0]


def pair(folder: Path, network: str, device: str) -> Product:
    """One forward pass and ten cotangents."""
    from craft_onnx.runtime.pullback import Pair
    from craft_onnx.runtime.sessions import Session

    both = Pair(*(Session(folder / f"{part}.onnx", device, THREADS) for part in ("forward", "backward")))

    def run(x: Array, cotangent: Array) -> Array:
        _, pull = both(x)
        return [pull(cotangent).numpy() for _ in range(COTANGENTS)][-1]

    return run


def torch_autograd(folder: Path, network: str, device: str) -> Product:
    """PyTorch on the network as it was defined."""
    from networks import NETWORKS

    return autograd(NETWORKS[network](), device)


def onnx2torch(folder: Path, network: str, device: str) -> Product:
    """PyTorch on the network as onnx2torch reads it from the same file."""
    import torch

    # The torchvision of PyPI, which onnx2torch imports, declares operators that a CPU build of PyTorch has not got.
    with mock.patch.object(torch.library, "register_fake", lambda *names, **options: lambda function: function):
        from onnx2torch import convert

    return autograd(convert(folder / "exported.onnx").eval(), device)


def autograd(net: Any, device: str) -> Product:
    """The derivative to the input alone, in channels_last, the faster memory format."""
    import torch

    torch.set_num_threads(THREADS)
    net = net.to(device, memory_format=torch.channels_last)
    for parameter in net.parameters():
        parameter.requires_grad_(False)

    def run(x: Array, cotangent: Array) -> Array:
        image = torch.from_numpy(x).to(device).contiguous(memory_format=torch.channels_last).requires_grad_()
        return torch.autograd.grad(net(image), image, torch.from_numpy(cotangent).to(device))[0].cpu().numpy()

    return run


SIDES = {
    "forward": forward,
    "combined": combined,
    "pair": pair,
    "torch": torch_autograd,
    "onnx2torch": onnx2torch,
}

if __name__ == "__main__":
    folder, side, network, rows, device = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5]
    given = [np.load(folder / f"{name}.npy") for name in ("x", "cotangent")]
    parts = [[array[start : start + rows] for array in given] for start in range(0, len(given[0]), rows)]
    product = SIDES[side](folder, network, device)

    def run() -> Array:
        """The gradient for all rows, some at a time."""
        return np.concatenate([product(*part) for part in parts])

    np.save(folder / f"{side}.npy", run())  # what cannot be differentiated is known before anything is timed
    serve(run)

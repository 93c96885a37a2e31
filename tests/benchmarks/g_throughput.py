"""g of ResNet50 on resized crops: onnxruntime against PyTorch, and against onnxruntime's own GEMM rate."""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import onnx.parser
import torch
from common import THREADS, interleaved, resnet50, resnet50_bundle
from numpy.typing import NDArray

from craft_onnx.runtime.model import load
from craft_onnx.runtime.sessions import Session

BATCH = {"cpu": 16, "cuda": 64}
GFLOP = 2 * 4.089  # of one 224 x 224 picture through the convolutions: multiply-adds counted twice
GEMM = 2048  # side of the square matrices of the GEMM that sets the rate


def gemm_session() -> Session:
    """A product of two matrices that onnxruntime cannot fold."""
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 18]> gemm (float[{GEMM},{GEMM}] a, float[{GEMM},{GEMM}] b) '
        f"=> (float[{GEMM},{GEMM}] c) {{ c = MatMul(a, b) }}"
    )
    return Session(model.SerializeToString(), threads=THREADS)


def through_torch(x: NDArray[np.float32], device: str, memory_format: torch.memory_format) -> NDArray[np.float32]:
    """A function that runs g in PyTorch, from an array in main memory to an array there."""
    net = resnet50().to(device, memory_format=memory_format)
    return lambda: net.features(torch.from_numpy(x).to(device, memory_format=memory_format)).cpu().numpy()


def main() -> None:
    """Print images a second and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=list(BATCH), default="cpu")
    device = parser.parse_args().device
    torch.backends.cudnn.allow_tf32 = False  # craft_onnx computes in full float32 too
    batch = BATCH[device]
    x = np.random.default_rng(0).normal(size=(batch, 3, 224, 224)).astype(np.float32)
    a = np.random.default_rng(1).normal(size=(GEMM, GEMM)).astype(np.float32)
    gemm = gemm_session()
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        model = load(resnet50_bundle(Path(folder)), providers=device, threads=THREADS)
        sides = {
            "craft_onnx g": lambda: model.g(x, batch),
            "torch, default layout": through_torch(x, device, torch.contiguous_format),
            "torch, channels_last": through_torch(x, device, torch.channels_last),
        }
        if device == "cpu":
            sides["gemm"] = lambda: gemm.run({"a": a, "b": a})
        seconds = interleaved(sides)
    ours = seconds["craft_onnx g"]
    name = torch.cuda.get_device_name() if device == "cuda" else f"{THREADS} threads"
    print(f"ResNet50 at 224, batch {batch}, float32, {name}")
    for side, value in seconds.items():
        if side != "gemm":
            print(f"{side:24s} {batch / value:8.1f} images/s   {value / ours:5.2f}x the time of craft_onnx")
    if "gemm" in seconds:
        rate = 2e-9 * GEMM**3 / seconds["gemm"]
        print(f"craft_onnx g: {GFLOP * batch / ours / rate:.2f} of onnxruntime's GEMM rate, {rate:.0f} GFLOP/s")


if __name__ == "__main__":
    main()

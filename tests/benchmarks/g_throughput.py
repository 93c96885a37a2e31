"""g of ResNet50 on resized crops: onnxruntime against PyTorch, and against onnxruntime's own GEMM rate."""

import tempfile
from pathlib import Path

import numpy as np
import onnx.parser
import torch
from common import THREADS, interleaved, resnet50, resnet50_bundle

from craft_onnx.runtime.model import load
from craft_onnx.runtime.sessions import Session

BATCH = 16
GFLOP = 2 * 4.089  # of one 224 x 224 picture through the convolutions: multiply-adds counted twice
GEMM = 2048  # side of the square matrices of the GEMM that sets the rate


def gemm_session() -> Session:
    """A product of two matrices that onnxruntime cannot fold."""
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 18]> gemm (float[{GEMM},{GEMM}] a, float[{GEMM},{GEMM}] b) '
        f"=> (float[{GEMM},{GEMM}] c) {{ c = MatMul(a, b) }}"
    )
    return Session(model.SerializeToString(), threads=THREADS)


def main() -> None:
    """Print images a second and the ratios."""
    x = np.random.default_rng(0).normal(size=(BATCH, 3, 224, 224)).astype(np.float32)
    a = np.random.default_rng(1).normal(size=(GEMM, GEMM)).astype(np.float32)
    net, tensor, gemm = resnet50(), torch.from_numpy(x), gemm_session()
    last = resnet50().to(memory_format=torch.channels_last)
    tensor_last = tensor.to(memory_format=torch.channels_last)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        model = load(resnet50_bundle(Path(folder)), threads=THREADS)
        seconds = interleaved(
            {
                "craft_onnx g": lambda: model.g(x, BATCH),
                "torch, default layout": lambda: net.features(tensor),
                "torch, channels_last": lambda: last.features(tensor_last),
                "gemm": lambda: gemm.run({"a": a, "b": a}),
            }
        )
    rate = 2e-9 * GEMM**3 / seconds.pop("gemm")
    ours = seconds["craft_onnx g"]
    print(f"ResNet50, batch {BATCH}, {THREADS} threads; onnxruntime's GEMM rate {rate:.0f} GFLOP/s")
    for name, value in seconds.items():
        print(f"{name:24s} {BATCH / value:7.1f} images/s   {value / ours:5.2f}x the time of craft_onnx")
    print(f"craft_onnx g reaches {GFLOP * BATCH / ours / rate:.2f} of the GEMM rate")


if __name__ == "__main__":
    main()

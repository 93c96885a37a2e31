"""What onnx2torch makes of an ONNX file: ``python rival.py MODEL.onnx``; prints one line of JSON.

Beside the model lie a random input, a cotangent and the framework's gradient (.npz).
"""

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

for library in [torch.library.Library("torchvision", "FRAGMENT")]:  # torchvision may be of another build
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def main(path: str) -> dict[str, Any]:
    """Cosine of the gradient by way of PyTorch, or why there is none."""
    try:
        import onnx2torch

        net = onnx2torch.convert(path).eval()
    except Exception as error:
        return {"ok": False, "reason": f"conversion: {_line(error)}"}
    try:
        return _gradient(net, np.load(Path(path).with_suffix(".npz")))
    except Exception as error:
        return {"ok": False, "reason": f"gradient: {_line(error)}"}


def _gradient(net: torch.nn.Module, arrays: Any) -> dict[str, Any]:
    x = torch.tensor(arrays["x"], requires_grad=True)
    (found,) = torch.autograd.grad(net(x), x, torch.tensor(arrays["cotangent"]))
    wide = arrays["wide"].ravel()
    cosine = float(found.numpy().ravel() @ wide / np.linalg.norm(found) / np.linalg.norm(wide))
    return {"ok": cosine >= 0.9999, "cosine": cosine}


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}"[:200]


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        print(json.dumps(main(sys.argv[1])))

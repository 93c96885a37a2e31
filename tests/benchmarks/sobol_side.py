"""One side of `sobol.py`, in a process of its own: FOLDER SIDE."""

import os

THREADS = int(os.environ.setdefault("OMP_NUM_THREADS", "2"))

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from serving import serve

Case = dict[str, Any]


def write_head(path: Path, case: Case) -> None:
    """h as an ONNX file: global average pooling and a linear layer."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    channels, classes = case["w"].shape[1], len(case["bias"])
    nodes = [
        helper.make_node("GlobalAveragePool", ["a"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weight", "bias"], ["logits"], transB=1),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "h",
        [value("a", TensorProto.FLOAT, ["N", channels, 7, 7])],
        [value("logits", TensorProto.FLOAT, ["N", classes])],
        [numpy_helper.from_array(case[name], name) for name in ("weight", "bias")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)


def ours(case: Case, folder: Path, side: str) -> Callable[[], Any]:
    """Indices through the folded head."""
    from craft_onnx.concepts.halves import find_halves
    from craft_onnx.concepts.head import folded_head, graph_head
    from craft_onnx.concepts.importance import Sampling, linear_importance, sampled_importance
    from craft_onnx.graph.load import save
    from craft_onnx.runtime.sessions import Session

    path = folder / f"{side}.onnx"
    write_head(path, case)
    proven = folded_head(find_halves(lambda x: x, path), case["w"], 0, "NCHW", (7, 7), 64)
    assert proven.graph is not None and proven.head.pooled and proven.head.linear
    save(proven.graph, path)
    head = graph_head(Session(path, threads=THREADS), len(case["w"]), True, True, 64)
    if side == "exact":
        return lambda: linear_importance(head, head.reduced(case["u"])).values
    sampling = Sampling("halton", nb_design=32) if side == "sampled" else Sampling()
    return lambda: sampled_importance(head, head.reduced(case["u"]), sampling).values


def xplique(case: Case, folder: Path, side: str) -> Callable[[], Any]:
    """CraftTorch.estimate_importance with the coefficients at hand: masks, reconstruction, h, Jansen's estimator."""
    import torch
    from xplique.concepts import CraftTorch
    from xplique.concepts.craft import Factorization

    torch.set_num_threads(THREADS)
    linear = torch.nn.Linear(case["w"].shape[1], len(case["bias"]))
    linear.weight.data, linear.bias.data = torch.from_numpy(case["weight"]), torch.from_numpy(case["bias"])
    h = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), linear).eval()
    craft = CraftTorch(torch.nn.Identity(), h, number_of_concepts=len(case["w"]), device="cpu")
    craft.factorization = Factorization(None, 0, None, None, None, case["w"])
    craft.transform = lambda inputs: case["u"]
    return lambda: craft.estimate_importance()


def main(name: str, side: str) -> None:
    """Keep the values once, then run as often as asked."""
    folder = Path(name)
    with np.load(folder / "case.npz") as file:
        case = dict(file)
    run = (xplique if side == "xplique" else ours)(case, folder, side)
    np.save(folder / f"{side}.npy", run())
    serve(run)


if __name__ == "__main__":
    main(*sys.argv[1:])

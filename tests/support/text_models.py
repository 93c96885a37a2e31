"""Models in float64 from ONNX's text, with arrays for weights."""

import numpy as np
import onnx_ir as ir


def model_of(body, shape, weights=None, rank=None):
    """From x (its first axis open) to y, which has as many axes as x or `rank`."""
    sizes = ",".join(["n", *map(str, shape[1:])])
    open_sizes = ",".join(f"s{axis}" for axis in range(rank or len(shape)))
    given = ", ".join(_literal(name, array) for name, array in (weights or {}).items())
    return ir.from_onnx_text(
        f"""<ir_version: 10, opset_import: ["" : 18]>
        g (double[{sizes}] x) => (double[{open_sizes}] y) {f"<{given}>" if given else ""} {{ {body} }}"""
    )


def _literal(name, array):
    array = np.asarray(array)
    kind = "int64" if array.dtype.kind == "i" else "double"
    sizes = f"[{','.join(map(str, array.shape))}]" if array.shape else ""
    return f"{kind}{sizes} {name} = {{{', '.join(map(str, array.ravel().tolist()))}}}"

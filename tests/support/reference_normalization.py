"""Normalizations in float64, for ONNX's reference evaluator."""

import numpy as np
from onnx.reference.op_run import OpRun


class LRN(OpRun):
    """ONNX's own walks over as many channels as there are examples."""

    def _run(self, x, alpha=None, beta=None, bias=None, size=None):
        before, behind = (size - 1) // 2, size // 2
        edges = [(0, 0), (before, behind)] + [(0, 0)] * (x.ndim - 2)
        squares = np.pad(x * x, edges)
        total = sum(squares[:, offset : offset + x.shape[1]] for offset in range(size))
        return ((x / (bias + alpha / size * total) ** beta).astype(x.dtype),)


class MeanVarianceNormalization(OpRun):
    """ONNX's own mixes float64 with a constant in float32."""

    def _run(self, x, axes=None):
        axes = (0, 2, 3) if axes is None else tuple(axes)
        centred = x - x.mean(axes, keepdims=True)
        return ((centred / (centred.std(axes, keepdims=True) + 1e-9)).astype(x.dtype),)


class LpNormalization(OpRun):
    """ONNX's own forgets the absolute values where p is 1."""

    def _run(self, x, axis=None, p=None):
        norm = np.linalg.norm(x, p or 2, -1 if axis is None else axis, keepdims=True)
        return (x / np.where(norm > 0, norm, np.inf),)


NORMALIZATION = [LRN, LpNormalization, MeanVarianceNormalization]

"""Operators that move numbers, for ONNX's reference evaluator, where its own lack a case."""

import numpy as np
from onnx.reference.op_run import OpRun


class Pad(OpRun):
    """With negative pads too: they cut off."""

    def _run(self, x, pads, constant_value=None, axes=None, mode=None):
        axes = range(x.ndim) if axes is None else [axis % x.ndim for axis in axes]
        pairs = dict(zip(axes, np.reshape(pads, (2, -1)).T.tolist(), strict=True))
        pairs = [pairs.get(axis, (0, 0)) for axis in range(x.ndim)]
        kept = (slice(max(-begin, 0), n - max(-end, 0)) for n, (begin, end) in zip(x.shape, pairs, strict=True))
        added = [(max(begin, 0), max(end, 0)) for begin, end in pairs]
        fill = {"constant_values": 0 if constant_value is None else constant_value}
        return (np.pad(x[tuple(kept)], added, mode or "constant", **(fill if mode == "constant" else {})),)


def _places(indices, axis):
    """For each index, the whole place that it stands for."""
    places = list(np.indices(indices.shape))
    places[axis] = indices
    return tuple(places)


class GatherElements(OpRun):
    """With indices that are shorter than x along the other axes."""

    def _run(self, x, indices, axis=None):
        return (x[_places(indices, axis or 0)],)


class ScatterElements(OpRun):
    """As `GatherElements`; without reduction or with add."""

    def _run(self, x, indices, updates, axis=None, reduction=None):
        assert reduction in (None, "none", "add")
        y = x.copy()
        write = np.add.at if reduction == "add" else np.ndarray.__setitem__
        write(y, _places(indices, axis or 0), updates)
        return (y,)


LAYOUT = [Pad, GatherElements, ScatterElements]

"""Pooling for ONNX's reference evaluator, whose own is wrong or fails in the corners: one window after the other."""

import itertools

import numpy as np
from onnx.reference.op_run import OpRun


def _taps(length, kernel, stride, dilation, pads, auto_pad, ceil):
    """Positions (outputs, kernel) that the windows take along one axis, some outside x, and the padded end."""
    span = dilation * (kernel - 1) + 1
    begin, end = (0, 0) if auto_pad == "VALID" else pads
    if auto_pad.startswith("SAME"):
        lacking = max((-(-length // stride) - 1) * stride + span - length, 0)
        begin = lacking // 2 if auto_pad == "SAME_UPPER" else lacking - lacking // 2
        end = lacking - begin
    steps = length + begin + end - span
    outputs = (-(-steps // stride) if ceil else steps // stride) + 1
    # Windows that would start in the padding behind are left out.
    outputs -= (outputs - 1) * stride >= length + begin
    return np.arange(outputs)[:, None] * stride - begin + dilation * np.arange(kernel), length + end


def _windows(x, kernel_shape, strides, pads, dilations, auto_pad, ceil_mode):
    """For every window: its elements (N, C, k), 0 outside; of each its place, whether in x, whether in x or padding."""
    rank = len(kernel_shape)
    strides, dilations = strides or [1] * rank, dilations or [1] * rank
    pairs = np.reshape(pads or [0] * 2 * rank, (2, rank)).T
    axes = [
        _taps(length, *rest, auto_pad or "NOTSET", ceil_mode)
        for length, *rest in zip(x.shape[2:], kernel_shape, strides, dilations, pairs, strict=True)
    ]
    lengths = x.shape[2:]
    for rows in itertools.product(*(taps for taps, _ in axes)):
        grid = np.stack([at.ravel() for at in np.meshgrid(*rows, indexing="ij")])
        inside = ((grid >= 0) & (grid < np.reshape(lengths, (-1, 1)))).all(0)
        padded = (grid < np.reshape([end for _, end in axes], (-1, 1))).all(0)
        places = np.ravel_multi_index(np.where(inside, grid, 0), lengths)
        yield x.reshape(*x.shape[:2], -1)[:, :, places] * inside, places, inside, padded
    yield [len(taps) for taps, _ in axes]  # the shape that the windows make


def _pooled(function, x, *geometry):
    """A function of what `_windows` gives, for every window."""
    *windows, outputs = _windows(x, *geometry)
    return np.stack([function(*window) for window in windows], -1).reshape(*x.shape[:2], *outputs)


class MaxPool(OpRun):
    """The first of the largest, and where it lies."""

    def _run(
        self, x, auto_pad=None, ceil_mode=0, dilations=None, kernel_shape=None, pads=None, storage_order=0, strides=None
    ):
        assert not storage_order
        geometry = (kernel_shape, strides, pads, dilations, auto_pad, ceil_mode)

        def place(values, places, inside, padded):
            return places[np.where(inside, values, -np.inf).argmax(-1)]

        planes = x.reshape(x.shape[0] * x.shape[1], -1)
        at = _pooled(place, x, *geometry)
        size = planes.shape[1]
        at += size * np.arange(len(planes)).reshape(*x.shape[:2], *[1] * (x.ndim - 2))
        return x.ravel()[at], at


class AveragePool(OpRun):
    """Padding counts where asked for; what hangs over the padded end (ceil_mode) never does."""

    def _run(
        self,
        x,
        auto_pad=None,
        ceil_mode=0,
        count_include_pad=0,
        dilations=None,
        kernel_shape=None,
        pads=None,
        strides=None,
    ):
        def mean(values, places, inside, padded):
            return values.sum(-1) / (padded if count_include_pad else inside).sum()

        return (_pooled(mean, x, kernel_shape, strides, pads, dilations, auto_pad, ceil_mode),)


class LpPool(OpRun):
    """The norm of every window."""

    def _run(self, x, auto_pad=None, ceil_mode=0, dilations=None, kernel_shape=None, p=2, pads=None, strides=None):
        def norm(values, places, inside, padded):
            return (np.abs(values) ** p).sum(-1) ** (1 / p)

        return (_pooled(norm, x, kernel_shape, strides, pads, dilations, auto_pad, ceil_mode),)


class GlobalMaxPool(OpRun):
    """The largest of all positions."""

    def _run(self, x):
        return (x.max(tuple(range(2, x.ndim)), keepdims=True),)


class GlobalLpPool(OpRun):
    """The norm over all positions."""

    def _run(self, x, p=2):
        return ((np.abs(x) ** p).sum(tuple(range(2, x.ndim)), keepdims=True) ** (1 / p),)


POOLING = [MaxPool, AveragePool, LpPool, GlobalMaxPool, GlobalLpPool]

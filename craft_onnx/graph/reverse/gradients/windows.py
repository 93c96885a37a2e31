"""The windows of a convolution: how they lie over its input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from craft_onnx.errors import UnsupportedOperator
from craft_onnx.graph.reverse.rules import Step
from craft_onnx.graph.reverse.tensor import Tensor, op


@dataclass(frozen=True)
class Windows:
    """Geometry of a convolution, one number per spatial axis.

    Attributes
    ----------
    kernel, strides, dilations : tuple of int
        Size of a window, and the distances between windows and within one.
    pads : tuple of int or None
        Before each axis, then behind each; None where they depend on lengths that are open.
    group : int
        Of the channels.
    lower : bool
        Whether open pads put the odd one in front.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...] | None
    group: int
    lower: bool = False

    @property
    def extents(self) -> list[int]:
        """From the first to behind the last position of a window."""
        return [dilation * (size - 1) + 1 for size, dilation in zip(self.kernel, self.dilations, strict=True)]

    @property
    def is_dense(self) -> bool:
        """Whether there is a window at every position."""
        return set(self.strides) == {1}

    @property
    def opposite_pads(self) -> list[int]:
        """Pads of the dense convolution that leads back."""
        assert self.pads is not None
        return [extent - 1 - pad for extent, pad in zip(self.extents * 2, self.pads, strict=True)]

    def covered(self, count: Sequence[int]) -> list[int]:
        """Length from the first to behind the last of so many windows."""
        return [
            stride * (number - 1) + extent
            for stride, number, extent in zip(self.strides, count, self.extents, strict=True)
        ]

    def uncovered(self, lengths: Sequence[int | str], count: Sequence[int | str]) -> list[int] | None:
        """How many positions behind the last window are in none; None where a length is open."""
        if self.pads is None or not all(isinstance(size, int) for size in [*lengths, *count]):
            return None
        half = len(self.kernel)
        padded = [n + a + b for n, a, b in zip(lengths, self.pads[:half], self.pads[half:], strict=True)]
        return [whole - part for whole, part in zip(padded, self.covered(count), strict=True)]


def conv_windows(step: Step) -> Windows:
    """The windows of a Conv.

    Raises
    ------
    UnsupportedOperator
        If the size of its kernel is open.
    """
    spatial = step.x.rank - 2
    ones = (1,) * spatial
    kernel = tuple(step.attribute("kernel_shape") or step.input(1).shape[2:])
    if not all(isinstance(size, int) for size in kernel):
        raise UnsupportedOperator(
            f"The gradient of {step.node.op_type} {step.node.name!r} needs the size of its kernel, which is {kernel}.",
            "Export the model with weights whose shape is known.",
        )
    auto_pad = step.attribute("auto_pad", "NOTSET")
    windows = Windows(
        kernel,
        tuple(step.attribute("strides", ones)),
        tuple(step.attribute("dilations", ones)),
        tuple(step.attribute("pads", ones * 0)) or (0,) * (2 * spatial),
        step.attribute("group", 1),
        auto_pad == "SAME_LOWER",
    )
    return _same(windows, step.x, step.y) if auto_pad.startswith("SAME") else windows


def _same(windows: Windows, x: Tensor, y: Tensor) -> Windows:
    """With the pads that "SAME_UPPER" and "SAME_LOWER" stand for, if the lengths tell."""
    count = [1] * len(windows.kernel) if windows.is_dense else y.shape[2:]
    lengths = count if windows.is_dense else x.shape[2:]
    if not all(isinstance(size, int) for size in [*count, *lengths]):
        return replace(windows, pads=None)
    whole = zip(windows.covered(count), lengths, strict=True)
    totals = [max(covered - length, 0) for covered, length in whole]
    front = [(total + windows.lower) // 2 for total in totals]
    return replace(windows, pads=(*front, *(total - one for total, one in zip(totals, front, strict=True))))


def run_time_pads(x: Tensor, y: Tensor, windows: Windows) -> tuple[Tensor, Tensor]:
    """Pads before and behind each spatial axis of x, calculated when the graph runs, where y has one window each."""
    strides, extents = np.array(windows.strides), np.array(windows.extents)
    covered = (op.Shape(y, start=2) - 1) * strides + extents
    total = op.Max(covered - op.Shape(x, start=2), np.zeros(1, np.int64))
    front = (total + int(windows.lower)) / 2
    return front, total - front

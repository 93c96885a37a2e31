"""The windows of a convolution: how they lie over the image that it reads, or that a transposed one writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeGuard

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
        Before each axis of the image, then behind each; None where they depend on lengths that are open.
    group : int
        Of the channels.
    rest : tuple of int
        The output_padding of a transposed convolution: positions of the image that no window reaches.
    odd_in_front : bool
        Where pads are calculated from lengths: whether the odd one goes before the axis.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...] | None
    group: int
    rest: tuple[int, ...]
    odd_in_front: bool

    @property
    def extents(self) -> list[int]:
        """From the first to behind the last position of a window."""
        return [dilation * (size - 1) + 1 for size, dilation in zip(self.kernel, self.dilations, strict=True)]

    @property
    def is_dense(self) -> bool:
        """Whether there is a window at every position."""
        return set(self.strides) == {1}

    def whole(self, count: Sequence[int]) -> list[int]:
        """Length of the padded image, up to the end of the last of so many windows or `rest`."""
        terms = zip(self.strides, count, self.extents, self.rest, strict=True)
        return [stride * (number - 1) + extent + rest for stride, number, extent, rest in terms]

    def uncovered(self, image: Sequence[int | str], count: Sequence[int | str]) -> list[int] | None:
        """How many positions behind the last window are in none; None where a length is open."""
        if self.pads is None or not (known(image) and known(count)):
            return None
        half = len(self.kernel)
        padded = [n + front + back for n, front, back in zip(image, self.pads[:half], self.pads[half:], strict=True)]
        return [length - part for length, part in zip(padded, self.whole(count), strict=True)]

    def padded_to(self, count: Sequence[int | str], image: Sequence[int | str]) -> Windows:
        """With the pads that make so many windows cover so long an image, where the lengths tell."""
        if not (known(image) and known(count)):
            return replace(self, pads=None)
        totals = [max(whole - length, 0) for whole, length in zip(self.whole(count), image, strict=True)]
        front = [(total + self.odd_in_front) // 2 for total in totals]
        return replace(self, pads=(*front, *(total - one for total, one in zip(totals, front, strict=True))))

    def run_time_pads(self, count: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """What `padded_to` calculates, in the graph: the pads before and behind each axis."""
        none, one = [0] * len(self.kernel), [1] * len(self.kernel)
        whole = op.Shape(count, start=2) * list(self.strides) + self.whole(none)
        total = op.Max(whole - op.Shape(image, start=2), none)
        front = op.Div(total + one if self.odd_in_front else total, [2])
        return front, total - front


def known(shape: Sequence[int | str]) -> TypeGuard[Sequence[int]]:
    """Whether no length is open."""
    return all(isinstance(size, int) for size in shape)


def conv_windows(step: Step) -> Windows:
    """The windows of a Conv, over its input; errors are those of `transpose_windows`."""
    windows, auto_pad = _explicit(step), step.attribute("auto_pad", "NOTSET")
    windows = replace(windows, odd_in_front=auto_pad == "SAME_LOWER")
    if not auto_pad.startswith("SAME"):
        return windows
    # Dense windows are as many as there are positions, however long the image.
    same = (1,) * len(windows.kernel)
    return windows.padded_to(same, same) if windows.is_dense else windows.padded_to(step.y.shape[2:], step.x.shape[2:])


def transpose_windows(step: Step) -> Windows:
    """The windows of a ConvTranspose, over its output.

    Raises
    ------
    UnsupportedOperator
        If the size of the kernel is open.
    """
    windows, auto_pad = _explicit(step), step.attribute("auto_pad", "NOTSET")
    windows = replace(windows, odd_in_front=auto_pad != "SAME_UPPER")
    if lengths := step.attribute("output_shape"):
        return windows.padded_to(step.x.shape[2:], lengths)
    # The image is then `stride` times as long as there are windows, however many.
    return windows.padded_to((1,) * len(windows.kernel), windows.strides) if auto_pad.startswith("SAME") else windows


def _explicit(step: Step) -> Windows:
    """What the attributes say, without automatic pads."""
    kernel = step.attribute("kernel_shape") or step.input(1).shape[2:]
    if not known(kernel):
        raise UnsupportedOperator(
            f"The gradient of {step.node.op_type} {step.node.name!r} needs the size of its kernel, which is {kernel}.",
            "Export the model with weights whose shape is known.",
        )
    one, none = (1,) * len(kernel), (0,) * len(kernel)
    return Windows(
        kernel=tuple(kernel),
        strides=tuple(step.attribute("strides", one)),
        dilations=tuple(step.attribute("dilations", one)),
        pads=tuple(step.attribute("pads", none * 2)),
        group=step.attribute("group", 1),
        rest=tuple(step.attribute("output_padding", none)),
        odd_in_front=False,
    )

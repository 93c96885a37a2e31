"""Operators in float64 for ONNX's reference evaluator, where its own are missing, slow or wrong; by PyTorch."""

import numpy as np
from onnx.reference.op_run import OpRun
from support.reference_layout import LAYOUT
from support.reference_normalization import NORMALIZATION
from support.reference_pooling import POOLING

OPERATORS = [*POOLING, *LAYOUT, *NORMALIZATION]


def _torch_call(function, *arrays, **options):
    """A function of PyTorch on arrays; the result in the type of the first."""
    import torch

    tensors = [None if array is None else torch.tensor(array.copy()) for array in arrays]
    return function(*tensors, **options).numpy().astype(arrays[0].dtype)


def _padded(x, pads):
    """Zeros around the spatial axes; negative numbers cut off."""
    from torch.nn.functional import pad

    spatial = len(pads) // 2
    pairs = [(pads[axis], pads[axis + spatial]) for axis in reversed(range(spatial))]
    return pad(x, [number for pair in pairs for number in pair])


def _extents(kernel, dilations):
    return [dilation * (size - 1) + 1 for size, dilation in zip(kernel, dilations, strict=True)]


class Conv(OpRun):
    """By PyTorch, on explicitly padded input."""

    def _run(self, x, w, b=None, auto_pad=None, dilations=None, group=None, kernel_shape=None, pads=None, strides=None):
        import torch

        spatial = x.ndim - 2
        strides, dilations = strides or [1] * spatial, dilations or [1] * spatial
        pads = pads or [0] * (2 * spatial)
        if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            pads = self._same(x, _extents(w.shape[2:], dilations), strides, auto_pad == "SAME_LOWER")
        convolve = (torch.conv1d, torch.conv2d, torch.conv3d)[spatial - 1]
        options = {"stride": strides, "dilation": dilations, "groups": group or 1}
        return (_torch_call(lambda x, *rest: convolve(_padded(x, pads), *rest, **options), x, w, b),)

    @staticmethod
    def _same(x, extents, strides, lower):
        axes = list(zip(x.shape[2:], extents, strides, strict=True))
        totals = [max((-(-n // stride) - 1) * stride + extent - n, 0) for n, extent, stride in axes]
        front = [(total + lower) // 2 for total in totals]
        return front + [total - one for total, one in zip(totals, front, strict=True)]


class ConvTranspose(OpRun):
    """By PyTorch without padding; then zeros behind (output_padding), and the pads cut off."""

    def _run(
        self,
        x,
        w,
        b=None,
        auto_pad=None,
        dilations=None,
        group=None,
        kernel_shape=None,
        output_padding=None,
        output_shape=None,
        pads=None,
        strides=None,
    ):
        import torch

        spatial = x.ndim - 2
        strides, dilations = strides or [1] * spatial, dilations or [1] * spatial
        extents = _extents(w.shape[2:], dilations)
        added = output_padding or [0] * spatial
        whole = [s * (n - 1) + k + a for s, n, k, a in zip(strides, x.shape[2:], extents, added, strict=True)]
        if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            output_shape = output_shape or [n * s for n, s in zip(x.shape[2:], strides, strict=True)]
        pads = pads or [0] * (2 * spatial)
        if output_shape:
            totals = [max(n - wanted, 0) for n, wanted in zip(whole, output_shape, strict=True)]
            upper = [total // 2 for total in totals]
            rest = [total - one for total, one in zip(totals, upper, strict=True)]
            pads = upper + rest if auto_pad == "SAME_UPPER" else rest + upper
            added = [a + max(wanted - n, 0) for a, n, wanted in zip(added, whole, output_shape, strict=True)]
        convolve = (torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d)[spatial - 1]
        cut = [-pad for pad in pads[:spatial]] + [a - pad for a, pad in zip(added, pads[spatial:], strict=True)]
        bias = 0 if b is None else np.reshape(b, (1, -1) + (1,) * spatial)
        options = {"stride": strides, "dilation": dilations, "groups": group or 1}
        return (_torch_call(lambda x, w: _padded(convolve(x, w, **options), cut), x, w) + bias,)


OPERATORS += [Conv, ConvTranspose]


class Erf(OpRun):
    """ONNX's own calculates in float32."""

    def _run(self, x):
        import torch

        return (_torch_call(torch.erf, x),)


class Gelu(OpRun):
    """ONNX's own body calls ONNX's own Erf."""

    def _run(self, x, approximate=None):
        import torch

        return (_torch_call(torch.nn.functional.gelu, x, approximate=approximate or "none"),)


OPERATORS += [Erf, Gelu]

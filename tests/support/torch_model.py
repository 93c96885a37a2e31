"""A small network in PyTorch that speaks the protocol of a SplitModel, with autograd for its reverse pass."""

import warnings
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

from craft_onnx.runtime.batches import is_array, rebatch


def small_halves(size=12, channels=3, classes=5, seed=0, inplace=False):
    """g and h: two convolutions with ReLU, one more and a linear head."""
    torch.manual_seed(seed)
    g = nn.Sequential(
        nn.Conv2d(channels, 6, 3, padding=1), nn.ReLU(inplace), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3, padding=1),
        nn.ReLU(inplace),
    )  # fmt: skip
    h = nn.Sequential(
        nn.Conv2d(8, 6, 3, padding=1), nn.ReLU(inplace), nn.AvgPool2d(size // 4), nn.Flatten(), nn.Linear(24, classes)
    )
    return g.eval(), h.eval()


class GuidedRelu(torch.autograd.Function):
    """What comes back through a ReLU is cut where it, and where the input, is negative."""

    @staticmethod
    def forward(context, x):
        context.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(context, dy):
        return dy.clamp(min=0) * (context.saved_tensors[0] > 0)


class DeconvRelu(torch.autograd.Function):
    """What comes back through a ReLU is cut where it is negative."""

    @staticmethod
    def forward(context, x):
        return x.clamp(min=0)

    @staticmethod
    def backward(context, dy):
        return dy.clamp(min=0)


RULES = {"gradient": torch.relu, "guided_backprop": GuidedRelu.apply, "deconvnet": DeconvRelu.apply}


class TorchModel:
    """g and h of PyTorch as a model; `layout` "NHWC" takes pictures, and gives activations, channels last."""

    provider = "torch"
    preprocessing = None

    def __init__(self, g, h, layout="NCHW", classes=5):
        self._g, self._h, self.layout, self.classes = g, h, layout, classes
        self.cut = SimpleNamespace(name="cut", channel_axis=1 if layout == "NCHW" else 3)

    def predict(self, x, batch_size=16):
        return self._run(x, batch_size, lambda rows: self._head(self._features(rows)))

    def g(self, x, batch_size=16):
        return self._run(x, batch_size, self._features)

    def h(self, a, batch_size=16):
        return self._run(a, batch_size, self._head)

    def vjp(self, x, of="logits", rules="gradient"):
        def function(rows):
            a = self._features(rows, rules)
            return a if of == "activations" else self._head(a, rules)

        return pullback(function, x)

    def vjp_h(self, a, rules="gradient"):
        return pullback(lambda rows: self._head(rows, rules), a)

    def gradient(self, x, cotangent, of="logits", batch_size=16, rules="gradient"):
        return self.vjp(x, of, rules)[1](cotangent)

    def _features(self, x, rules="gradient"):
        return self._own(apply(self._g, self._nchw(x), rules))

    def _head(self, a, rules="gradient"):
        return apply(self._h, self._nchw(a), rules)

    def _nchw(self, x):
        return x.permute(0, 3, 1, 2) if self.layout == "NHWC" and x.ndim == 4 else x

    def _own(self, x):
        return x.permute(0, 2, 3, 1) if self.layout == "NHWC" and x.ndim == 4 else x

    def _run(self, x, batch_size, function):
        chunks = rebatch([x] if is_array(x) else x, batch_size)
        with torch.no_grad():
            return np.concatenate([function(torch.from_numpy(np.asarray(rows))).numpy() for rows in chunks])


def exported(g, h, x, path):
    """The network h(g(x)) as an ONNX file with an open batch; g ends at the layer named as its last one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own, which change from version to version
        batch = torch.export.Dim("batch")
        program = torch.onnx.export(
            nn.Sequential(g, h), (torch.from_numpy(x[:2]),), dynamo=True, dynamic_shapes=({0: batch},), verbose=False
        )
    program.save(path)
    return path


def apply(network, x, rules):
    for layer in network:
        x = RULES[rules](x) if isinstance(layer, nn.ReLU) else layer(x)
    return x


def pullback(function, x):
    x = torch.from_numpy(np.asarray(x)).requires_grad_()
    y = function(x)

    def back(cotangent):
        return torch.autograd.grad(y, x, torch.from_numpy(np.asarray(cotangent)), retain_graph=True)[0].numpy()

    return y.detach().numpy(), back

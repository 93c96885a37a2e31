"""zennit's canonizers, by their names, so that code written for it runs.

A composite takes them and needs nothing of them: an ONNX model is in canonical form once it is normalized, whatever its
topology.
"""

from __future__ import annotations

from typing import Any


class Canonizer:
    """Taken for the sake of zennit's signatures, with any arguments; does nothing."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.arguments = arguments
        self.options = options


class MergeBatchNorm(Canonizer):
    """BatchNormalization is part of the convolution or product beside it, or passes relevance on by its own scale."""


class SequentialMergeBatchNorm(MergeBatchNorm):
    """As `MergeBatchNorm`."""


class NamedMergeBatchNorm(MergeBatchNorm):
    """As `MergeBatchNorm`."""


class AttributeCanonizer(Canonizer):
    """The operators of a graph are what they are; nothing is to be set."""


class CompositeCanonizer(Canonizer):
    """Several, of which none is needed."""


class ResNetCanonizer(CompositeCanonizer):
    """Sums of branches have a rule of their own."""


class VGGCanonizer(SequentialMergeBatchNorm):
    """As `MergeBatchNorm`."""

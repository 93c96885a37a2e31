"""Composites by name: a rule for convolutions, one for dense layers, perhaps one for the first layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from craft_onnx.graph.reverse.rectifiers import deconvolved, guided
from craft_onnx.graph.reverse.relevance.attention import Bilinear, expanded_softmax
from craft_onnx.graph.reverse.relevance.base import base
from craft_onnx.graph.reverse.relevance.composite import (
    Composite,
    LayerMap,
    LayerMapComposite,
    MixedComposite,
    NameLayerMapComposite,
    NameMapComposite,
    SpecialFirstLayerMapComposite,
    ignored,
    of_first_layer,
)
from craft_onnx.graph.reverse.relevance.division import EPSILON
from craft_onnx.graph.reverse.relevance.matching import CONVOLUTIONS, DENSE, RECTIFIERS, first_linear, is_bilinear
from craft_onnx.graph.reverse.relevance.rules import (
    AlphaBeta,
    Epsilon,
    Flat,
    Gamma,
    Parameters,
    Smoothed,
    ZBox,
    ZPlus,
    as_numbers,
)
from craft_onnx.graph.reverse.rules import Rule

__all__ = [
    "COMPOSITES",
    "AttnLRP",
    "BetaSmooth",
    "Composite",
    "DeconvNet",
    "EpsilonAlpha2Beta1",
    "EpsilonAlpha2Beta1Flat",
    "EpsilonGammaBox",
    "EpsilonPlus",
    "EpsilonPlusFlat",
    "ExcitationBackprop",
    "GuidedBackprop",
    "LayerMapComposite",
    "MixedComposite",
    "NameLayerMapComposite",
    "NameMapComposite",
    "SpecialFirstLayerMapComposite",
]


@dataclass(frozen=True, kw_only=True)
class _Layered(Composite):
    """A rule for convolutions, one for dense layers, perhaps one for the first layer.

    Parameters
    ----------
    epsilon, stabilizer : float
        What stabilizes the division: in Epsilon, in all other rules.
    layer_map, first_map : sequence of (kinds, rule)
        Rows that come before its own: for all layers, for the first.
    zero_params : str or sequence of str
        "bias" leaves biases out: relevance is conserved.
    canonizers : sequence, optional
        Taken for the sake of zennit's signatures, by position too: models are in canonical form already.
    """

    epsilon: float = EPSILON
    stabilizer: float = EPSILON
    layer_map: LayerMap | None = None
    first_map: LayerMap | None = None
    zero_params: Parameters | None = None
    canonizers: Sequence[Any] | None = ignored()

    def layers(self) -> LayerMap:
        """The user's rows, the first layer's, convolutions', dense layers', and the base."""
        own = [(CONVOLUTIONS, self.convolution), (DENSE, self.dense)]
        first = [] if self.first is None else [(first_linear, self.first)]
        return [
            *of_first_layer(self.first_map or ()),
            *(self.layer_map or ()),
            *first,
            *own,
            *base(self.stabilizer, self.zero_params),
        ]

    @property
    def convolution(self) -> Rule:
        """The rule of convolutions."""
        return ZPlus(self.stabilizer, self.zero_params)

    @property
    def dense(self) -> Rule:
        """The rule of dense layers."""
        return Epsilon(self.epsilon, self.zero_params)

    @property
    def first(self) -> Rule | None:
        """The rule of the first layer, where it has another."""
        return None


class EpsilonPlus(_Layered):
    """ZPlus for convolutions, Epsilon for dense layers."""

    name = "epsilon_plus"


class EpsilonAlpha2Beta1(_Layered):
    """AlphaBeta(2, 1) for convolutions, Epsilon for dense layers."""

    name = "epsilon_alpha2_beta1"

    @property
    def convolution(self) -> Rule:
        """The rule of convolutions."""
        return AlphaBeta(self.stabilizer, self.zero_params, alpha=2, beta=1)


class EpsilonPlusFlat(EpsilonPlus):
    """`EpsilonPlus` with Flat for the first layer."""

    name = "epsilon_plus_flat"

    @property
    def first(self) -> Rule:
        """The rule of the first layer."""
        return Flat(self.stabilizer, self.zero_params)


class EpsilonAlpha2Beta1Flat(EpsilonAlpha2Beta1):
    """`EpsilonAlpha2Beta1` with Flat for the first layer."""

    name = "epsilon_alpha2_beta1_flat"

    @property
    def first(self) -> Rule:
        """The rule of the first layer."""
        return Flat(self.stabilizer, self.zero_params)


@dataclass(frozen=True, kw_only=True)
class EpsilonGammaBox(_Layered):
    """Gamma for convolutions, Epsilon for dense layers, ZBox for the first layer.

    Parameters
    ----------
    low, high : float or array
        Bounds of the model's input, see `rules.ZBox`.
    gamma : float
        See `rules.Gamma`.
    """

    low: Any
    high: Any
    gamma: float = 0.25
    name = "epsilon_gamma_box"

    def __post_init__(self) -> None:
        """Keep the numbers of arrays, which compare as numbers do."""
        super().__post_init__()
        for name in ("low", "high"):
            object.__setattr__(self, name, as_numbers(getattr(self, name)))

    @property
    def convolution(self) -> Rule:
        """The rule of convolutions."""
        return Gamma(self.stabilizer, self.zero_params, gamma=self.gamma)

    @property
    def first(self) -> Rule:
        """The rule of the first layer."""
        return ZBox(self.stabilizer, self.zero_params, low=self.low, high=self.high)


@dataclass(frozen=True, kw_only=True)
class AttnLRP(_Layered):
    """For transformers, whose attention weights have relevance of their own (Achtibat et al. 2024).

    Products of what is computed give half to each side, Softmax has its expansion, which does not conserve relevance.
    All other composites take attention weights for constants, and conserve it there.

    Parameters
    ----------
    gamma, dense_gamma : float
        Of convolutions and of dense layers; 0 is Epsilon, which is stabilized by `epsilon`.
    """

    gamma: float = 0.25
    dense_gamma: float = 0.0
    name = "attn_lrp"

    @property
    def convolution(self) -> Rule:
        """The rule of convolutions."""
        return self._by(self.gamma)

    @property
    def dense(self) -> Rule:
        """The rule of dense layers."""
        return self._by(self.dense_gamma)

    def layers(self) -> LayerMap:
        """Those of attention behind the user's."""
        attention: LayerMap = [("Softmax", expanded_softmax), (is_bilinear, Bilinear(self.stabilizer))]
        return [*(self.layer_map or ()), *attention, *super().layers()]

    def _by(self, gamma: float) -> Rule:
        if gamma:
            return Gamma(self.stabilizer, self.zero_params, gamma=gamma)
        return Epsilon(self.epsilon, self.zero_params)


class ExcitationBackprop(_Layered):
    """ZPlus for convolutions and dense layers (Zhang et al. 2016)."""

    name = "excitation_backprop"

    @property
    def dense(self) -> Rule:
        """The rule of dense layers."""
        return ZPlus(self.stabilizer, self.zero_params)


@dataclass(frozen=True, kw_only=True)
class _Rectified(Composite):
    """The derivative, with another rule for rectifiers.

    Parameters
    ----------
    layer_map : sequence of (kinds, rule)
        Rows that come before its own.
    canonizers : sequence, optional
        Taken for the sake of zennit's signatures, by position too: models are in canonical form already.
    """

    layer_map: LayerMap | None = None
    canonizers: Sequence[Any] | None = ignored()

    rectifiers = RECTIFIERS

    def layers(self) -> LayerMap:
        """The user's rows, and that of rectifiers."""
        return [*(self.layer_map or ()), (self.rectifiers, self.rectifier)]

    @property
    def rectifier(self) -> Rule:
        """The rule of rectifiers."""
        raise NotImplementedError


class GuidedBackprop(_Rectified):
    """What is negative is stopped on the way back too (Springenberg et al. 2015)."""

    name = "guided_backprop"

    @property
    def rectifier(self) -> Rule:
        """The rule of rectifiers."""
        return guided


class DeconvNet(_Rectified):
    """The way back is rectified, whatever was on the way there (Zeiler & Fergus 2014)."""

    name = "deconvnet"

    @property
    def rectifier(self) -> Rule:
        """The rule of rectifiers."""
        return deconvolved


@dataclass(frozen=True, kw_only=True)
class BetaSmooth(_Rectified):
    """The derivative of softplus in place of that of Relu (Dombrowski et al. 2019).

    Parameters
    ----------
    beta_smooth : float
        How steep: large numbers come near the derivative of the rectifier.
    """

    beta_smooth: float = 10.0
    name = "beta_smooth"
    rectifiers = frozenset({"Relu"})

    @property
    def rectifier(self) -> Rule:
        """The rule of rectifiers."""
        return Smoothed(self.beta_smooth)


COMPOSITES: dict[str, type[Composite]] = {
    composite.name: composite
    for composite in (
        EpsilonPlus,
        EpsilonPlusFlat,
        EpsilonAlpha2Beta1,
        EpsilonAlpha2Beta1Flat,
        EpsilonGammaBox,
        ExcitationBackprop,
        AttnLRP,
        GuidedBackprop,
        DeconvNet,
        BetaSmooth,
    )
}

"""Composites: which rule at which node, as an ordered list; the first row that fits a node decides.

Under the names and with the keywords of zennit's, which are taken by name alone. Nodes that no row fits have their
derivative.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from craft_onnx.graph.reverse.gradients import GRADIENTS
from craft_onnx.graph.reverse.rectifiers import deconvolved, guided
from craft_onnx.graph.reverse.relevance.linear import EPSILON
from craft_onnx.graph.reverse.relevance.matching import (
    ACTIVATIONS,
    AVERAGES,
    CONVOLUTIONS,
    DENSE,
    RECTIFIERS,
    Match,
    Named,
    any_of,
    first_linear,
    gate_of,
    is_bias,
    is_gated,
    is_prepared,
    is_scaled,
    is_shifted,
    is_sum,
)
from craft_onnx.graph.reverse.relevance.rules import (
    AlphaBeta,
    Epsilon,
    Flat,
    Gamma,
    Norm,
    Pass,
    Smoothed,
    ZBox,
    ZPlus,
)
from craft_onnx.graph.reverse.rules import Rule, Rules, Step
from craft_onnx.graph.reverse.tensor import Tensor

Row = tuple[Match, Rule]
Parameters = str | Sequence[str]
# What a row is for, and its rule: a match, the name of an operator, or several.
Kinds = Match | str | frozenset[str]
LayerMap = Sequence[tuple[Kinds, Rule]]


class Composite(Rules):
    """Rules by rows.

    Attributes
    ----------
    name : str
        Shown in the metadata of what the rules emit.
    """

    name = "composite"

    def __init__(self) -> None:
        """Subclasses have parameters of their own."""

    def layers(self) -> LayerMap:
        """The rows, in order."""
        raise NotImplementedError

    @functools.cached_property
    def rows(self) -> tuple[Row, ...]:
        """The rows, each a match and a rule."""
        return tuple((kinds if callable(kinds) else any_of(kinds), rule) for kinds, rule in self.layers())

    def find(self, node: ir.Node) -> Rule | None:
        """The rule of a node; None where there is none."""
        return next((rule for matches, rule in self.rows if matches(node)), None) or GRADIENTS.find(node)

    def stops(self, node: ir.Node) -> bool:
        """Whether nothing goes through a node."""
        return GRADIENTS.stops(node)

    def check(self, model: ir.Model) -> None:
        """Raise InputError where a row names a layer that the model does not have."""
        for matches, _ in self.rows:
            if isinstance(matches, Named):
                matches.check(model)

    @property
    def operators(self) -> frozenset[str]:
        """Names of the standard operators that it has a rule for."""
        return GRADIENTS.operators


def gated(step: Step, relevance: Tensor) -> list[Tensor | None]:
    """All relevance to the signal, none to the gate that lets it through; half to each where that cannot be told."""
    gate = gate_of(step.node)
    if gate is not None and step.wanted[1 - gate]:
        return [None if place == gate else relevance for place in range(2)]
    return [relevance * 0.5 if all(step.wanted) else relevance] * 2


def base(stabilizer: float = EPSILON, zero_params: Parameters | None = None) -> LayerMap:
    """The last rows of composites of relevance.

    Activations and scales pass it on, sums and averages divide it; so do shifts, whose constants take their share as
    biases do. A bias behind a product is its rule's affair. In front of the first layer, which may have a rule that is
    not about the data, scales and shifts only prepare these.
    """
    shift = Pass() if "bias" in (zero_params or ()) else Norm(stabilizer)
    passing = [any_of(ACTIVATIONS), is_bias, is_prepared, is_scaled]
    dividing = [is_sum, any_of(AVERAGES)]
    return [
        *((matches, Pass()) for matches in passing),
        *((matches, Norm(stabilizer)) for matches in dividing),
        (is_shifted, shift),
        (is_gated, gated),
    ]


def _firsts(first_map: LayerMap) -> LayerMap:
    """The rows, for the first layer only."""

    def both(matches: Match) -> Match:
        return lambda node: first_linear(node) and matches(node)

    return [(both(kinds if callable(kinds) else any_of(kinds)), rule) for kinds, rule in first_map]


@dataclass(frozen=True)
class LayerMapComposite(Composite):
    """Rules by operators.

    Parameters
    ----------
    layer_map : sequence of (kinds, rule)
        Kinds are the name of an operator, a set of names, or a function of a node; products are those with constant
        weights.
    canonizers : object
        Taken for the sake of zennit's signatures: models are in canonical form already.
    """

    layer_map: LayerMap
    canonizers: Any = None

    def layers(self) -> LayerMap:
        """The rows as they were given."""
        return self.layer_map


@dataclass(frozen=True)
class SpecialFirstLayerMapComposite(Composite):
    """Rules by operators, others for the convolution or matrix product that is computed first.

    Parameters
    ----------
    layer_map, first_map : sequence of (kinds, rule)
        As in `LayerMapComposite`; of the second, for the first layer only.
    canonizers : object
        Not needed.
    """

    layer_map: LayerMap
    first_map: LayerMap
    canonizers: Any = None

    def layers(self) -> LayerMap:
        """Those of the first layer in front."""
        return [*_firsts(self.first_map), *self.layer_map]


@dataclass(frozen=True)
class NameMapComposite(Composite):
    """Rules by names of layers.

    Parameters
    ----------
    name_map : sequence of (names, rule)
        Paths of layers, or their beginnings, or names of nodes or tensors.
    canonizers : object
        Not needed.
    """

    name_map: Sequence[tuple[Parameters, Rule]]
    canonizers: Any = None

    def layers(self) -> LayerMap:
        """A row a list of names."""
        return [(Named((names,) if isinstance(names, str) else tuple(names)), rule) for names, rule in self.name_map]


@dataclass(frozen=True)
class NameLayerMapComposite(Composite):
    """Rules by names of layers, then by operators; see `NameMapComposite` and `LayerMapComposite`."""

    name_map: Sequence[tuple[Parameters, Rule]]
    layer_map: LayerMap
    canonizers: Any = None

    def layers(self) -> LayerMap:
        """Names in front."""
        return [*NameMapComposite(self.name_map).layers(), *self.layer_map]


@dataclass(frozen=True)
class MixedComposite(Composite):
    """Several composites, one after the other.

    Parameters
    ----------
    composites : sequence of Composite
        The first that has a row for a node decides.
    canonizers : object
        Not needed.
    """

    composites: Sequence[Composite]
    canonizers: Any = None

    def layers(self) -> LayerMap:
        """Rows of all."""
        return [row for composite in self.composites for row in composite.rows]


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
    canonizers : object
        Not needed.
    """

    epsilon: float = EPSILON
    stabilizer: float = EPSILON
    layer_map: LayerMap | None = None
    first_map: LayerMap | None = None
    zero_params: Parameters | None = None
    canonizers: Any = None

    def layers(self) -> LayerMap:
        """The user's rows, the first layer's, convolutions', dense layers', and the base."""
        own = [(CONVOLUTIONS, self.convolution), (DENSE, self.dense)]
        first = [] if self.first is None else [(first_linear, self.first)]
        return [
            *_firsts(self.first_map or ()),
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

    @property
    def convolution(self) -> Rule:
        """The rule of convolutions."""
        return Gamma(self.stabilizer, self.zero_params, gamma=self.gamma)

    @property
    def first(self) -> Rule:
        """The rule of the first layer."""
        return ZBox(self.stabilizer, self.zero_params, low=self.low, high=self.high)


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
    canonizers : object
        Not needed.
    """

    layer_map: LayerMap | None = None
    canonizers: Any = None

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
        GuidedBackprop,
        DeconvNet,
        BetaSmooth,
    )
}

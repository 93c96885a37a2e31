"""What a composite is: which rule at which node, as an ordered list; the first row that fits a node decides.

Under the names and with the keywords of zennit's, which are taken by name alone. Nodes that no row fits have their
derivative.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir

from craft_onnx.errors import InputError
from craft_onnx.graph.reverse.gradients import GRADIENTS
from craft_onnx.graph.reverse.relevance.matching import FirstLayer, Match, Named, any_of
from craft_onnx.graph.reverse.relevance.rules import Parameters, left_out
from craft_onnx.graph.reverse.rules import Rule, Rules

Row = tuple[Match, Rule]
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

    def __post_init__(self) -> None:
        """Raise InputError for a number in the place of canonizers, and for parameters that cannot be left out."""
        left_out(getattr(self, "zero_params", None))
        canonizers = getattr(self, "canonizers", None)
        if canonizers is not None and not isinstance(canonizers, list | tuple):
            raise InputError(
                f"{canonizers!r} are no canonizers.", "Give other parameters by name, such as epsilon=1e-4."
            )

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


def ignored() -> Any:
    """A field for what is taken and not needed, by position too."""
    return field(default=None, kw_only=False, repr=False, compare=False)


def of_first_layer(first_map: LayerMap) -> LayerMap:
    """The rows, for the first layer only."""
    return [(FirstLayer(kinds if callable(kinds) else any_of(kinds)), rule) for kinds, rule in first_map]


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
    canonizers: Sequence[Any] | None = field(default=None, repr=False, compare=False)

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
    canonizers: Sequence[Any] | None = field(default=None, repr=False, compare=False)

    def layers(self) -> LayerMap:
        """Those of the first layer in front."""
        return [*of_first_layer(self.first_map), *self.layer_map]


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
    canonizers: Sequence[Any] | None = field(default=None, repr=False, compare=False)

    def layers(self) -> LayerMap:
        """A row a list of names."""
        return [(Named((names,) if isinstance(names, str) else tuple(names)), rule) for names, rule in self.name_map]


@dataclass(frozen=True)
class NameLayerMapComposite(Composite):
    """Rules by names of layers, then by operators; see `NameMapComposite` and `LayerMapComposite`."""

    name_map: Sequence[tuple[Parameters, Rule]]
    layer_map: LayerMap
    canonizers: Sequence[Any] | None = field(default=None, repr=False, compare=False)

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
    canonizers: Sequence[Any] | None = field(default=None, repr=False, compare=False)

    def layers(self) -> LayerMap:
        """Rows of all."""
        return [row for composite in self.composites for row in composite.rows]

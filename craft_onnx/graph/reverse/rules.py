"""What happens at a node on the way back: rules, looked up by domain and operator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from craft_onnx.graph import values
from craft_onnx.graph.inference import infer_like
from craft_onnx.graph.reverse.tensor import Tensor


@dataclass(frozen=True)
class Step:
    """One node of the forward pass, as a rule sees it.

    Attributes
    ----------
    node : onnx_ir.Node
        For its operator and attributes.
    inputs : tuple of Tensor or None
        None where an optional input is left out.
    outputs : tuple of Tensor
        Already computed.
    wanted : tuple of bool
        For every input, whether its cotangent is of use; rules need not compute the others.
    """

    node: ir.Node
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor, ...]
    wanted: tuple[bool, ...]

    @property
    def x(self) -> Tensor:
        """The first input."""
        return self.input(0)

    @property
    def y(self) -> Tensor:
        """The first output."""
        return self.outputs[0]

    def input(self, position: int) -> Tensor:
        """An input that the operator cannot do without."""
        tensor = self.inputs[position]
        assert tensor is not None
        return tensor

    def has_input(self, position: int) -> bool:
        """Whether an optional input is given."""
        return position < len(self.inputs) and self.inputs[position] is not None

    def attribute(self, name: str, default: Any = None) -> Any:
        """The value of an attribute, `default` where the node does not have it."""
        return values.attribute(self.node, name, default)

    def integers(self, name: str, position: int) -> tuple[int, ...] | None:
        """Integers that old opsets have as an attribute and new ones as a constant input; None where neither says."""
        return values.integers(self.node, name, position)

    def axis(self, name: str = "axis", default: int = -1, of: Tensor | None = None) -> int:
        """An attribute that names an axis of the first input (or `of`), counted from the front."""
        return int(self.attribute(name, default)) % (of or self.x).rank


# From a step and the cotangents of its outputs (None for outputs that nothing depends on) to one cotangent per input
# (None for no derivative). A cotangent may still have the axes along which its input was broadcast: they are summed by
# the caller.
Rule = Callable[..., Sequence[Tensor | None]]


class Rules:
    """A rule set: its own rules, in front of those of another.

    Parameters
    ----------
    name : str
        Shown in the metadata of what the rules emit.
    table : mapping of str to Rule
        By operator, of the standard domain.
    stops : set of str
        Operators whose outputs carry no derivative to any input: comparisons, shapes, rounding.
    base : Rules, optional
        Asked for what this set does not have.
    """

    def __init__(
        self, name: str, table: Mapping[str, Rule], stops: frozenset[str] = frozenset(), base: Rules | None = None
    ) -> None:
        self.name = name
        self._table = {("", op_type): rule for op_type, rule in table.items()}
        self._stops = stops
        self._base = base

    def rule(self, op_type: str, domain: str = "", like: str = "Identity") -> Callable[[Rule], Rule]:
        """Decorator that adds a rule to the set, or replaces one.

        The rule is called as ``rule(step, cotangent)``, with one more cotangent for each further output that something
        depends on, and returns a list with a cotangent, or None, for every input of the node. `Tensor` has arithmetic,
        `op` every operator of ONNX.

        Models with an operator that is not ONNX's own are refused, unless a rule for it was registered before.

        Parameters
        ----------
        op_type : str
            The operator, such as "Relu".
        domain : str
            Its domain, "" for ONNX's own.
        like : str
            For operators of other domains: the operator of ONNX's own whose outputs have the same types and shapes,
            given the same inputs and attributes. "Identity" says that the output is like the first input.

        Examples
        --------
        >>> from craft_onnx.graph.reverse.gradients import GRADIENTS
        >>> from craft_onnx.graph.reverse.tensor import op
        >>> @GRADIENTS.rule("Cube", domain="my.domain")
        ... def cube(step, dy):
        ...     return [3 * step.x * step.x * dy]
        """

        def add(rule: Rule) -> Rule:
            self._table[_domain(domain), op_type] = rule
            if _domain(domain):
                infer_like(op_type, domain, like)
            return rule

        return add

    def find(self, node: ir.Node) -> Rule | None:
        """The rule of a node; None where there is none."""
        own = self._table.get((_domain(node.domain), node.op_type))
        return own or (self._base.find(node) if self._base else None)

    def stops(self, node: ir.Node) -> bool:
        """Whether no derivative goes through a node; a rule, of this set or its base, is stronger."""
        own = not _domain(node.domain) and node.op_type in self._stops
        return self.find(node) is None and (own or (self._base is not None and self._base.stops(node)))

    def check(self, model: ir.Model) -> None:
        """Raise InputError where a model lacks what the rules name; these name nothing."""

    @property
    def operators(self) -> frozenset[str]:
        """Names of the standard operators that it has a rule for."""
        own = frozenset(op_type for domain, op_type in self._table if not domain)
        return own | (self._base.operators if self._base else frozenset())


def _domain(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain

"""Composites as users give them, and how they are written down."""

from __future__ import annotations

from typing import Any

from craft_onnx.graph.reverse.rule_sets import rule_set
from craft_onnx.graph.reverse.rules import Rules


def composite_of(composite: str | Rules) -> Rules:
    """The composite of a name, or a composite itself."""
    return rule_set(composite) if isinstance(composite, str) else composite


def described(rules: Rules) -> dict[str, Any]:
    """What tells a composite from others, as JSON values."""
    return {"name": rules.name, "is": repr(rules)}

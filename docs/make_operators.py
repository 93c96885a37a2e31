"""What every operator of ONNX does in the reverse pass: `python docs/make_operators.py > docs/operators.md`."""

import itertools
import re
from collections.abc import Iterator

import onnx

from craft_onnx.graph.passes.opset import OLDEST, OPSET
from craft_onnx.graph.reverse.functions import has_body
from craft_onnx.graph.reverse.gradients import GRADIENTS, STOPS
from craft_onnx.graph.reverse.gradients.quantization import INTEGER_ONLY

HEAD = """# Operators

The derivative of each of ONNX's standard operators, for every opset it changed in from {oldest} to {newest}. Made by
`python docs/make_operators.py > docs/operators.md`.

- **rule**: it has a rule, tested in `tests/graph/reverse`;
- **body**: ONNX defines it as a function of others; its body takes its place, and is differentiated by their rules;
- **none**: no derivative leads through it: its output is whole numbers, truth values or text, constant in pieces or
  drawn at random;
- **unsupported**: a model that has it on the way from the picture to the target cannot be differentiated; the error
  names the operator, the layer, and the ways out: cut behind it, or register a rule.

Models below opset {opset} are raised to it first, and what counts is what the operator becomes there. Some rules do not
cover every attribute (Resize by cubic interpolation, say): then the error names the attribute.

{counts}

| Operator | Opset | Derivative |
|---|---|---|
"""
# What ONNX's converter makes of operators that it has done away with.
BECOMES = {"Upsample": "Resize", "Scatter": "ScatterElements"}


def changes() -> dict[str, list[int]]:
    """The opsets, from the oldest that models may have, in which each standard operator changed."""
    found: dict[str, set[int]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if not schema.domain:
            found.setdefault(schema.name, set()).add(max(schema.since_version, OLDEST))
    return {name: sorted(versions) for name, versions in sorted(found.items())}


def derivative(op_type: str, opset: int) -> str:
    """What becomes of an operator in a model of this opset."""
    op_type, opset = BECOMES.get(op_type, op_type), max(opset, OPSET)
    if op_type in GRADIENTS.operators:
        return "unsupported" if op_type in INTEGER_ONLY else "rule"
    if op_type in STOPS or not _is_continuous(onnx.defs.get_schema(op_type, opset, "")):
        return "none"
    return "body" if has_body(op_type, opset) else "unsupported"


def _is_continuous(schema: onnx.defs.OpSchema) -> bool:
    """Whether floating-point numbers go in, by an input or into a subgraph, and come out."""
    types = {one.type_param_str: " ".join(one.allowed_type_strs) for one in schema.type_constraints}
    carried = [
        [one for one in side if re.search("float|double", types.get(one.type_str, one.type_str))]
        for side in (schema.inputs, schema.outputs)
    ]
    has_subgraph = any(one.type == onnx.defs.OpSchema.AttrType.GRAPH for one in schema.attributes.values())
    return bool((carried[0] or has_subgraph) and carried[1])


def rows() -> Iterator[tuple[str, str, str]]:
    """Operator, opsets, derivative; a row for each run of opsets with the same."""
    for op_type, versions in changes().items():
        for kind, same in itertools.groupby(versions, lambda version, name=op_type: derivative(name, version)):
            yield op_type, ", ".join(map(str, same)), kind


def page() -> str:
    """The page as Markdown."""
    table = list(rows())
    kinds = [kind for *_, kind in table]
    counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in ("rule", "body", "none", "unsupported"))
    head = HEAD.format(oldest=OLDEST, newest=onnx.defs.onnx_opset_version(), opset=OPSET, counts=f"{counts}.")
    return head + "".join(f"| {op_type} | {versions} | {kind} |\n" for op_type, versions, kind in table)


if __name__ == "__main__":
    print(page(), end="")

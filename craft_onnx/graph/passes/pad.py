"""Zeros around a picture as pads of the convolution that reads it."""

import onnx_ir as ir

from craft_onnx.graph.passes.keeping import is_internal, pure
from craft_onnx.graph.values import attribute, constant, has_input, integers


@pure
def merge_pad(model: ir.Model) -> ir.Model:
    """Merge a Pad by zeros into the Conv that alone uses it.

    Requires: constants folded. Ensures: no Pad of constant pads on the spatial axes alone, by zeros, is left before a
    Conv with explicit pads. onnxruntime does that too, but for MaxPool as well, where it is wrong: see
    `runtime.sessions`.
    """
    for node in list(model.graph):
        conv = _conv_behind(node)
        pads = None if conv is None else _zeros_around(node)
        if conv is not None and pads is not None:
            own = attribute(conv, "pads", [0] * len(pads))
            conv.attributes["pads"] = ir.AttrInt64s("pads", [a + b for a, b in zip(own, pads, strict=True)])
            conv.attributes.pop("auto_pad", None)
            source = node.inputs[0]
            assert source is not None
            conv.replace_input_with(0, source)
            model.graph.remove(node, safe=True)
    return model


def _conv_behind(node: ir.Node) -> ir.Node | None:
    """The Conv with explicit pads that alone uses a node's output, as its data."""
    if not is_internal(node.outputs[0]):
        return None
    ((user, position),) = node.outputs[0].uses()
    explicit = attribute(user, "auto_pad", "NOTSET") in ("NOTSET", "VALID")
    return user if user.op_type == "Conv" and position == 0 and explicit else None


def _zeros_around(node: ir.Node) -> list[int] | None:
    """Pads of the spatial axes, None where a node is no Pad by zeros or pads other axes."""
    if node.op_type != "Pad" or attribute(node, "mode", "constant") != "constant" or has_input(node, 3):
        return None
    pads = integers(node, "pads", 1)
    value = constant(node.inputs[2]) if has_input(node, 2) else 0
    if pads is None or value is None or value != 0 or min(pads) < 0:
        return None
    rank = len(pads) // 2
    others = (*pads[:2], *pads[rank : rank + 2])
    return None if any(others) else [*pads[2:rank], *pads[rank + 2 :]]

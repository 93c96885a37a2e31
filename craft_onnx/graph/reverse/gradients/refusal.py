"""The error of a rule that cannot do what a node asks for."""

from craft_onnx.errors import UnsupportedOperator
from craft_onnx.graph.names import layer_of
from craft_onnx.graph.reverse.rules import Step


def refusal(step: Step, reason: str) -> UnsupportedOperator:
    """The error that says why; `reason` completes "it ..."."""
    node = step.node
    return UnsupportedOperator(
        f"No derivative is known of {node.op_type} {node.name!r} (layer {layer_of(node.outputs[0])!r}): it {reason}.",
        "Cut the model behind that layer.",
    )

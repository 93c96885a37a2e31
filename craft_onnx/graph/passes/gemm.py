"""One form of a dense layer: Gemm."""

import onnx_ir as ir

from craft_onnx.graph.passes.keeping import is_internal, pure, take_over
from craft_onnx.graph.values import constant, rank


@pure
def make_gemm(model: ir.Model) -> ir.Model:
    """Replace MatMul and the Add of a bias by Gemm, on matrices.

    Requires: constants folded, shapes inferred. Ensures: no Add of a constant vector is left behind a MatMul of a
    matrix by a constant that nothing else uses.
    """
    for node in list(model.graph):
        matmul, bias = _dense(node)
        if matmul is not None and bias is not None:
            _replace(node, matmul, bias)
    return model


def _dense(add: ir.Node) -> tuple[ir.Node | None, ir.Value | None]:
    """The MatMul and the bias of a dense layer that ends in `add`."""
    if add.op_type == "Add":
        for product, bias in (add.inputs, add.inputs[::-1]):
            matmul = None if product is None else product.producer()
            if matmul is not None and _is_matrix_product(matmul) and _is_bias(bias, matmul):
                return matmul, bias
    return None, None


def _is_matrix_product(node: ir.Node) -> bool:
    if node.op_type != "MatMul" or not is_internal(node.outputs[0]):
        return False
    weight = constant(node.inputs[1])
    return weight is not None and weight.ndim == 2 and node.inputs[0] is not None and rank(node.inputs[0]) == 2


def _is_bias(value: ir.Value | None, matmul: ir.Node) -> bool:
    bias, weight = constant(value), constant(matmul.inputs[1])
    # A (1, n) bias is added to (N, n) all the same; more rows would be another one for every picture.
    return bias is not None and weight is not None and bias.shape in {(weight.shape[1],), (1, weight.shape[1])}


def _replace(add: ir.Node, matmul: ir.Node, bias: ir.Value) -> None:
    graph = add.graph
    assert isinstance(graph, ir.Graph)
    product = ir.Value(name=matmul.outputs[0].name)
    graph.insert_before(add, ir.node("Gemm", [*matmul.inputs, bias], outputs=[product], name=matmul.name))
    matmul.outputs[0].replace_all_uses_with(product)
    graph.remove(matmul, safe=True)
    take_over(add, product)

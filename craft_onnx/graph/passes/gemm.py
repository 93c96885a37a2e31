"""One form of a dense layer: Gemm."""

import onnx_ir as ir

from craft_onnx.graph.passes.keeping import is_internal, pure, take_over
from craft_onnx.graph.values import constant, rank


@pure
def make_gemm(model: ir.Model) -> ir.Model:
    """Replace MatMul, and the Add of a bias behind it, by Gemm, on matrices.

    Requires: constants folded, shapes inferred. Ensures: no MatMul of a matrix by a constant matrix is left, and no Add
    of a constant vector behind one whose product nothing else uses.
    """
    for node in list(model.graph):
        if _is_matrix_product(node):
            add, bias = _bias_behind(node)
            product = _replace(node, bias)
            if add is not None:
                take_over(add, product)
    return model


def _is_matrix_product(node: ir.Node) -> bool:
    if node.op_type != "MatMul" or node.inputs[0] is None or rank(node.inputs[0]) != 2:
        return False
    weight = constant(node.inputs[1])
    return weight is not None and weight.ndim == 2


def _bias_behind(matmul: ir.Node) -> tuple[ir.Node | None, ir.Value | None]:
    """The Add of a bias that alone uses the product, and the bias."""
    product = matmul.outputs[0]
    user = next(iter(product.uses())).node if is_internal(product) else None
    if user is None or user.op_type != "Add":
        return None, None
    bias = next((value for value in user.inputs if value is not product), None)
    return (user, bias) if _is_bias(bias, matmul) else (None, None)


def _is_bias(value: ir.Value | None, matmul: ir.Node) -> bool:
    bias, weight = constant(value), constant(matmul.inputs[1])
    # A (1, n) bias is added to (N, n) all the same; more rows would be another one for every picture.
    return bias is not None and weight is not None and bias.shape in {(weight.shape[1],), (1, weight.shape[1])}


def _replace(matmul: ir.Node, bias: ir.Value | None) -> ir.Value:
    """The product of a Gemm in the place of the MatMul."""
    old = matmul.outputs[0]
    product = ir.Value(name=old.name, type=old.type, shape=old.shape)
    inputs = matmul.inputs if bias is None else [*matmul.inputs, bias]
    matmul.append(ir.node("Gemm", inputs, outputs=[product], name=matmul.name))
    old.replace_all_uses_with(product, replace_graph_outputs=True)
    matmul.graph.remove(matmul, safe=True)  # type: ignore[union-attr] # it is a node of the graph
    return product

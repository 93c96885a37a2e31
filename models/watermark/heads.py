"""A new linear head on the features of a classifier: trained by scikit-learn, and put into its ONNX graph."""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from craft_onnx.errors import InputError
from craft_onnx.extras import require
from craft_onnx.graph.class_column import LAYOUT, LINEAR
from craft_onnx.graph.load import check, logits_output
from craft_onnx.graph.values import Builder, dimensions, with_shapes, without_unused

Floats = NDArray[np.floating]
ITERATIONS = 10_000
FEATURES = "features"


@dataclass(frozen=True)
class Head:
    """A linear layer.

    Attributes
    ----------
    weights : (classes, p) float32 array
    bias : (classes,) float32 array
    """

    weights: NDArray[np.float32]
    bias: NDArray[np.float32]

    def logits(self, features: Floats) -> Floats:
        """Logits (n, classes) of features (n, p)."""
        return features @ self.weights.T + self.bias


def trained(features: Floats, labels: NDArray[np.integer], regularisation: float = 1.0) -> Head:
    """Logistic regression of all classes at once, with a penalty on the squares of the weights.

    Parameters
    ----------
    features : (n, p) array
    labels : (n,) int array
        Every class from 0 on.
    regularisation : float
        scikit-learn's C: the smaller, the stronger the penalty.
    """
    regression = require("sklearn.linear_model", "build").LogisticRegression
    fitted = regression(C=regularisation, max_iter=ITERATIONS).fit(features, labels)
    weights, bias = fitted.coef_, fitted.intercept_
    if len(weights) == 1:  # of two classes: the log-odds of the second, which both logits share
        weights, bias = np.concatenate([-weights, weights]) / 2, np.concatenate([-bias, bias]) / 2
    return Head(weights.astype(np.float32), bias.astype(np.float32))


def to_features(model: ir.Model) -> ir.Model:
    """The graph from the picture to what the last linear layer reads, (N, p); `model` is not changed."""
    copy = with_shapes(model)
    copy.graph.outputs[:] = [_flat(copy.graph, _last_linear(copy).inputs[0])]
    return _finished(copy)


def with_head(model: ir.Model, head: Head) -> ir.Model:
    """The graph with another last linear layer; `model` is not changed.

    Parameters
    ----------
    model : onnx_ir.Model
        A classifier that ends in a linear layer.
    head : Head
        For as many features as that layer reads.

    Raises
    ------
    InputError
        If the model does not end in a linear layer, or it reads another number of features.
    """
    copy = with_shapes(model)
    old = _last_linear(copy)
    features = _flat(copy.graph, old.inputs[0])
    width = (dimensions(old.inputs[0]) or (None, None))[1] if old.inputs[0] is not None else None
    if width != head.weights.shape[1]:
        raise InputError(
            f"The head is for {head.weights.shape[1]} features, the model has {width}.", "Train it on this model's."
        )
    build = Builder(copy.graph)
    constants = [build.constant("head.weight", head.weights), build.constant("head.bias", head.bias)]
    copy.graph.outputs[:] = [build.op("Gemm", [features, *constants], {"transB": 1}, "logits", like=old)]
    return _finished(copy)


def _last_linear(model: ir.Model) -> ir.Node:
    value: ir.Value | None = logits_output(model)
    while value is not None and (node := value.producer()) is not None:
        if node.op_type in LINEAR and _of_vectors(node.inputs[0]):
            return node
        value = node.inputs[0] if node.op_type in LAYOUT else None
    raise InputError(
        "The model does not end in a linear layer on a vector of features.",
        "Take such a classifier; craft-onnx convert takes a Softmax off.",
    )


def _of_vectors(value: ir.Value | None) -> bool:
    """(N, p), or a map (N, p, 1, 1) of one position."""
    sizes = None if value is None else dimensions(value)
    return sizes is not None and (len(sizes) == 2 or (len(sizes) == 4 and sizes[2:] == (1, 1)))


def _flat(graph: ir.Graph, value: ir.Value | None) -> ir.Value:
    assert value is not None
    return Builder(graph).op("Flatten", [value], {"axis": 1}, FEATURES)


def _finished(model: ir.Model) -> ir.Model:
    """Without what is unused, its output typed."""
    output = model.graph.outputs[0]
    output.type = ir.TensorType(ir.DataType.FLOAT)
    shaped = with_shapes(without_unused(model))
    check(shaped)
    return shaped

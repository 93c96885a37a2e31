"""Is a gradient graph right? Three oracles, and how close they must come.

1. A central difference along random directions, in float64, through ONNX's reference evaluator.
2. The derivative of another implementation (PyTorch's, mostly), in float64, where the test gives one.
3. The same graph in float32 through onnxruntime: that it runs there, and rounds only.
"""

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from onnx.reference import ReferenceEvaluator
from support.reference_operators import OPERATORS

from craft_onnx.graph.load import check
from craft_onnx.graph.reverse.gradients import GRADIENTS
from craft_onnx.graph.reverse.vjp import gradient_graph

# A step of 1e-5 leaves an error of 1e-10 (its square) and a rounding of 1e-11 (float64's 2e-16 over it), times what the
# function's own size adds. A rule that is wrong by 0.1 % is caught with four digits to spare.
STEP, DIFFERENCE = 1e-5, 1e-7
SAME = 1e-10  # two implementations of one formula in float64
SINGLE = 2e-5  # float32's rounding, through sums of up to some thousand terms
DIRECTIONS = 3


def one_node(op_type, arrays, position=0, attributes=None, *, opset=18, dtype=np.float64, dynamic=False, outputs=1):
    """A model of one node whose input number `position` is x; the other inputs are initializers (None: left out).

    Arrays in float64 take `dtype`; float32 stays (the scales of Resize). `dynamic` leaves all lengths of x open.
    """
    values = []
    for index, array in enumerate(arrays):
        if array is None:
            values.append(None)
            continue
        array = np.asarray(array)
        array = array.astype(dtype) if array.dtype == np.float64 else array
        tensor = ir.tensor(array, name=f"input_{index}")
        shape = [f"n{axis}" for axis in range(array.ndim)] if dynamic and index == position else array.shape
        value = ir.Value(name=f"input_{index}", shape=ir.Shape(shape), type=ir.TensorType(tensor.dtype))
        value.const_value = None if index == position else tensor
        values.append(value)
    node = ir.node(op_type, values, attributes or {}, num_outputs=outputs, name="node")
    for index, output in enumerate(node.outputs):
        output.name = f"output_{index}"
    x, y = values[position], node.outputs[0]
    constants = [value for value in values if value is not None and value is not x]
    y.dtype = x.dtype
    graph = ir.Graph([x], [y], nodes=[node], initializers=constants, opset_imports={"": opset}, name="one_node")
    return ir.Model(graph, ir_version=10)


def evaluate(model, **feeds):
    """The first output, in the precision of the model, by ONNX's reference evaluator."""
    proto = ir.serde.serialize_model(model)
    names = [value.name for value in model.graph.inputs]
    return ReferenceEvaluator(proto, new_ops=OPERATORS).run(None, {name: feeds[name] for name in names})[0]


def run(model, **feeds):
    """The first output, by onnxruntime."""
    return next(iter(run_all(model, **feeds).values()))


def run_all(model, **feeds):
    """All outputs by name, by onnxruntime; feeds may be more than the model takes."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    content = ir.serde.serialize_model(model).SerializeToString()
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    found = session.run(names, {value.name: feeds[value.name] for value in session.get_inputs()})
    return dict(zip(names, found, strict=True))


def assert_close(actual, expected, tolerance, what):
    """Largest difference, relative to the largest number expected."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape} instead of {expected.shape}"
    error = np.abs(actual - expected).max(initial=0) / max(np.abs(expected).max(initial=0), 1e-3)
    assert error <= tolerance, f"{what}: off by {error:.1e}"


def check_difference(function, gradient, x, seed=0):
    """Oracle 1: `gradient(x, cotangent)` against central differences of `function(x)`."""
    rng = np.random.default_rng(seed)
    cotangent = rng.standard_normal(function(x).shape)
    dx = gradient(x, cotangent)
    assert dx.shape == x.shape, f"the gradient has shape {dx.shape}, x has {x.shape}"
    for _ in range(DIRECTIONS):
        direction = rng.standard_normal(x.shape)
        ahead, behind = function(x + STEP * direction), function(x - STEP * direction)
        terms = cotangent * (ahead - behind) / (2 * STEP)
        # Relative to the terms of the sums: the sums themselves may cancel.
        scale = max(np.abs(terms).sum(), np.abs(dx * direction).sum(), 1e-3)
        error = abs(terms.sum() - (dx * direction).sum()) / scale
        assert error <= DIFFERENCE, f"the derivative along a random direction is off by {error:.1e}"
    return cotangent, dx


def check_model(build, x, expected=None, rules=GRADIENTS, single=True, seed=0):
    """All oracles on a model.

    Parameters
    ----------
    build : callable
        From a numpy dtype to the model with floating-point numbers of that type.
    x : ndarray
        Where; at least 1e-4 away from kinks.
    expected : callable, optional
        From (x, cotangent) to another implementation's gradient, in float64.
    single : bool
        Whether onnxruntime has the operator in float32.
    """
    x = np.asarray(x, np.float64)
    model = build(np.float64)
    backward = gradient_graph(model, rules=rules)
    name = model.graph.inputs[0].name
    cotangent, dx = check_difference(
        lambda at: evaluate(model, **{name: at}),
        lambda at, c: evaluate(backward, **{name: at, "cotangent": c}),
        x,
        seed,
    )
    if expected is not None:
        assert_close(dx, expected(x, cotangent), SAME, "the other implementation")
    if single:
        narrow = gradient_graph(build(np.float32), rules=rules)
        check(narrow)
        found = run(narrow, **{name: x.astype(np.float32), "cotangent": cotangent.astype(np.float32)})
        assert_close(found, dx, SINGLE, "float32")


def check_node(
    op_type, arrays, attributes=None, *, wrt=(0,), opset=18, torch=None, dynamic=(False, True), outputs=1, **options
):
    """All oracles on one operator, for the derivative to each input in `wrt`, with known and with open lengths.

    Parameters
    ----------
    op_type, arrays, attributes, opset
        The node: its inputs in float64 (or integers), None for one left out.
    wrt : sequence of int
        Inputs to differentiate to.
    torch : callable, optional
        The same function of the same inputs (PyTorch tensors), for its autograd.
    dynamic : sequence of bool
        Whether the lengths of x are open.
    outputs : int
        How many the operator has; the first is differentiated.
    options
        Of `check_model`.
    """
    for position in wrt:
        expected = None if torch is None else _by_torch(torch, arrays, position)
        for is_open in dynamic:
            check_model(
                lambda dtype, at=position, is_open=is_open: one_node(
                    op_type, arrays, at, attributes, opset=opset, dtype=dtype, dynamic=is_open, outputs=outputs
                ),
                arrays[position],
                expected,
                **options,
            )


def _by_torch(function, arrays, position):
    """Gradient of a function of PyTorch tensors to one of them."""
    import torch

    def gradient(x, cotangent):
        given = [None if array is None else torch.tensor(array) for array in arrays]
        given[position] = torch.tensor(x, requires_grad=True)
        y = function(*given)
        return torch.autograd.grad(y, given[position], torch.tensor(cotangent))[0].numpy()

    return gradient

"""Small random graphs: whatever their shape, gradient graph, pair and halves agree with differences and each other."""

import functools
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator
from support.gradient_oracle import SAME, assert_close, check_model
from support.reference_operators import OPERATORS

from craft_onnx.graph.reverse.pair import gradient_pair
from craft_onnx.graph.reverse.vjp import gradient_graph
from craft_onnx.graph.split import split
from craft_onnx.graph.values import with_shapes

# The same graphs in every run: a failure is one of the code, and names a graph that can be drawn again.
drawn = settings(
    deadline=None, derandomize=True, database=None, max_examples=100, suppress_health_check=list(HealthCheck)
)

SHAPE = (2, 3, 4)
SMOOTH = ("Tanh", "Sigmoid", "Sin", "Softplus", "Erf", "Atan", "Identity")
KINKED = ("Relu", "Abs", "LeakyRelu")
BINARY = ("Add", "Sub", "Mul", "Max", "Min")
FROM_KINK = 1e-3  # a hundred steps of the difference, and beyond the rounding of float32


@dataclass
class Plan:
    """A graph as a list of nodes: (operator, inputs, attributes); an input is a tensor's name or a constant's array."""

    nodes: list = field(default_factory=list)
    shapes: dict = field(default_factory=dict)

    def add(self, shape, op_type, *inputs, **attributes):
        name = f"t{len(self.nodes)}"
        self.nodes.append((op_type, inputs, attributes, name))
        self.shapes[name] = tuple(shape)
        return name

    def build(self, dtype, open_axes=(), output=None):
        """The model; axes of x in `open_axes` have names for lengths."""
        kind = ir.TensorType(ir.DataType.from_numpy(np.dtype(dtype)))
        x = ir.Value(name="x", type=kind)
        x.shape = ir.Shape([f"n{axis}" if axis in open_axes else size for axis, size in enumerate(SHAPE)])
        values, constants, nodes = {"x": x}, [], []
        for op_type, inputs, attributes, name in self.nodes:
            given = [values[one] if isinstance(one, str) else self._constant(one, dtype, constants) for one in inputs]
            nodes.append(ir.node(op_type, given, attributes, name=f"{op_type} {name}"))
            values[name] = nodes[-1].outputs[0]
            values[name].name = name
        y = values[output or self.nodes[-1][3]]
        y.type = kind
        graph = ir.Graph([x], [y], nodes=nodes, initializers=constants, opset_imports={"": 18}, name="random")
        return with_shapes(ir.Model(graph, ir_version=10))

    @staticmethod
    def _constant(array, dtype, constants):
        array = array.astype(dtype) if array.dtype.kind == "f" else array
        value = ir.Value(name=f"c{len(constants)}", const_value=ir.tensor(array, name=f"c{len(constants)}"))
        value.shape, value.dtype = ir.Shape(array.shape), ir.DataType.from_numpy(array.dtype)
        constants.append(value)
        return value


def numbers(draw, shape):
    return np.random.default_rng(draw(st.integers(0, 999))).uniform(0.3, 1.2, shape)


def elementwise(draw, plan, x):
    return plan.add(plan.shapes[x], draw(st.sampled_from(SMOOTH + KINKED)), x)


def binary(draw, plan, x):
    """With another tensor, or itself, or a constant that broadcasts or is broadcast to."""
    shape = plan.shapes[x]
    others = [name for name, one in plan.shapes.items() if _broadcasts(shape, one)]
    other = draw(st.sampled_from([*others, None]))
    op_type = draw(st.sampled_from(BINARY))
    if other is None:
        kept = draw(st.lists(st.booleans(), min_size=len(shape), max_size=len(shape)))
        lengths = [size if keep else 1 for size, keep in zip(shape, kept, strict=True)]
        lengths = [2, *lengths] if len(shape) < 4 and draw(st.booleans()) else lengths
        other = numbers(draw, lengths[draw(st.integers(0, 1)) if lengths[0] == 1 else 0 :])
    elif other == x and op_type in ("Max", "Min"):
        op_type = "Mul"  # of itself: a tie everywhere
    result = np.broadcast_shapes(shape, plan.shapes[other] if isinstance(other, str) else other.shape)
    pair = (x, other) if draw(st.booleans()) else (other, x)
    return plan.add(result, op_type, *pair)


def _broadcasts(one, other):
    try:
        return len(np.broadcast_shapes(one, other)) <= 4
    except ValueError:
        return False


def divide(draw, plan, x):
    return plan.add(plan.shapes[x], "Div", x, numbers(draw, plan.shapes[x][-1:]))


def product(draw, plan, x):
    shape = plan.shapes[x]
    if len(shape) < 2:
        return elementwise(draw, plan, x)
    width = draw(st.integers(1, 4))
    return plan.add((*shape[:-1], width), "MatMul", x, numbers(draw, (shape[-1], width)) - 0.7)


def reduction(draw, plan, x):
    shape = plan.shapes[x]
    if len(shape) < 2:
        return elementwise(draw, plan, x)
    axis, keep = draw(st.integers(1, len(shape) - 1)), draw(st.booleans())
    op_type = draw(st.sampled_from(["ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceLogSumExp", "Softmax"]))
    if op_type == "Softmax":
        return plan.add(shape, op_type, x, axis=axis)
    result = [1 if at == axis else size for at, size in enumerate(shape) if keep or at != axis]
    return plan.add(result, op_type, x, np.array([axis]), keepdims=int(keep))


def layout(draw, plan, x):
    shape = plan.shapes[x]
    last = len(shape) - 1
    choice = draw(st.sampled_from(["Transpose", "Reshape", "Concat", "Slice", "Gather", "Unsqueeze", "Flatten", "Pad"]))
    if last == 0 and choice in ("Transpose", "Reshape", "Flatten", "Concat", "Slice", "Gather", "Pad"):
        choice = "Unsqueeze"
    if last >= 3 and choice == "Unsqueeze":
        choice = "Transpose"
    axis = draw(st.integers(min(1, last), last))
    changed = functools.partial(_with_length, shape, axis)
    match choice:
        case "Transpose":
            perm = draw(st.permutations(range(len(shape))))
            return plan.add([shape[at] for at in perm], "Transpose", x, perm=list(perm))
        case "Reshape":
            return plan.add((*shape[:-2], shape[-2] * shape[-1]), "Reshape", x, np.array([*[0] * (last - 1), -1]))
        case "Flatten":
            return plan.add((shape[0], int(np.prod(shape[1:]))), "Flatten", x)
        case "Concat":
            return plan.add(changed(2 * shape[axis]), "Concat", x, x, axis=axis)
        case "Slice":
            step = draw(st.sampled_from([1, 2, -1]))
            begin, end = (-1, -100) if step < 0 else (0, 100)
            length = len(range(shape[axis])[:: abs(step)])
            return plan.add(changed(length), "Slice", x, *(np.array([one]) for one in (begin, end, axis, step)))
        case "Gather":
            return plan.add(changed(3), "Gather", x, np.array([0, shape[axis] - 1, 0]), axis=axis)
        case "Pad":
            return plan.add(changed(shape[axis] + 3), "Pad", x, np.array([1, 2]), np.array(0.5), np.array([axis]))
    return plan.add((*shape[:axis], 1, *shape[axis:]), "Unsqueeze", x, np.array([axis]))


def _with_length(shape, axis, length):
    return [length if at == axis else size for at, size in enumerate(shape)]


STEPS = [elementwise, binary, binary, divide, product, reduction, layout, layout, layout]


def extend(draw, plan, count):
    """Append nodes, each on a tensor drawn from all there are: some are used often, some never."""
    for _ in range(count):
        names = [name for name, shape in plan.shapes.items() if np.prod(shape) < 200]
        last = list(plan.shapes)[-1]
        source = last if last in names and draw(st.booleans()) else draw(st.sampled_from(names))
        draw(st.sampled_from(STEPS))(draw, plan, source)
    return plan


@st.composite
def plans(draw):
    return extend(draw, Plan(shapes={"x": SHAPE}), draw(st.integers(1, 9)))


@st.composite
def plans_with_a_cut(draw):
    """A graph and the name of a tensor that every path to the output goes through."""
    first = extend(draw, Plan(shapes={"x": SHAPE}), draw(st.integers(1, 5)))
    cut = list(first.shapes)[-1]
    second = extend(draw, Plan(first.nodes, {cut: first.shapes[cut]}), draw(st.integers(1, 5)))
    return second, cut


def evaluate_all(model, names=(), **feeds):
    """All outputs and the tensors in `names`, in the model's precision, by name."""
    proto = ir.serde.serialize_model(model)
    wanted = list(dict.fromkeys([*(value.name for value in model.graph.outputs), *names]))
    for name in wanted[len(model.graph.outputs) :]:
        proto.graph.output.add().name = name
    found = ReferenceEvaluator(proto, new_ops=OPERATORS).run(
        wanted, {value.name: feeds[value.name] for value in model.graph.inputs}
    )
    return dict(zip(wanted, found, strict=True))


def distance_from_kinks(plan, x):
    """How far the nearest number at a kink is from it."""
    names = [name for *_, name in plan.nodes]
    tensors = evaluate_all(plan.build(np.float64), names, x=x) | {"x": x}
    distances = [1.0]
    for op_type, inputs, *_ in plan.nodes:
        if op_type in (*KINKED, "Max", "Min"):
            first, second = [tensors.get(one, one) if isinstance(one, str) else one for one in (*inputs, 0.0)][:2]
            distances.append(abs(first - second).min())
    return min(distances)


def point(plan, seed):
    """Where to differentiate: away from kinks."""
    x = np.random.default_rng(seed).uniform(-1.5, 1.5, SHAPE)
    assume(distance_from_kinks(plan, x) > FROM_KINK)
    return x


seeds, lengths = st.integers(0, 99), st.sampled_from([(), (0,), (0, 1, 2)])


@drawn
@given(plans(), seeds, lengths)
def test_gradients(plan, seed, open_axes):
    check_model(lambda dtype: plan.build(dtype, open_axes), point(plan, seed))


@drawn
@given(plans(), seeds, lengths)
def test_a_pair_gives_what_the_whole_gives(plan, seed, open_axes):
    model = plan.build(np.float64, open_axes)
    whole, (forward, backward) = gradient_graph(model), gradient_pair(model)
    x = np.random.default_rng(seed).standard_normal(SHAPE)
    values = evaluate_all(forward, x=x)
    cotangent = np.random.default_rng(seed).standard_normal(values[model.graph.outputs[0].name].shape)
    (found,) = evaluate_all(backward, cotangent=cotangent, **values).values()
    np.testing.assert_array_equal(found, evaluate_all(whole, x=x, cotangent=cotangent)["gradient"])
    np.testing.assert_array_equal(values[model.graph.outputs[0].name], *evaluate_all(model, x=x).values())


@drawn
@given(plans_with_a_cut(), seeds, lengths)
def test_the_halves_one_after_another_give_what_the_whole_gives(drawing, seed, open_axes):
    plan, cut = drawing
    model = plan.build(np.float64, open_axes)
    g, h = split(model, cut)
    x = np.random.default_rng(seed).standard_normal(SHAPE)
    activations, y = evaluate_all(g, x=x)[cut], next(iter(evaluate_all(model, x=x).values()))
    cotangent = np.random.default_rng(seed).standard_normal(y.shape)
    middle = evaluate_all(gradient_graph(h), **{cut: activations, "cotangent": cotangent})["gradient"]
    found = evaluate_all(gradient_graph(g), x=x, cotangent=middle)["gradient"]
    expected = evaluate_all(gradient_graph(model), x=x, cotangent=cotangent)["gradient"]
    # Not to the bit: a function that is cut in two is carried back in two products.
    assert_close(found, expected, SAME, "the halves")

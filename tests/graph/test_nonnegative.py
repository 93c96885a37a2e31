"""What is claimed to be non-negative is, on random graphs and random inputs; and what should be claimed is."""

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from craft_onnx.graph import nonnegative
from craft_onnx.graph.nonnegative import nonnegative_tensors

SHAPE = (2, 4, 6, 6)


class RandomGraph:
    """A graph whose nodes all give tensors of SHAPE."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.input = ir.Value(name="x", shape=ir.Shape(SHAPE), type=ir.TensorType(ir.DataType.FLOAT))
        self.values, self.nodes, self.constants = [self.input], [], []
        for _ in range(25):
            self.step(list(STEPS)[self.rng.integers(len(STEPS))])

    def constant(self, array):
        tensor = ir.tensor(np.asarray(array), name=f"c{len(self.constants)}")
        self.constants.append(ir.Value(name=tensor.name, const_value=tensor))
        return self.constants[-1]

    def weights(self, *shape):
        """Signed, or non-negative half of the time."""
        array = self.rng.normal(size=shape).astype(np.float32)
        return self.constant(np.abs(array) if self.rng.random() < 0.5 else array)

    def op(self, op_type, *inputs, **attributes):
        output = ir.Value(name=f"v{len(self.nodes)}")
        self.nodes.append(ir.node(op_type, list(inputs), attributes, outputs=[output]))
        return output

    def any(self):
        return self.values[self.rng.integers(max(0, len(self.values) - 6), len(self.values))]

    def step(self, name):
        self.values.append(STEPS[name](self))

    def model(self):
        outputs = self.values[1:]
        for value in outputs:
            value.type = ir.TensorType(ir.DataType.FLOAT)
        graph = ir.Graph(
            [self.input], outputs, nodes=self.nodes, initializers=self.constants, opset_imports={"": 20}, name="random"
        )
        return ir.Model(graph, ir_version=10)


def words(text):
    return text.split()


def unary(name, **attributes):
    return lambda g: g.op(name, g.any(), **attributes)


def binary(name):
    return lambda g: g.op(name, g.any(), g.any())


def with_constant(name):
    return lambda g: g.op(name, g.any(), g.weights(1, 4, 1, 1))


def sizes(g, *numbers):
    return g.constant(np.array(numbers, np.int64))


def back(g, value):
    """The first entries of every axis, in SHAPE."""
    return g.op("Slice", value, sizes(g, 0, 0, 0, 0), sizes(g, *SHAPE))


def resized(mode):
    def step(g):
        scales = g.constant(np.array([1, 1, 1.7, 2.3], np.float32))
        return back(g, g.op("Resize", g.any(), None, scales, mode=mode))

    return step


def clipped(g):
    low, high = np.sort(g.rng.normal(size=2)).astype(np.float32)
    return g.op("Clip", g.any(), g.constant(low), g.constant(high))


def padded(g):
    fill = g.constant(np.float32(g.rng.normal()))
    return back(g, g.op("Pad", g.any(), sizes(g, 0, 0, 1, 1, 0, 0, 0, 0), fill))


def chosen(g):
    return g.op("Where", g.constant(g.rng.random(SHAPE) < 0.5), g.any(), g.any())


def reduced(name):
    return lambda g: g.op("Expand", g.op(name, g.any(), sizes(g, 2, 3), keepdims=1), sizes(g, *SHAPE))


def normalized(g):
    return g.op("BatchNormalization", g.any(), *(g.weights(4) for _ in range(3)), g.constant(np.ones(4, np.float32)))


def squared(g):
    value = g.any()
    return g.op("Mul", value, value)


STEPS = {
    **{
        name: unary(name)
        for name in words("Relu Sigmoid HardSigmoid Softplus Exp Abs Sqrt Tanh HardSwish Neg Elu Gelu")
    },
    **{name: unary(name) for name in words("LeakyRelu Softmax LogSoftmax Selu Erf Identity Floor Sin Dropout")},
    **{name: binary(name) for name in words("Add Sub Mul Div Min Max Mean Sum")},
    **{f"{name}_constant": with_constant(name) for name in words("Add Sub Mul Div Pow PRelu Max Min")},
    **{name: reduced(name) for name in words("ReduceMean ReduceSum ReduceMax ReduceMin ReduceL2 ReduceLogSumExp")},
    **{f"Resize_{mode}": resized(mode) for mode in ("nearest", "linear", "cubic")},
    "MaxPool": unary("MaxPool", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    "AveragePool": unary("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    "LRN": unary("LRN", size=3),
    "Transpose": unary("Transpose", perm=[0, 1, 3, 2]),
    "Concat": lambda g: back(g, g.op("Concat", g.any(), g.any(), axis=2)),
    "Conv": lambda g: g.op("Conv", g.any(), g.weights(4, 4, 3, 3), g.weights(4), pads=[1, 1, 1, 1]),
    "MatMul": lambda g: g.op("MatMul", g.any(), g.weights(6, 6)),
    "Square": squared,
    "Clip": clipped,
    "Pad": padded,
    "Where": chosen,
    "BatchNormalization": normalized,
    "Cast": lambda g: g.op("Cast", g.op("Cast", g.any(), to=ir.DataType.DOUBLE), to=ir.DataType.FLOAT),
}


def untainted(graph, found):
    """Tensors that no NaN went into: MaxPool, for one, makes the lowest number of some."""
    sound = {"x", *(value.name for value in graph.constants)}
    for node in graph.nodes:
        name = node.outputs[0].name
        if (
            all(value is None or value.name in sound for value in node.inputs)
            and not np.isnan(found.get(name, 0)).any()
        ):
            sound.add(name)
    return sound & set(found)


def count_claims(seeds):
    """How often a tensor was claimed to be non-negative, and how often one of those was negative somewhere."""
    claims = wrong = 0
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    for seed in seeds:
        graph = RandomGraph(seed)
        model = graph.model()
        claimed = nonnegative_tensors(model)
        content = ir.serde.serialize_model(model).SerializeToString()
        session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        names = [value.name for value in model.graph.outputs]
        found = dict(
            zip(names, session.run(None, {"x": 3 * graph.rng.normal(size=SHAPE).astype(np.float32)}), strict=True)
        )
        sound = claimed & untainted(graph, found)
        claims += len(sound)
        wrong += sum(bool((found[name] < 0).any()) for name in sound)
    return claims, wrong


def test_no_claimed_tensor_of_random_graphs_is_negative():
    claims, wrong = count_claims(range(150))
    assert wrong == 0
    assert claims > 1000  # of about 5000 tensors: the claim is not empty


@pytest.mark.parametrize("operator", ["Tanh", "Selu", "HardSwish"])
def test_a_wrong_rule_would_be_found(operator, monkeypatch):
    monkeypatch.setattr(nonnegative, "ALWAYS", nonnegative.ALWAYS | {operator})
    assert count_claims(range(60))[1] > 0


def claimed(parse, body, opset=20):
    text = f'<ir_version: 9, opset_import: ["" : {opset}]> g (float[N,4,6,6] x) => (float[N,4,6,6] y) {{ {body} }}'
    return "y" in nonnegative_tensors(parse(text))


@pytest.mark.parametrize(
    "body",
    [
        "y = Relu(x)",
        "zero = Constant<value = float {0.0}>() y = Clip(x, zero)",
        "zero = Constant<value = float {0.0}>() six = Constant<value = float {6.0}>() y = Clip(x, zero, six)",
        "y = Mul(x, x)",
        "two = Constant<value = float {2.0}>() y = Pow(x, two)",
        "a = Relu(x) b = Sigmoid(x) y = Mul(a, b)",
        "a = Relu(x) y = Max(a, x)",
        "a = Relu(x) y = Gelu(a)",
        "a = Relu(x) y = AveragePool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(a)",
        "a = Relu(x) p = Constant<value_ints = [0, 0, 1, 1, 0, 0, 1, 1]>() y = Pad(a, p)",
        "a = Relu(x) b, c = Split<axis = 1, num_outputs = 2>(a) y = Concat<axis = 1>(b, c)",
    ],
)
def test_it_is_proven(parse, body):
    assert claimed(parse, body)


@pytest.mark.parametrize(
    "body",
    [
        "y = Identity(x)",
        "y = HardSwish(x)",
        "y = Min(x, x)",
        "a = Relu(x) y = Sub(a, a)",
        "a = Relu(x) y = Neg(a)",
        "a = Relu(x) y = Min(a, x)",
        "a = Relu(x) y = Concat<axis = 1>(a, x)",
        "low = Constant<value = float {-1.0}>() y = Clip(x, low)",
        "a = Relu(x) high = Constant<value = float {-1.0}>() y = Clip(a, , high)",
        "three = Constant<value = float {3.0}>() y = Pow(x, three)",
        "a = Relu(x) p = Constant<value_ints = [0, 0, 1, 1, 0, 0, 1, 1]>() v = Constant<value = float {-1.0}>() "
        "y = Pad(a, p, v)",
        "a = Relu(x) b = Cast<to = 3>(a) y = Cast<to = 1>(b)",  # int8: 200 becomes -56
        'a = Relu(x) s = Constant<value_floats = [1.0, 1.0, 2.0, 2.0]>() y = Resize<mode = "cubic">(a, , s)',
    ],
)
def test_it_is_not_proven(parse, body):
    assert not claimed(parse, body)


def test_clip_of_old_opsets_has_its_bounds_as_attributes(parse):
    assert claimed(parse, "y = Clip<min = 0.0, max = 6.0>(x)", opset=6)
    assert not claimed(parse, "y = Clip<max = 6.0>(x)", opset=6)


def test_convolutions_with_non_negative_weights_keep_the_sign(parse):
    text = """<ir_version: 9, opset_import: ["" : 20]>
    g (float[N,4,6,6] x, float[4,4,1,1] w, float[4] b) => (float[N,4,6,6] y) { a = Relu(x) y = Conv(a, w, b) }"""
    w, b = np.ones((4, 4, 1, 1), np.float32), np.zeros(4, np.float32)
    assert "y" in nonnegative_tensors(parse(text, w=w, b=b))
    assert "y" not in nonnegative_tensors(parse(text, w=-w, b=b))
    assert "y" not in nonnegative_tensors(parse(text, w=w, b=b - 1))


def test_unsigned_pictures_are_non_negative(parse):
    text = '<ir_version: 9, opset_import: ["" : 20]> g (uint8[N,4] x) => (float[N,4] y) { y = Cast<to = 1>(x) }'
    assert nonnegative_tensors(parse(text)) == {"x", "y"}

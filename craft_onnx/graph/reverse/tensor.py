"""Tensors of a graph under construction: arithmetic on them emits nodes, so that a rule reads as its equation."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from craft_onnx.errors import UnsupportedOperator
from craft_onnx.graph.inference import note_types
from craft_onnx.graph.names import layer_of
from craft_onnx.graph.nonnegative import nonnegative_tensors
from craft_onnx.graph.values import Builder, constant, dimensions

FORWARD_KEY, LAYER_KEY, RULE_KEY = "craft_onnx.forward", "craft_onnx.layer", "craft_onnx.rule"
Operand = "Tensor | float | np.ndarray | Sequence[int] | None"


class Emitter:
    """Appends nodes to a model's graph, with types and shapes, and notes what each comes from.

    Parameters
    ----------
    model : onnx_ir.Model
        With the shapes of its values inferred; it is changed.
    """

    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self._build = Builder(model.graph)
        self._constants: dict[tuple[Any, ...], ir.Value] = {}
        self._origin: dict[str, str] = {}

    @contextlib.contextmanager
    def deriving(self, node: ir.Node, rule: str) -> Iterator[None]:
        """What is emitted inside says in its metadata that it comes from this node of the forward pass by this rule."""
        before = self._origin
        self._origin = {
            FORWARD_KEY: f"{node.op_type} {node.name}",
            LAYER_KEY: layer_of(node.outputs[0]),
            RULE_KEY: rule,
        }
        try:
            yield
        finally:
            self._origin = before

    @functools.cached_property
    def nonnegative(self) -> set[str]:
        """Names of the values that are known to be non-negative, of those that were there when it was first asked."""
        return nonnegative_tensors(self.model)

    def tensor(self, value: ir.Value) -> Tensor:
        """A value of the graph to calculate with."""
        return Tensor(self, value)

    def constant(self, array: np.ndarray) -> ir.Value:
        """An initializer; equal ones are made once."""
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = self._build.constant("constant", array)
        return self._constants[key]

    def emit(
        self, op_type: str, inputs: Sequence[ir.Value | None], attributes: dict[str, Any], count: int = 1
    ) -> list[Tensor]:
        """Append a node and return its outputs."""
        outputs = [ir.Value(name=self._build.name(f"reverse/{op_type}")) for _ in range(count)]
        node = ir.node(
            op_type,
            inputs,
            attributes,
            outputs=outputs,
            name=self._build.name(f"reverse/{op_type}/node"),
            metadata_props=dict(self._origin),
        )
        self.model.graph.append(node)
        self._infer(node)
        return [Tensor(self, output) for output in outputs]

    def _infer(self, node: ir.Node) -> None:
        note_types(node, self.model.opset_imports[""], self.model.ir_version)
        for value in node.outputs:
            name_dimensions(value)


def name_dimensions(value: ir.Value) -> None:
    """Name the unknown dimensions of a value, so that two of the same name are known to be equal."""
    sizes = dimensions(value)
    if sizes is not None and None in sizes:
        named = [f"{value.name}.{axis}" if size is None else size for axis, size in enumerate(sizes)]
        value.shape = ir.Shape(named)


def _unknown(what: str, value: ir.Value) -> UnsupportedOperator:
    """The error where shape inference has not found what a derivative needs."""
    producer = value.producer()
    source = "an input" if producer is None else f"of {producer.op_type}, layer {layer_of(value)!r}"
    return UnsupportedOperator(
        f"The {what} of the tensor {value.name!r} ({source}) is not known, and the derivative there depends on it.",
        "It may follow from the size of the pictures: fix that with craft-onnx convert MODEL --input-shape 3,224,224; "
        "or cut the model behind that tensor.",
    )


class Tensor:
    """A value of a graph under construction.

    `+ - * /`, `-x`, `x > y` and `x < y` emit nodes; numbers become constants of the tensor's type.

    Attributes
    ----------
    emitter : Emitter
        Of the graph it belongs to.
    value : onnx_ir.Value
        What it stands for.
    """

    __array_ufunc__ = None  # an array leaves arithmetic with a tensor to the tensor

    def __init__(self, emitter: Emitter, value: ir.Value) -> None:
        self.emitter = emitter
        self.value = value

    def __repr__(self) -> str:
        return f"Tensor({self.value.name!r}, {self.dtype}, {dimensions(self.value)})"

    @property
    def shape(self) -> tuple[int | str, ...]:
        """Sizes, or names of those that are open; equal names stand for equal sizes."""
        sizes = dimensions(self.value)
        if sizes is None:
            raise _unknown("number of axes", self.value)
        return sizes  # type: ignore[return-value]  # `name_dimensions` has named the unknown ones

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def dtype(self) -> ir.DataType:
        """Type of the elements."""
        if self.value.dtype is None:
            raise _unknown("type", self.value)
        return self.value.dtype

    @property
    def array(self) -> np.ndarray | None:
        """The numbers of a constant, None for anything that is computed."""
        return constant(self.value)

    @property
    def nonnegative(self) -> bool:
        """Whether it is known to have no negative numbers, whatever the picture."""
        return self.value.name in self.emitter.nonnegative

    def shaped_like(self, other: Tensor) -> Tensor:
        """The tensor itself, told to have the shape of another: for what inference cannot know."""
        self.value.shape = other.value.shape
        return self

    def __add__(self, other: Any) -> Tensor:
        return op.Add(self, other)

    def __radd__(self, other: Any) -> Tensor:
        return op.Add(other, self)

    def __sub__(self, other: Any) -> Tensor:
        return op.Sub(self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return op.Sub(other, self)

    def __mul__(self, other: Any) -> Tensor:
        return op.Mul(self, other)

    def __rmul__(self, other: Any) -> Tensor:
        return op.Mul(other, self)

    def __truediv__(self, other: Any) -> Tensor:
        return op.Div(self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return op.Div(other, self)

    def __neg__(self) -> Tensor:
        return op.Neg(self)

    def __gt__(self, other: Any) -> Tensor:
        return op.Greater(self, other)

    def __lt__(self, other: Any) -> Tensor:
        return op.Less(self, other)

    def __ge__(self, other: Any) -> Tensor:
        return op.GreaterOrEqual(self, other)

    def __le__(self, other: Any) -> Tensor:
        return op.LessOrEqual(self, other)


class _Operators:
    """`op.Conv(x, w, strides=[2, 2])` emits a Conv and returns its only output.

    Inputs are tensors, arrays (floating-point ones take the type of the first floating-point tensor), numbers (they
    take it too), sequences of integers, or None for an optional input left out.
    """

    def __getattr__(self, op_type: str) -> Callable[..., Tensor]:
        return functools.partial(_emit_one, op_type)


op = _Operators()


def emit(op_type: str, count: int, *inputs: Any, **attributes: Any) -> list[Tensor]:
    """Like `op`, for operators with several outputs: the first `count` of them."""
    tensors = [one for one in inputs if isinstance(one, Tensor)]
    emitter = tensors[0].emitter
    kind = next((one.dtype for one in tensors if one.dtype.is_floating_point()), tensors[0].dtype)
    values = [None if one is None else _value(one, emitter, kind) for one in inputs]
    return emitter.emit(op_type, values, attributes, count)


def _emit_one(op_type: str, *inputs: Any, **attributes: Any) -> Tensor:
    return emit(op_type, 1, *inputs, **attributes)[0]


def _value(operand: Any, emitter: Emitter, kind: ir.DataType) -> ir.Value:
    if isinstance(operand, Tensor):
        return operand.value
    is_number = isinstance(operand, (int, float))
    array = np.asarray(operand, kind.numpy() if is_number or np.asarray(operand).dtype.kind == "f" else None)
    return emitter.constant(array)

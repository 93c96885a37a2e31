"""The arithmetic of preprocessing as part of the graph."""

import numpy as np
import onnx_ir as ir

from craft_onnx.description import Preprocessing
from craft_onnx.errors import InputError
from craft_onnx.graph.load import image_input
from craft_onnx.graph.passes.keeping import pure
from craft_onnx.graph.values import Builder, dimensions

# Luma of ITU-R BT.601, as OpenCV converts RGB to gray.
_LUMA = (0.299, 0.587, 0.114)


def bake_preprocessing(model: ir.Model, rule: Preprocessing) -> ir.Model:
    """Put the arithmetic of preprocessing in front of a model, which takes raw pictures then.

    The new input is (N, H, W, 3) uint8 RGB. Cast, order of channels, (x * scale - mean) / std and layout follow; what
    they give is called as the input was. Resizing and cropping stay outside.

    Parameters
    ----------
    model : onnx_ir.Model
        Is not changed.
    rule : Preprocessing
        What the model was trained with.

    Raises
    ------
    InputError
        If it is baked in already, or its size, layout or channels are not those of the model's input.
    """
    image = image_input(model)
    if rule.baked or image.dtype == ir.DataType.UINT8:
        raise InputError(
            f"The preprocessing is part of the model already: its input {image.name!r} takes raw pictures.",
            "Leave out baking.",
        )
    _check_fit(image, rule)
    return _baked(model, rule)


def _check_fit(image: ir.Value, rule: Preprocessing) -> None:
    channels, (height, width) = len(rule.mean), rule.size
    expected = (channels, height, width) if rule.layout == "NCHW" else (height, width, channels)
    sizes = dimensions(image) or ()
    fits = all(not isinstance(a, int) or a == b for a, b in zip(sizes[1:], expected, strict=False))
    if len(sizes) != 4 or not fits:
        raise InputError(
            f"The preprocessing makes pictures of {expected}, the model's input {image.name!r} is {sizes}.",
            "Give its size, layout and channel order as the model has them.",
        )


def _baked(model: ir.Model, rule: Preprocessing) -> ir.Model:
    return pure(lambda copy: _put_in_front(copy, rule))(model)


def _put_in_front(model: ir.Model, rule: Preprocessing) -> ir.Model:
    graph, old = model.graph, image_input(model)
    build = Builder(graph, before=next(iter(graph)))
    pictures = ir.Value(name=build.name("pictures"), type=ir.TensorType(ir.DataType.UINT8))
    pictures.shape = ir.Shape([(dimensions(old) or ("batch",))[0], *rule.size, 3])
    graph.inputs[list(graph.inputs).index(old)] = pictures
    x = _ordered(build, build.op("Cast", [pictures], {"to": int(ir.DataType.FLOAT)}, "pixels"), rule)
    x = _scaled(build, x, rule)
    if rule.layout == "NCHW":
        x = build.op("Transpose", [x], {"perm": [0, 3, 1, 2]}, "preprocessed")
    if old.dtype not in (None, ir.DataType.FLOAT):
        x = build.op("Cast", [x], {"to": int(old.dtype)}, "rounded")
    _replace_input(old, x)
    return model


def _ordered(build: Builder, x: ir.Value, rule: Preprocessing) -> ir.Value:
    if rule.channel_order == "gray":
        luma = build.constant("luma", np.array(_LUMA, np.float32)[:, None])
        return build.op("MatMul", [x, luma], wish="gray")
    if rule.channel_order == "bgr":
        reverse = build.constant("bgr", np.array([2, 1, 0], np.int64))
        return build.op("Gather", [x, reverse], {"axis": 3}, "reordered")
    return x


def _scaled(build: Builder, x: ir.Value, rule: Preprocessing) -> ir.Value:
    """Each operation that does something, in the order of the definition, so that rounding is the same."""
    for op_type, name, numbers, neutral in (
        ("Mul", "scale", (rule.scale,), 1),
        ("Sub", "mean", rule.mean, 0),
        ("Div", "std", rule.std, 1),
    ):
        if any(number != neutral for number in numbers):
            x = build.op(op_type, [x, build.constant(name, np.array(numbers, np.float32))], wish=f"{name}_applied")
    return x


def _replace_input(old: ir.Value, new: ir.Value) -> None:
    """`new` takes the place and the name of what was the input."""
    old.replace_all_uses_with(new)
    new.name, old.name = old.name, None
    new.type, new.shape = old.type, old.shape

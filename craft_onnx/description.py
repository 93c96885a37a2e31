"""What is known of a model beside its graph: where it came from and how pictures become its input."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from craft_onnx.errors import InputError

METADATA_KEY = "craft_onnx"
T = TypeVar("T")

Layout = Literal["NCHW", "NHWC"]
ChannelOrder = Literal["rgb", "bgr", "gray"]

# (channel order, scale, mean, std), as keras.applications and torchvision define them.
PRESETS: dict[str, tuple[ChannelOrder, float, tuple[float, ...], tuple[float, ...]]] = {
    "torch": ("rgb", 1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "caffe": ("bgr", 1.0, (103.939, 116.779, 123.68), (1.0, 1.0, 1.0)),
    "tf": ("rgb", 1 / 127.5, (1.0, 1.0, 1.0), (1.0, 1.0, 1.0)),
    "none": ("rgb", 1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}


@dataclass(frozen=True)
class Preprocessing:
    """How an RGB picture of any size becomes the model's input: resize, centre crop, then (x * scale - mean) / std.

    Attributes
    ----------
    size : (int, int)
        Height and width of the model's input, pixels.
    layout : "NCHW" or "NHWC"
        Axes of the model's input; "NHWC" where baked.
    channel_order : "rgb", "bgr" or "gray"
        Order of the channels the model was trained with; `mean` and `std` are in this order.
    scale, mean, std : float, tuple of float, tuple of float
        Arithmetic per channel, on pixels 0..255.
    resize_to : int, optional
        Length of the shorter side before the centre crop to `size`; None resizes straight to `size`.
    interpolation : "area", "bilinear" or "bicubic"
        "area" averages when shrinking (antialias) and is bilinear when enlarging.
    baked : bool
        The arithmetic is part of the graph, which takes raw uint8 RGB, channels last.
    """

    size: tuple[int, int]
    layout: Layout = "NCHW"
    channel_order: ChannelOrder = "rgb"
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    resize_to: int | None = None
    interpolation: Literal["area", "bilinear", "bicubic"] = "area"
    baked: bool = False

    def __post_init__(self) -> None:
        channels = 1 if self.channel_order == "gray" else 3
        if not len(self.mean) == len(self.std) == channels:
            raise InputError(
                f"mean {self.mean} and std {self.std} do not have one value per channel of {self.channel_order!r}.",
                f"Give {channels} value(s) each.",
            )
        if min(self.std) <= 0 or min(self.size) < 1:
            raise InputError(f"std {self.std} or size {self.size} is not positive.", "Give positive numbers.")
        if self.baked and self.layout != "NHWC":
            raise InputError("A graph with its preprocessing baked in takes channels last.", "Set layout='NHWC'.")
        if self.resize_to is not None and self.resize_to < max(self.size):
            raise InputError(
                f"The centre crop {self.size} is larger than the resized picture (shorter side {self.resize_to}).",
                f"Resize to at least {max(self.size)}.",
            )

    @classmethod
    def preset(cls, name: str, size: tuple[int, int], layout: Layout = "NCHW", **changes: Any) -> "Preprocessing":
        """One of the usual rules: "torch", "caffe", "tf" or "none"."""
        if name not in PRESETS:
            raise InputError(f"There is no preprocessing preset {name!r}.", f"Take one of {', '.join(PRESETS)}.")
        order, scale, mean, std = PRESETS[name]
        fields = {"channel_order": order, "scale": scale, "mean": mean, "std": std} | changes
        return cls(size=size, layout=layout, **fields)

    @classmethod
    def for_input(
        cls, shape: Sequence[int | str | None], preset: str = "none", size: Sequence[int] | None = None, **changes: Any
    ) -> "Preprocessing":
        """The rule for a model whose image input has this shape, from a preset and changes to it.

        Parameters
        ----------
        shape : sequence of int, str or None
            Of the input with its batch axis, (N, C, H, W) or (N, H, W, C); open axes are names or None.
        preset : str
            "torch", "caffe", "tf" or "none".
        size : (int, int), optional
            Height and width, needed where the shape leaves them open.
        **changes
            Other attributes; `mean` and `std` may be one number for all channels.

        Raises
        ------
        InputError
            If the shape is no picture's, if the size is open or contradicts the shape, or if a value is impossible.
        """
        layout, channels, spatial = _axes(shape)
        changes = {"channel_order": "gray", "mean": (0.0,), "std": (1.0,)} | changes if channels == 1 else changes
        for name in changes.keys() & {"mean", "std"}:
            values = tuple(float(value) for value in changes[name])
            changes[name] = values * channels if len(values) == 1 else values
        return cls.preset(preset, _size(spatial, size), layout, **changes)

    def to_json(self) -> dict[str, Any]:
        """A dictionary of JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "Preprocessing":
        """The inverse of `to_json`; InputError if a field is unknown."""
        tuples = {key: tuple(fields[key]) for key in ("size", "mean", "std") if key in fields}
        return _from_fields(cls, fields | tuples)


@dataclass(frozen=True)
class Description:
    """What a converted model file says of itself, as JSON under `craft_onnx` in its metadata.

    Attributes
    ----------
    framework : str
        "keras", "tensorflow", "tflite", "torch" or "onnx".
    source_sha256 : str, optional
        Of the source file, where the source is one.
    preprocessing : Preprocessing, optional
        None where nothing is known: pictures cannot be fed then, arrays can.
    softmax_removed : bool
        A final Softmax was cut off, the output is logits.
    """

    framework: str = "onnx"
    source_sha256: str | None = None
    preprocessing: Preprocessing | None = None
    softmax_removed: bool = False

    def dumps(self) -> str:
        """JSON text."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def loads(cls, text: str) -> "Description":
        """The inverse of `dumps`; InputError on anything else."""
        try:
            fields = json.loads(text)
            rule = fields.get("preprocessing")
            return _from_fields(cls, fields | {"preprocessing": rule and Preprocessing.from_json(rule)})
        except (ValueError, AttributeError, TypeError) as error:
            raise InputError(
                f"The model's {METADATA_KEY} metadata cannot be read ({error}).", "Convert it again."
            ) from error


def _axes(shape: Sequence[int | str | None]) -> tuple[Layout, int, tuple[int | str | None, ...]]:
    """Layout, number of channels, and (height, width) of an image input."""
    if len(shape) == 4 and shape[1] in (1, 3):
        return "NCHW", int(shape[1]), tuple(shape[2:])
    if len(shape) == 4 and shape[3] in (1, 3):
        return "NHWC", int(shape[3]), tuple(shape[1:3])
    raise InputError(
        f"The model's input {list(shape)} is not that of RGB or grey pictures, (N, C, H, W) or (N, H, W, C).",
        "Give arrays instead of pictures.",
    )


def _size(spatial: Sequence[int | str | None], size: Sequence[int] | None) -> tuple[int, int]:
    known = all(isinstance(length, int) for length in spatial)
    if size is None and not known:
        raise InputError("The model leaves the size of its input open.", "Give it, for example --size 224,224.")
    chosen = tuple(size or spatial)
    if len(chosen) != 2 or (known and chosen != tuple(spatial)):
        raise InputError(f"Size {list(chosen)} is not the model's input {list(spatial)}.", "Give height and width.")
    return int(chosen[0]), int(chosen[1])  # type: ignore[arg-type]  # `known` or given: both are ints


def _from_fields(cls: type[T], fields: dict[str, Any]) -> T:
    unknown = fields.keys() - {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    if unknown:
        raise InputError(f"Unknown fields {sorted(unknown)} in a {cls.__name__}.", "Was it written by a newer version?")
    return cls(**fields)

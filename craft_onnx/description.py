"""What is known of a model beside its graph: where it came from and how pictures become its input."""

import dataclasses
import json
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
        Axes of the model's input.
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


def _from_fields(cls: type[T], fields: dict[str, Any]) -> T:
    unknown = fields.keys() - {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    if unknown:
        raise InputError(f"Unknown fields {sorted(unknown)} in a {cls.__name__}.", "Was it written by a newer version?")
    return cls(**fields)

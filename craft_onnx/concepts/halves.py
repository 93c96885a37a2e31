"""The two halves of a model, g and h, whatever they are given as: a bundle, a SplitModel, ONNX files or callables."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from craft_onnx.concepts.factorisation import AFTER_RELU
from craft_onnx.concepts.torch_modules import array_function
from craft_onnx.description import Layout, Preprocessing
from craft_onnx.errors import InputError
from craft_onnx.runtime.batches import BATCH_SIZE, as_array, is_array, run_array
from craft_onnx.runtime.lookahead import ahead

if TYPE_CHECKING:
    from craft_onnx.runtime.model import SplitModel

Floats = NDArray[np.floating]
MANY = 1 << 30  # rows in one run: as many as are handed over
LAYOUTS: dict[str, Layout] = {"NCHW": "NCHW", "NHWC": "NHWC", "channels_first": "NCHW", "channels_last": "NHWC"}


@dataclass(frozen=True)
class Halves:
    """g and h as functions of arrays, and what is known of them.

    Attributes
    ----------
    g : callable
        Images (n, ...) in the model's layout to activations (n, ...) in the model's layout.
    h : callable, optional
        Activations to logits (n, classes).
    layout : "NCHW" or "NHWC", optional
        Axes of the images; None where only the images can tell.
    channel_axis : int, optional
        Of the activations; None where it follows from `layout`.
    size : (int, int), optional
        Height and width of the model's input; None where any size goes.
    provider : str
        Where g runs; "callable" where that is its own business.
    head : Path, optional
        The ONNX file of h, where there is one: W can be folded into it.
    model : SplitModel, optional
        Where the halves are those of a bundle.
    """

    g: Callable[[Floats], Any]
    h: Callable[[Floats], Any] | None
    layout: Layout | None = None
    channel_axis: int | None = None
    size: tuple[int, int] | None = None
    provider: str = "callable"
    head: Path | None = None
    model: "SplitModel | None" = None

    def batch(self, asked: int) -> int:
        """Images in one run: on a CPU 16 are as fast as more, in less memory."""
        return min(asked, BATCH_SIZE) if self.provider == "cpu" else asked

    @property
    def preprocessing(self) -> Preprocessing | None:
        """How pictures become images, where that is known."""
        return self.model.preprocessing if self.model else None

    @property
    def channels(self) -> int | None:
        """Channels of the activations, where they are known before anything has run."""
        return self.model.cut.shape[self.model.cut.channel_axis] if self.model else None

    def layout_of(self, images: Any) -> Layout:
        """Axes of the images; InputError where there are none, or nothing tells."""
        if not len(images):
            raise InputError("There are no images.", "Give at least one.")
        return self.layout or guess_layout(np.shape(images[0]))

    def activations(self, batches: Iterable[Floats], layout: Layout) -> Iterator[Floats]:
        """Activations of batches of images, channels last."""
        for batch in batches:
            yield self.channels_last(as_array(self.g(batch)), layout)

    def logits(self, activations: Floats, layout: Layout) -> Floats:
        """Logits (n, classes) of activations that are channels last; InputError without h."""
        if self.h is None:
            raise InputError(
                "There is no second half of the model, importances need one.",
                "Give latent_to_logit_model, or a bundle in place of both.",
            )
        moved = np.moveaxis(activations, -1, self.axis_of_channels(layout, activations.ndim))
        return as_array(self.h(np.ascontiguousarray(moved)))

    def channels_last(self, activations: Floats, layout: Layout) -> Floats:
        """Activations (n, p), (n, T, p) or of feature maps, channels moved to the last axis; InputError for others."""
        check_axes(activations)
        return np.moveaxis(activations, self.axis_of_channels(layout, activations.ndim), -1)

    def check_class(self, class_id: int) -> None:
        """InputError when the model is known not to have the class."""
        if self.model and not 0 <= class_id < self.model.classes:
            raise InputError(f"There is no class {class_id}.", f"Classes go from 0 to {self.model.classes - 1}.")

    def nonnegative_cuts(self) -> str:
        """What to do about negative activations: cut at one of the model's last tensors that are never negative."""
        names = [cut.name for cut in self.model.manifest.cuts.values() if cut.nonnegative] if self.model else []
        if self.model and not names:
            names = _last_nonnegative(self.model.bundle.path("model"))
        return f"Cut at one of {', '.join(names)}, which are never negative." if names else AFTER_RELU

    def axis_of_channels(self, layout: Layout, ndim: int) -> int:
        """Of the activations, the batch being axis 0; the last one but for feature maps of NCHW."""
        return self.channel_axis or (1 if layout == "NCHW" and ndim == 4 else ndim - 1)


def find_halves(model: Any, h: Any = None, device: Any = None, data_format: str | None = None) -> Halves:
    """Make g and h of what the user gave.

    Parameters
    ----------
    model : SplitModel, Bundle, path or callable
        A model with both halves, the folder of a bundle, an ONNX file of g, or g itself: a function of arrays or a
        PyTorch module.
    h : path or callable, optional
        An ONNX file of h, or h itself, beside such a g.
    device : str, optional
        Providers of what is loaded here, "cpu" by default; `torch.device` objects and "cuda:0" are understood.
    data_format : str, optional
        "NCHW", "NHWC", "channels_first" or "channels_last": axes of images and feature maps, where `model` does not
        say.

    Raises
    ------
    InputError
        If it is none of these.
    """
    if data_format is not None and data_format not in LAYOUTS:
        raise InputError(f"There is no data format {data_format!r}.", f"Take one of {', '.join(LAYOUTS)}.")
    model = _loaded(model, device)
    if hasattr(model, "bundle"):
        if h is not None:
            raise InputError(f"A bundle holds both halves of a model, but h = {h!r} was given.", "Leave it out.")
        return _of_split_model(model)
    if not callable(model) and not isinstance(model, Path):
        raise InputError(f"A {type(model).__name__} is no model.", "Give a bundle, an ONNX file or a callable.")
    g, provider = _runnable(model, device)
    second = None if h is None else _runnable(_loaded(h, device), device)[0]
    head = Path(h) if isinstance(h, str | Path) else None
    return Halves(g, second, LAYOUTS.get(data_format or ""), None, None, provider, head)


def guess_layout(shape: tuple[int, ...]) -> Layout:
    """Axes of an image (3 lengths): channels are the axis of length 1, 3 or 4; InputError if both ends are, or none."""
    if len(shape) != 3:
        raise InputError(f"An image has shape {shape}, three axes are needed.", "Give (N, C, H, W) or (N, H, W, C).")
    first, last = shape[0] in (1, 3, 4), shape[-1] in (1, 3, 4)
    if first == last:
        raise InputError(
            f"Images of shape {shape} do not say which axis the channels are.", "Give data_format='NCHW' or 'NHWC'."
        )
    return "NCHW" if first else "NHWC"


def sides_of(image: Any, layout: Layout) -> tuple[int, int]:
    """Height and width of an image, pixels."""
    shape = np.shape(image)
    return shape[1:3] if layout == "NCHW" else shape[:2]


def as_images(inputs: Any) -> Any:
    """An array (N, ...) of an array, a tensor or a single image; another sequence of images as it is."""
    if is_array(inputs):
        images = as_array(inputs)
        return images[None] if images.ndim == 3 else images
    if isinstance(inputs, str | Path | Mapping) or not hasattr(inputs, "__getitem__"):
        raise InputError(
            f"{inputs!r} is no array of images.", "Give preprocessed arrays: model.preprocess(open_pictures(path))."
        )
    return inputs


def batches_of(images: Any, batch_size: int, threads: int = 2) -> Iterator[Floats]:
    """Images in batches; those of a lazy sequence are made in threads a little ahead."""
    if isinstance(images, np.ndarray):
        yield from (images[start : start + batch_size] for start in range(0, len(images), batch_size))
        return
    batch: list[Floats] = []
    for image in ahead(lambda i: as_array(images[i]), range(len(images)), threads, 2 * batch_size):
        batch.append(image)
        if len(batch) == batch_size:
            yield np.stack(batch)
            batch = []
    if batch:
        yield np.stack(batch)


def check_axes(activations: Floats) -> None:
    """Raise InputError for activations that are neither rows (n, p), tokens (n, T, p) nor feature maps (n, ., ., .)."""
    if activations.ndim not in (2, 3, 4):
        raise InputError(
            f"Activations of shape {activations.shape} are no rows, tokens or feature maps.", "Cut the model elsewhere."
        )


def _last_nonnegative(path: Path) -> list[str]:
    """Up to five layers of a model whose outputs are provably not negative, the last ones."""
    from craft_onnx.graph.cuts import find_cuts
    from craft_onnx.graph.load import load

    return list(dict.fromkeys(cut.layer for cut in find_cuts(load(path)) if cut.nonnegative))[-5:]


def _loaded(model: Any, device: Any) -> Any:
    """A SplitModel of a bundle or its folder, a Path of another path, and anything else as it is."""
    if isinstance(model, str | Path):
        model = Path(model)
    is_bundle = model.is_dir() if isinstance(model, Path) else hasattr(model, "manifest") and hasattr(model, "commit")
    if is_bundle:
        from craft_onnx.runtime.model import load

        return load(model if isinstance(model, Path) else model.folder, providers=providers_of(device))
    return model


def _of_split_model(model: "SplitModel") -> Halves:
    shape = model.input_shape
    sides = shape[2:4] if model.layout == "NCHW" else shape[1:3]
    size = None if None in sides else (int(sides[0] or 0), int(sides[1] or 0))
    return Halves(
        g=model.g if model.provider == "cpu" else partial(model.g, batch_size=MANY),
        h=model.h if model.provider == "cpu" else partial(model.h, batch_size=MANY),
        layout=model.layout,
        channel_axis=model.cut.channel_axis,
        size=size,
        provider=model.provider,
        head=model.bundle.path("h", model.cut.name),
        model=model,
    )


def _runnable(model: Any, device: Any) -> tuple[Callable[[Floats], Any], str]:
    if callable(model):
        return array_function(model, device), "callable"
    from craft_onnx.runtime.sessions import Session

    session = Session(model, providers_of(device))
    return lambda x: run_array(session, x), session.provider


def providers_of(device: Any) -> str:
    """Providers for a device as PyTorch names it: None is "cpu", `torch.device("cuda", 0)` is "cuda:0"."""
    return "cpu" if device is None else str(device)

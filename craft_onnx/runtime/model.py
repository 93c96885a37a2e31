"""A model cut in two, run from its bundle."""

import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from craft_onnx.description import Layout, Preprocessing
from craft_onnx.errors import InputError
from craft_onnx.runtime.batches import BATCH_SIZE, run_array
from craft_onnx.runtime.bundle import Bundle
from craft_onnx.runtime.manifest import Manifest
from craft_onnx.runtime.sessions import Providers, Session, require_providers

Array = NDArray[Any]


def load(
    folder: str | Path, providers: Providers = "cpu", threads: int | None = None, cut: str | None = None
) -> "SplitModel":
    """Open a bundle and check its hashes.

    Parameters
    ----------
    folder : path
        The bundle.
    providers : str or sequence of str
        Where to run, in order of precedence: "cpu", "cuda", "cuda,cpu".
    threads : int, optional
        Threads inside an operator on the CPU; all cores by default.
    cut : str, optional
        Name of the cut; the bundle's first by default.

    Raises
    ------
    InputError
        If the folder is no bundle, a file is missing, or it has no such cut.
    CheckFailed
        If a file does not have its hash.
    ProviderUnavailable
        If a provider is not part of the installed onnxruntime.
    """
    asked = require_providers(providers)
    return SplitModel(Bundle.open(folder), asked, threads, cut)


class SplitModel:
    """A classifier f = h(g(x)), run by onnxruntime; each graph is loaded when it is first used.

    Parameters
    ----------
    bundle : Bundle
        Where its graphs are.
    providers, threads, cut
        As in `load`.

    Attributes
    ----------
    bundle : Bundle
        Where its graphs are.
    cut : CutSpec
        Where the model is cut: name, tensor, shape, channel axis, and whether it is provably non-negative.
    """

    def __init__(
        self, bundle: Bundle, providers: Providers = "cpu", threads: int | None = None, cut: str | None = None
    ):
        self.bundle = bundle
        self.cut = bundle.manifest.cut(cut)
        self._providers = providers
        self._threads = threads
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()

    @property
    def manifest(self) -> Manifest:
        """What the bundle holds."""
        return self.bundle.manifest

    @property
    def cuts(self) -> tuple[str, ...]:
        """Names of the bundle's cuts."""
        return tuple(self.manifest.cuts)

    @property
    def provider(self) -> str:
        """The provider that runs the graphs, verified: "cpu", "cuda", ..."""
        return self.session("g").provider

    @property
    def input_shape(self) -> tuple[int | None, ...]:
        """Shape of the input, None where any length goes."""
        return self.manifest.input.shape

    @property
    def layout(self) -> Layout | None:
        """Axes of the input: "NCHW" or "NHWC"."""
        return self.manifest.input.layout

    @property
    def preprocessing(self) -> Preprocessing | None:
        """How pictures become input, where it is known."""
        return self.manifest.input.preprocessing

    @property
    def classes(self) -> int:
        """How many classes the model tells apart."""
        return self.manifest.output.classes

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Names of the classes, where they are known."""
        return self.manifest.output.names

    def session(self, role: str) -> Session:
        """The session of a graph at this cut ("g", "h", ...), or of the whole "model"; loaded once.

        Raises
        ------
        InputError
            If the bundle has no such graph, or it cannot be loaded.
        ProviderUnavailable
            If a provider does not start on this machine.
        """
        with self._lock:
            if role not in self._sessions:
                path = self.bundle.path(role, None if role == "model" else self.cut.name)
                self._sessions[role] = Session(path, self._providers, self._threads)
            return self._sessions[role]

    def predict(self, x: Array | Iterable[Array], batch_size: int = BATCH_SIZE) -> Array:
        """Logits of preprocessed pictures.

        Parameters
        ----------
        x : (n, ...) array or tensor, or iterable of such
            Preprocessed pictures in the model's layout (`preprocess` makes them), in chunks of any length.
        batch_size : int
            Rows in one run, at most.

        Returns
        -------
        (n, classes) array
            Logits.

        Raises
        ------
        InputError
            If shape or dtype do not fit.
        """
        return run_array(self.session("model"), x, batch_size)

    def g(self, x: Array | Iterable[Array], batch_size: int = BATCH_SIZE) -> Array:
        """Activations at the cut of preprocessed pictures: (n, ...) array, of the cut's shape; `x` as in `predict`."""
        return run_array(self.session("g"), x, batch_size)

    def h(self, a: Array | Iterable[Array], batch_size: int = BATCH_SIZE) -> Array:
        """Logits of activations at the cut, (n, classes) array; `a` in the cut's shape, otherwise as in `predict`."""
        return run_array(self.session("h"), a, batch_size)

    def preprocess(self, pictures: "NDArray[np.uint8] | Iterable[NDArray[np.uint8]]") -> Array:
        """Make the model's input from uint8 RGB pictures.

        Parameters
        ----------
        pictures : iterable of (H, W, 3) uint8 arrays, or one of these
            Of any size, in pixels.

        Returns
        -------
        (n, ...) array
            float32 in the model's layout; uint8 where the arithmetic is part of the graph.

        Raises
        ------
        InputError
            If the bundle does not say how, or a picture is none.
        """
        from craft_onnx.runtime.preprocess import preprocess

        if isinstance(pictures, np.ndarray) and pictures.ndim == 3:
            pictures = [pictures]
        return preprocess(pictures, self._rule())

    def to_picture(self, maps: Array, sizes: Sequence[tuple[int, int]]) -> list[Array]:
        """Bring maps back to the pictures' own pixels.

        Parameters
        ----------
        maps : (n, H', W') or (n, H', W', k) array
            On the model's input, at any resolution.
        sizes : sequence of (int, int)
            Height and width of each picture, in pixels.

        Returns
        -------
        list of (H, W) or (H, W, k) arrays
            One per picture.

        Raises
        ------
        InputError
            If the bundle does not say how pictures become input, or the numbers of maps and sizes differ.
        """
        from craft_onnx.runtime.preprocess import to_picture

        if len(maps) != len(sizes):
            raise InputError(f"{len(maps)} maps and {len(sizes)} sizes were given.", "Give one size a map.")
        rule = self._rule()
        return [to_picture(one, rule, size) for one, size in zip(maps, sizes, strict=True)]

    def _rule(self) -> Preprocessing:
        if self.preprocessing is None:
            raise InputError(
                f"The bundle {self.bundle.folder} does not say how pictures become the model's input.",
                "Convert the model with a preprocessing preset, or give it preprocessed arrays.",
            )
        return self.preprocessing

"""A model cut in two, run from its bundle."""

import threading
import weakref
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from craft_onnx.description import Layout, Preprocessing
from craft_onnx.errors import InputError
from craft_onnx.extras import require
from craft_onnx.runtime.batches import BATCH_SIZE, run_array
from craft_onnx.runtime.bundle import Bundle
from craft_onnx.runtime.manifest import Manifest
from craft_onnx.runtime.pullback import OF, Chain, Pair, Pullback
from craft_onnx.runtime.sessions import Providers, Session, require_providers

if TYPE_CHECKING:
    import onnx_ir as ir

Array = NDArray[Any]
GRADIENT_RULES = "gradient"


def load(
    path: str | Path, providers: Providers = "cpu", threads: int | None = None, cut: str | None = None
) -> "SplitModel":
    """Open a bundle and check its hashes, or cut an ONNX file into a temporary one.

    Parameters
    ----------
    path : path
        The folder of a bundle; or an ONNX file, whose bundle is proven as any other, lies in a temporary folder and
        goes with the model (this needs the extra `build`).
    providers : str or sequence of str
        Where to run, in order of precedence: "cpu", "cuda", "cuda,cpu".
    threads : int, optional
        Threads inside an operator on the CPU; all cores by default.
    cut : str, optional
        Name of the cut; the bundle's first by default. Of an ONNX file any layer, tensor or index that is a cut; by
        default the recommended one, or the last feature map, or the last cut.

    Raises
    ------
    InputError
        If the folder is no bundle, a file is missing, it has no such cut, or the model cannot be cut.
    CheckFailed
        If a file does not have its hash, or a proof fails.
    ProviderUnavailable
        If a provider is not part of the installed onnxruntime.
    """
    asked = require_providers(providers)
    if not Path(path).is_file():
        return SplitModel(Bundle.open(path), asked, threads, cut)
    return _of_file(Path(path), None if cut is None else [cut], asked, threads)


def load_at(
    path: str | Path, cuts: Sequence[str] | None = None, providers: Providers = "cpu", threads: int | None = None
) -> "list[SplitModel]":
    """Open a bundle, or cut an ONNX file, at several places: the model at each of them.

    Parameters
    ----------
    path : path
        As in `load`.
    cuts : sequence of str, optional
        Names of cuts, as in `load`; all of a bundle by default.
    providers, threads
        As in `load`.

    Raises
    ------
    InputError, CheckFailed, ProviderUnavailable
        As in `load`.
    """
    if not Path(path).is_file():
        model = load(path, providers, threads)
        return [model.at(cut) for cut in (model.cuts if cuts is None else cuts)]
    model = _of_file(Path(path), cuts, require_providers(providers), threads)
    return [model.at(cut) for cut in model.cuts]


def _of_file(path: Path, cuts: Sequence[str] | None, providers: Providers, threads: int | None) -> "SplitModel":
    """An ONNX file as a bundle that goes with the model."""
    from craft_onnx.runtime.temporary import temporary_bundle

    bundle, remove = temporary_bundle(path, cuts)
    model = SplitModel(bundle, providers, threads)
    weakref.finalize(model, remove)
    return model


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
        self._chains: dict[tuple[str, ...], Chain] = {}
        self._lock = threading.RLock()
        self._kept: SplitModel | None = None

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

    def at(self, cut: str) -> "SplitModel":
        """The same model at another cut of its bundle, run where this one is; InputError if it has no such cut."""
        other = SplitModel(self.bundle, self._providers, self._threads, cut)
        other._kept = self  # with which a temporary bundle goes
        return other

    def open(self, path: Path) -> Session:
        """A session of another graph, run where this model is."""
        return Session(path, self._providers, self._threads)

    def session_of(self, graph: "ir.Model") -> Session:
        """A session of a graph in memory, run where this model is; this needs the extra `build`."""
        from craft_onnx.runtime.proof import session_of

        return session_of(graph, self._threads, self._providers)

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

    def vjp(self, x: Array, of: str = "logits", rules: str = "gradient") -> tuple[Array, Pullback]:
        """The model's value, and the vector-Jacobian products there: one forward pass for any number of cotangents.

        All rows go through in one batch, on a CPU in runs of a few, and what the way back needs of them stays in
        memory, on the device, as long as the pullback is kept: hand over few rows at a time.

        Parameters
        ----------
        x : (n, ...) array or tensor
            Preprocessed pictures.
        of : "logits" or "activations"
            What is differentiated with respect to x.
        rules : str
            "gradient", or another of `craft_onnx.graph.reverse.rule_sets.RULE_SETS` such as "guided_backprop", whose
            graphs are made in memory (this needs the extra `build`).

        Returns
        -------
        value : (n, classes) or (n, ...) array
            Logits, or activations at the cut.
        pullback : callable
            From a cotangent, an array like `value`, to its product with the Jacobian, an array like x.

        Raises
        ------
        InputError
            If shape or dtype do not fit, or the bundle has no such graphs.
        UnsupportedOperator
            If an operator has no rule.
        MemoryError
            If the rows do not fit in memory at once.
        """
        return self._chain(("g", "h") if _is_logits(of) else ("g",), rules).vjp(x)

    def vjp_h(self, a: Array, rules: str = "gradient") -> tuple[Array, Pullback]:
        """Logits of activations, and the pullback from their cotangent to that of `a`; otherwise as `vjp`."""
        return self._chain(("h",), rules).vjp(a)

    def gradient(
        self, x: Array, cotangent: Array, of: str = "logits", batch_size: int = BATCH_SIZE, rules: str = "gradient"
    ) -> Array:
        """Vector-Jacobian products of any number of rows, in batches.

        Parameters
        ----------
        x : (n, ...) array or tensor
            Preprocessed pictures.
        cotangent : (n, classes) or (n, ...) array or tensor
            For each of them: weights of the logits, or of the activations.
        of, rules : str
            As in `vjp`.
        batch_size : int
            Rows in one run, at most.

        Returns
        -------
        (n, ...) array
            For each row of x the derivative of sum(cotangent * value) with respect to it.

        Raises
        ------
        InputError, UnsupportedOperator
            As `vjp` does.
        """
        return run_array(self._chain(("g", "h") if _is_logits(of) else ("g",), rules), (x, cotangent), batch_size)

    def _chain(self, halves: tuple[str, ...], rules: str) -> Chain:
        with self._lock:
            key = (rules, *halves)
            if key not in self._chains:
                self._chains[key] = Chain(*(self._pair(half, rules) for half in halves))
            return self._chains[key]

    def _pair(self, half: str, rules: str) -> Pair:
        """The pair of a half: of the bundle, or of another rule set made in memory."""
        if rules == GRADIENT_RULES:
            self._require_gradient(half)
            return Pair(self.session(f"vjp_{half}_forward"), self.session(f"vjp_{half}_backward"))
        names = [f"{rules}_{half}_{part}" for part in ("forward", "backward")]
        if names[0] not in self._sessions:
            made = _made_pair(self.bundle.path(half, self.cut.name), rules, self._providers, self._threads)
            self._sessions.update(zip(names, made, strict=True))
        return Pair(*(self._sessions[name] for name in names))

    def _require_gradient(self, half: str) -> None:
        if all((graph.role, graph.cut) != (f"vjp_{half}_forward", self.cut.name) for graph in self.manifest.graphs):
            raise InputError(
                f"The bundle {self.bundle.folder} has no gradient graphs of {half} at {self.cut.name!r}.",
                "Make it again with craft-onnx split, which says what stands in the way, if anything does.",
            )

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


def _is_logits(of: str) -> bool:
    if of not in OF:
        raise InputError(f"There is no derivative of {of!r}.", f"Take one of {', '.join(OF)}.")
    return of == "logits"


def _made_pair(path: Path, rules: str, providers: Providers, threads: int | None) -> tuple[Session, Session]:
    """Sessions of the pair of a half, by a rule set that the bundle has no graphs of."""
    require("onnx_ir", "build")
    from craft_onnx.graph.load import load
    from craft_onnx.graph.reverse.pair import gradient_pair
    from craft_onnx.graph.reverse.rule_sets import rule_set
    from craft_onnx.runtime.proof import session_of

    chosen = rule_set(rules)
    if getattr(chosen, "first", None) is not None:
        raise InputError(
            f"{rules} has a rule for the first layer, and each half of the model has a first layer.",
            f"Take {rules.removesuffix('_flat')}, or the whole model's graph: craft-onnx gradient --rules {rules}.",
        )
    forward, backward = gradient_pair(load(path), rules=chosen)
    return session_of(forward, threads, providers), session_of(backward, threads, providers)

"""onnxruntime sessions that run where they were asked to, or say why not."""

import contextlib
import functools
import importlib
import importlib.metadata
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from craft_onnx.errors import InputError, MissingExtra, ProviderUnavailable
from craft_onnx.runtime.failures import load_error, out_of_memory, run_error, telling

Providers = str | Sequence[str]
Value = Any  # an onnxruntime.OrtValue

# Short name -> onnxruntime's.
PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "rocm": "ROCMExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "dml": "DmlExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "xnnpack": "XnnpackExecutionProvider",
    "qnn": "QNNExecutionProvider",
}
# TF32 keeps 10 bits of each factor: explanations of one model would differ by 1e-3 between CPU and GPU. HEURISTIC picks
# a convolution at once, where the default tries them all for every new batch shape.
PROVIDER_OPTIONS = {"cuda": {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}}
PRELOADED = ("cuda", "tensorrt")  # they need libraries that come as Python packages
# The packages that install the module `onnxruntime`; any two of them overwrite each other.
DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino", "onnxruntime-qnn")
QUIET = 4  # only what ends the process: every other error reaches us as an exception

NUMPY_TYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(bool)": "bool",
    **{f"tensor({sign}int{bits})": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}


@dataclass(frozen=True)
class TensorSpec:
    """Name, numpy dtype and shape of a graph's input or output.

    Attributes
    ----------
    name : str
        Name of the tensor.
    dtype : str
        Numpy's name of its type, such as "float32".
    shape : tuple of int or None
        Its lengths; None where any length goes.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        lengths = ", ".join("N" if length is None else str(length) for length in self.shape)
        return f"{self.dtype} ({lengths})"


def import_onnxruntime() -> ModuleType:
    """Import onnxruntime, with its telemetry off: nothing here uses a network.

    Raises
    ------
    MissingExtra
        If it is not installed, or if two packages installed it over each other.
    """
    installed = [name for name in DISTRIBUTIONS if _is_installed(name)]
    if len(installed) > 1:
        raise MissingExtra(
            f"{' and '.join(installed)} are both installed and overwrite each other.",
            "Uninstall both, then: pip install 'craft-onnx[cpu]' or, for an NVIDIA GPU, 'craft-onnx[gpu]'",
        )
    # Read at import: its Linux builds upload usage data from 1.31 on. A user's own setting stays.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        onnxruntime = importlib.import_module("onnxruntime")
    except ImportError as error:
        problem = f"{installed[0]} cannot be imported ({error})." if installed else "onnxruntime is not installed."
        raise MissingExtra(
            problem, "Install it with: pip install 'craft-onnx[cpu]' or, for an NVIDIA GPU, 'craft-onnx[gpu]'"
        ) from error
    onnxruntime.disable_telemetry_events()  # for those who imported it before us
    return onnxruntime


def _is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def parse_providers(providers: Providers) -> tuple[str, ...]:
    """Short names of execution providers, in order of precedence.

    Parameters
    ----------
    providers : str or sequence of str
        Names separated by commas, or several: "cpu", "cuda", "cuda:1" (a device), or onnxruntime's own such as
        "CUDAExecutionProvider".

    Raises
    ------
    InputError
        If a name is unknown or given twice, or there is none.
    """
    names = [name.strip() for name in (providers.split(",") if isinstance(providers, str) else providers)]
    short = tuple(_short_name(name) for name in names)
    kinds = [name.split(":")[0] for name in short]
    if not names or len(set(kinds)) < len(kinds):
        raise InputError(f"Providers {providers!r} name none, or one twice.", "Give each once, such as 'cuda,cpu'.")
    return short


def _short_name(name: str) -> str:
    kind, _, device = name.partition(":")
    own = {long.lower(): short for short, long in PROVIDERS.items()}
    kind = own.get(kind.lower(), kind.lower())
    if kind not in PROVIDERS or (":" in name and not device.isdecimal()):
        raise InputError(f"There is no execution provider {name!r}.", f"Take some of {', '.join(PROVIDERS)}.")
    return f"{kind}:{int(device)}" if device else kind


def available_providers() -> tuple[str, ...]:
    """Short names of the providers this onnxruntime was built with; whether their devices are there shows on use."""
    built = import_onnxruntime().get_available_providers()
    return tuple(short for short, long in PROVIDERS.items() if long in built)


def require_providers(providers: Providers) -> tuple[str, ...]:
    """Parse provider names and check that this onnxruntime was built with them.

    Raises
    ------
    InputError
        If a name is unknown.
    ProviderUnavailable
        If one is not built in.
    """
    asked = parse_providers(providers)
    missing = [name for name in asked if name.split(":")[0] not in available_providers()]
    if missing:
        raise _not_built_in(missing[0])
    return asked


def _not_built_in(provider: str) -> ProviderUnavailable:
    there = ", ".join(available_providers())
    nvidia = "Install 'craft-onnx[gpu]' in place of [cpu] on a machine with an NVIDIA GPU and driver"
    remedy = nvidia if provider.split(":")[0] in PRELOADED else "Install the onnxruntime built for it"
    return ProviderUnavailable(
        f"Provider {provider!r} was asked for and is not part of the installed onnxruntime (available: {there}).",
        f"{remedy}, or use --providers cpu.",
    )


def _not_started(provider: str, reason: str = "its device, driver or libraries are missing") -> ProviderUnavailable:
    nvidia = "Look for the GPU with nvidia-smi and install 'craft-onnx[gpu]', which brings the libraries"
    remedy = nvidia if provider.split(":")[0] in PRELOADED else "Look for its device and driver"
    return ProviderUnavailable(
        f"Provider {provider!r} was asked for and did not start on this machine: {reason}.",
        f"{remedy}, or use --providers cpu.",
    )


@functools.cache
def _preload_cuda() -> None:
    """Load the CUDA libraries that came as Python packages; what it prints belongs on stderr."""
    preload = getattr(import_onnxruntime(), "preload_dlls", None)
    if preload is not None:
        with contextlib.redirect_stdout(sys.stderr):
            preload()


def session_options(threads: int | None = None) -> Any:
    """onnxruntime.SessionOptions: all graph optimisations, `threads` inside an operator (None: all cores), quiet."""
    if threads is not None and threads < 1:
        raise InputError(f"{threads} threads were asked for.", "Give at least 1, or none for all cores.")
    runtime = import_onnxruntime()
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = threads or 0
    # Threads wait busily for the next operator, but not for the next run: they would take the cores from the session
    # whose turn it is, and g and h in turns took twice as long.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    # A plan of all tensors is one block that every run asks of the system and gives back: gradient graphs of ResNet50,
    # MobileNetV2 and ViT-B/16 take a third to a half less memory without it, and are no slower.
    options.enable_mem_pattern = False
    options.log_severity_level = QUIET
    return options


class Session:
    """A graph ready to run. `run` may be called from several threads at once.

    Parameters
    ----------
    model : path or bytes
        An ONNX file, or one serialised in memory (without external data).
    providers : str or sequence of str
        Where to run, in order of precedence: "cpu", "cuda", "cuda:1", "cuda,cpu".
    threads : int, optional
        Threads inside an operator on the CPU; all cores by default.

    Attributes
    ----------
    inputs, outputs : list of TensorSpec
        Of the graph.
    provider : str
        The first provider asked for, and verified to be the one that runs.
    largest_batch : int, optional
        The largest batch known to fit in memory, once a larger one did not.

    Raises
    ------
    InputError
        If the model is missing or cannot be loaded.
    UnsupportedOperator
        If onnxruntime lacks an operator of the model.
    ProviderUnavailable
        If a provider does not run here.
    """

    def __init__(self, model: str | Path | bytes, providers: Providers = "cpu", threads: int | None = None):
        asked = require_providers(providers)
        if any(name.split(":")[0] in PRELOADED for name in asked):
            _preload_cuda()
        self.name = "the model in memory" if isinstance(model, bytes) else str(model)
        self._session = _open(model, self.name, asked, session_options(threads))
        self.provider = _verified(self._session.get_providers(), asked)
        self.inputs = [_spec(value) for value in self._session.get_inputs()]
        self.outputs = [_spec(value) for value in self._session.get_outputs()]
        self.largest_batch: int | None = None
        kind, _, number = self.provider.partition(":")
        self._device = ("cuda", int(number or 0)) if kind == "cuda" else None

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Run the graph.

        Parameters
        ----------
        feeds : mapping of str to ndarray
            An array for every input, of its dtype and shape. On CUDA each is uploaded once.

        Returns
        -------
        list of ndarray
            One array per output.

        Raises
        ------
        MemoryError
            If the device has not enough memory.
        CraftError
            If onnxruntime fails otherwise, with its message.
        """
        if self._device is not None:
            return [value.numpy() for value in self.run_values(feeds).values()]
        try:
            return self._session.run(None, dict(feeds))
        except Exception as error:  # onnxruntime's exceptions have no common base
            raise run_error(error, self.name, _described(feeds)) from error

    def run_values(self, feeds: Mapping[str, NDArray[Any] | Value]) -> dict[str, Value]:
        """Run the graph on values that stay where they are: what one graph hands to the next is never copied.

        Parameters
        ----------
        feeds : mapping of str to ndarray or onnxruntime.OrtValue
            For every input an array, or an output of another graph with the same providers.

        Returns
        -------
        dict of str to onnxruntime.OrtValue
            Every output by its name, in the memory of the device that ran.

        Raises
        ------
        MemoryError, CraftError
            As `run` does.
        """
        device = self._device or ("cpu", 0)
        try:
            binding = self._session.io_binding()
            for name, value in feeds.items():
                binding.bind_ortvalue_input(name, _uploaded(value, *device))
            for spec in self.outputs:
                binding.bind_output(spec.name, *device)
            self._session.run_with_iobinding(binding)
            return dict(zip((spec.name for spec in self.outputs), binding.get_outputs(), strict=True))
        except Exception as error:  # onnxruntime's exceptions have no common base
            raise run_error(error, self.name, _described(feeds)) from error


# It makes the zeros of a Pad pads of the MaxPool behind it, which are less than any number: wrong where all others are
# negative, as in BiT.
WRONG = ["Pad_Fusion"]


def _open(model: str | Path | bytes, name: str, asked: tuple[str, ...], options: Any) -> Any:
    """An onnxruntime.InferenceSession that never falls back by itself."""
    if not isinstance(model, bytes):
        if not Path(model).is_file():
            raise InputError(f"{name} is not there or not a file.", "Give the path of an ONNX file.")
        model = os.fspath(model)
    providers = [(PROVIDERS[name.split(":")[0]], _provider_options(name)) for name in asked]
    try:
        session = import_onnxruntime().InferenceSession(
            model, options, providers=providers, enable_fallback=0, disabled_optimizers=WRONG
        )
    except Exception as error:  # onnxruntime's exceptions have no common base
        if asked == ("cpu",) or out_of_memory(error):
            raise load_error(error, model, name) from error
        _open(model, name, ("cpu",), options)  # if that fails too, it is the model's fault
        raise _not_started(asked[0], telling(error)) from error
    session.disable_fallback()
    return session


def _provider_options(provider: str) -> dict[str, str]:
    kind, _, device = provider.partition(":")
    return PROVIDER_OPTIONS.get(kind, {}) | ({"device_id": device} if device else {})


def _verified(running: Sequence[str], asked: tuple[str, ...]) -> str:
    """The first provider asked for; onnxruntime drops those that do not start, without an error."""
    for provider in asked:
        if PROVIDERS[provider.split(":")[0]] not in running:
            raise _not_started(provider)
    return asked[0]


def _spec(value: Any) -> TensorSpec:
    shape = tuple(length if isinstance(length, int) else None for length in value.shape)
    return TensorSpec(value.name, NUMPY_TYPES.get(value.type, value.type), shape)


def _uploaded(value: NDArray[Any] | Value, device: str, number: int) -> Value:
    """An array as a value of the device; on the CPU it is the same memory."""
    if isinstance(value, np.ndarray):
        return import_onnxruntime().OrtValue.ortvalue_from_numpy(np.ascontiguousarray(value), device, number)
    return value


def _described(feeds: Mapping[str, NDArray[Any] | Value]) -> str:
    """Such as "x float32 (1, 3, 8, 8)"."""
    values = {
        name: (one.dtype, one.shape) if isinstance(one, np.ndarray) else _type_and_shape(one)
        for name, one in feeds.items()
    }
    return ", ".join(f"{name} {dtype} {tuple(shape)}" for name, (dtype, shape) in values.items())


def _type_and_shape(value: Value) -> tuple[str, Sequence[int]]:
    return NUMPY_TYPES.get(value.data_type(), value.data_type()), value.shape()

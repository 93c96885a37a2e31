"""`craft-onnx check`: what is installed, and whether it computes what it should."""

import json
import platform
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files

import click
import numpy as np
from numpy.typing import NDArray

from craft_onnx.cli import options
from craft_onnx.cli.messages import result, say
from craft_onnx.errors import CheckFailed

PACKAGES = (
    "craft-onnx", "numpy", "opencv-python-headless", "click", "onnxruntime", "onnxruntime-gpu", "onnx", "onnx-ir",
    "onnxscript", "scikit-learn", "scipy", "matplotlib", "torch", "tensorflow", "tensorflow-cpu", "tf2onnx",
)  # fmt: skip  # one line reads as the list it is
# float32 through five convolutions on any instructions and provider: 1e-6 is usual, a wrong kernel is off by more.
TOLERANCE = 1e-4
STORED = "check.json"


@click.command()
@options.running
@options.verbosity
def command(providers: str, threads: int | None, **_: object) -> None:
    """Print versions and providers, and run the shipped model and the concept solver against stored numbers."""
    from craft_onnx.runtime.sessions import import_onnxruntime

    onnxruntime = import_onnxruntime()
    provider, errors = self_test(providers, threads)
    result(
        {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "packages": {name: found for name in PACKAGES if (found := _version(name))},
            "providers_available": onnxruntime.get_available_providers(),
            "provider": provider,
            "errors": errors,
        }
    )
    for name, error in errors.items():
        if not error <= TOLERANCE:
            raise CheckFailed(
                f"The self-test {name!r} is off by {error:.1e}, {TOLERANCE:.0e} is allowed.",
                "Reinstall numpy and onnxruntime, or try another provider.",
            )
    say(f"All checks passed on {provider}.")


def self_test(providers: str = "cpu", threads: int | None = None) -> tuple[str, dict[str, float]]:
    """The provider that ran, and by how much each result differs from the stored one, relative to the largest."""
    stored = json.loads(files("craft_onnx_models.birds").joinpath(STORED).read_text(encoding="utf-8"))
    provider, actual = numbers(providers, threads)
    return provider, {name: _error(stored[name], actual[name]) for name in actual}


def numbers(providers: str, threads: int | None = None) -> tuple[str, dict[str, NDArray[np.floating]]]:
    """The provider that ran, and what the self-test compares: logits of a picture, coefficients of four rows."""
    from craft_onnx.concepts.nnls import nnls
    from craft_onnx.runtime.sessions import Session
    from craft_onnx_models.birds import model_path

    session = Session(model_path("shortcut"), providers, threads)
    logits = session.run({session.inputs[0].name: pattern((1, 3, 96, 96))})[0]
    coefficients = nnls(np.abs(pattern((4, 12))), np.abs(pattern((3, 12), 0.7)))
    return session.provider, {"model": logits, "concepts": coefficients}


def pattern(shape: tuple[int, ...], step: float = 0.37) -> NDArray[np.float32]:
    """An input that is the same on every machine."""
    return np.sin(step * np.arange(np.prod(shape))).reshape(shape).astype(np.float32)


def _error(expected: list[float], actual: NDArray[np.floating]) -> float:
    wanted = np.asarray(expected)
    return float(np.abs(wanted - actual).max() / np.abs(wanted).max())


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None

"""Does the ONNX file compute what the framework does? On random input, at two batch sizes."""

import contextlib
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from craft_onnx.description import Preprocessing
from craft_onnx.errors import CheckFailed, CraftError, InputError
from craft_onnx.runtime.preprocess import preprocess
from craft_onnx.runtime.proof import disagreement, random_inputs
from craft_onnx.runtime.sessions import Session, TensorSpec
from craft_onnx_converters.exported import Evaluate, Exported
from craft_onnx_converters.loading import first_line

# One, because exporters take it for a constant; and another, because a batch that was not made dynamic shows there.
BATCHES = (1, 3)
# Of the largest output. Framework and onnxruntime add the same float32 products in another order: 1e-7 to 1e-5 was seen
# from ResNet50 to ConvNeXt. The least of real faults, a wrong epsilon or a padding shifted by a pixel, makes 1e-3.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Sample:
    """Random input: as the framework takes it, and as the ONNX graph does (raw pixels where preprocessing is baked)."""

    framework: NDArray[Any]
    onnx: NDArray[Any]


def random_sample(spec: TensorSpec, batch: int, rule: Preprocessing | None, baked: bool, seed: int) -> Sample:
    """Random input of a model.

    Parameters
    ----------
    spec : TensorSpec
        The source's input.
    batch : int
        Number of pictures.
    rule : Preprocessing, optional
        How pictures become the source's input: its values then have the scale that the model is made for.
    baked : bool
        The rule's arithmetic is part of the ONNX graph and not of the source.
    seed : int
        Of the random numbers.
    """
    if rule is None or not baked:
        x = random_inputs([spec], batch, seed, rule)[spec.name]
        return Sample(x, x)
    pixels = np.random.default_rng(seed).integers(0, 256, (batch, *rule.size, 3), dtype=np.uint8)
    return Sample(preprocess(pixels, dataclasses.replace(rule, resize_to=None)), pixels)


def agreement(session: Session, sample: Sample, exported: Exported, softmax_removed: bool = False) -> float:
    """The largest deviation from the framework's output, relative to the largest output.

    Parameters
    ----------
    session : Session
        Of the ONNX model.
    sample : Sample
        Input, (n, ...).
    exported : Exported
        With the framework's evaluation, which gives the (n, classes) or (n, classes, 1, 1) output.
    softmax_removed : bool
        The ONNX model gives logits, the framework their softmax.

    Raises
    ------
    CheckFailed
        If it is larger than the tolerance, or the shapes differ, or a value is not finite.
    InputError
        If the output is neither.
    """
    with _failing(f"{exported.framework} cannot evaluate the model on random input {sample.framework.shape}"):
        expected = _rows(np.concatenate(list(_in_batches(exported.evaluate, sample.framework, exported.batch))))
    _refuse_other_outputs(expected, exported.framework)
    actual = _rows(session.run({session.inputs[0].name: sample.onnx})[0])
    error = disagreement(expected, _softmax(actual) if softmax_removed else actual)
    if error <= TOLERANCE:
        return error
    raise CheckFailed(
        f"The converted model {_difference(expected, actual, error)} at batch {len(expected)}, "
        f"and rounding explains {TOLERANCE:.0e} at most.",
        f"The conversion from {exported.framework} went wrong; nothing is written.",
    )


@contextlib.contextmanager
def _failing(what: str) -> Iterator[None]:
    """An exception of a framework as a sentence."""
    try:
        yield
    except CraftError:
        raise
    except Exception as error:
        problem = f"{what} ({type(error).__name__}: {first_line(error)})."
        raise InputError(problem, "Does its input shape fit, and does it take any number of pictures?") from error


def _difference(expected: NDArray[Any], actual: NDArray[Any], error: float) -> str:
    if expected.shape != actual.shape:
        return f"gives shape {actual.shape} where the framework gives {expected.shape}"
    if not np.isfinite(actual).all():
        return f"gives {np.count_nonzero(~np.isfinite(actual))} values that are not finite"
    return f"differs from the framework by {error:.1e} of the largest output"


def _refuse_other_outputs(expected: NDArray[Any], framework: str) -> None:
    if expected.ndim != 2:
        raise InputError(
            f"The model's output has shape {expected.shape}, a classifier's is (pictures, classes).",
            "Flatten it in the model.",
        )
    if not np.isfinite(expected).all():
        raise CheckFailed(
            f"{np.count_nonzero(~np.isfinite(expected))} outputs of {framework} itself on random input are not finite.",
            "Are the model's weights whole, and is its preprocessing given as it was trained?",
        )


def _in_batches(evaluate: Evaluate, x: NDArray[Any], batch: int | None) -> Iterator[NDArray[Any]]:
    """The framework's output, part by part of the only size it takes; the last part is filled up with zeros."""
    size = batch or len(x)
    for start in range(0, len(x), size):
        part = x[start : start + size]
        filled = np.concatenate([part, np.zeros((size - len(part), *x.shape[1:]), x.dtype)])
        yield evaluate(filled)[: len(part)]


def _rows(output: NDArray[Any]) -> NDArray[Any]:
    """The output (n, classes, 1, 1) of a fully convolutional head as (n, classes); any other as it is."""
    single = output.ndim > 2 and output.shape[2:] == (1,) * (output.ndim - 2)
    return output.reshape(output.shape[:2]) if single else output


def _softmax(logits: NDArray[Any]) -> NDArray[Any]:
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)

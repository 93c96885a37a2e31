"""Numerical proofs: a rewritten graph must compute what the graph before it did."""

import tempfile
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from craft_onnx.description import Preprocessing
from craft_onnx.errors import CheckFailed, CraftError, CraftWarning
from craft_onnx.runtime.batches import run_array
from craft_onnx.runtime.sessions import Providers, Session, TensorSpec

if TYPE_CHECKING:
    import onnx_ir as ir

Array = NDArray[Any]

# Rewriting reassociates float32 sums: 2e-7 to 7e-7 of the largest output was seen on ResNet50, Inception v2 and
# ShuffleNet, and deeper nets may amplify it. A wrong rewrite is off by 1e-3 and more. The tolerance lies between.
TOLERANCE = 1e-4
# float16 keeps 11 bits of 24, so merged weights and the tensor at a cut are rounded anew: 3e-4 to 1e-3 of the largest
# output was seen on nets of 3 to 40 layers, and rounding MobileNetV1's weights alone to float16 changes 5e-3.
HALF_TOLERANCE = 2e-2
FLOOR = 1e-6  # largest outputs below it count as it, so that zeros are compared absolutely
REPORT = "If the model mixes the pictures of a batch, that is why; otherwise please report it, with the model."
OPEN_LENGTH = 224  # of an axis that neither the model nor its preprocessing fixes
FILE_LIMIT = 1 << 30  # bytes of weights, from which on they go beside the graph: one ONNX file holds 2 GB


def random_inputs(
    specs: Sequence[TensorSpec], batch: int, seed: int = 0, rule: Preprocessing | None = None
) -> dict[str, Array]:
    """Random inputs in the range of real ones.

    Parameters
    ----------
    specs : sequence of TensorSpec
        The inputs; the first axis of each is the batch.
    batch : int
        Rows.
    seed : int
        Of the random generator.
    rule : Preprocessing, optional
        Floating-point inputs are random pixels 0..255 put through its arithmetic; without it they are standard normal.
        Inputs of integers are random pixels.

    Returns
    -------
    dict of str to ndarray
        By name of the input.
    """
    rng = np.random.default_rng(seed)
    return {spec.name: _random(rng, _filled_shape(spec, batch, rule), spec.dtype, rule) for spec in specs}


def _filled_shape(spec: TensorSpec, batch: int, rule: Preprocessing | None) -> tuple[int, ...]:
    """The shape of an input, with open lengths filled in: height and width from the rule."""
    size = dict(zip((2, 3) if rule and rule.layout == "NCHW" else (1, 2), rule.size if rule else (), strict=False))
    inner = enumerate(spec.shape[1:], start=1)
    return (batch, *(size.get(axis, OPEN_LENGTH) if length is None else length for axis, length in inner))


def _random(rng: np.random.Generator, shape: tuple[int, ...], dtype: str, rule: Preprocessing | None) -> Array:
    if np.dtype(dtype).kind != "f":
        return rng.integers(0, 2 if dtype == "bool" else 128 if dtype == "int8" else 256, shape).astype(dtype)
    channel_axis = 1 if rule and rule.layout == "NCHW" else len(shape) - 1
    if rule is None or rule.baked or shape[channel_axis] != len(rule.mean):
        return rng.standard_normal(shape, np.float32).astype(dtype)
    per_channel = [len(rule.mean) if axis == channel_axis else 1 for axis in range(len(shape))]
    mean, std = (np.reshape(values, per_channel) for values in (rule.mean, rule.std))
    return ((rng.integers(0, 256, shape) * rule.scale - mean) / std).astype(dtype)


def disagreement(expected: Array, actual: Array) -> float:
    """Max |expected - actual| / max |expected|; infinite where shapes differ or a number is not finite.

    Relative to the largest output, since that is what rounding scales with: a small output is the difference of large
    ones. A largest output below 1e-6 counts as 1e-6.
    """
    if expected.shape != actual.shape or not (np.isfinite(expected).all() and np.isfinite(actual).all()):
        return float("inf")
    wide = expected.astype(np.float64)
    return float(np.abs(wide - actual).max(initial=0) / max(np.abs(wide).max(initial=0), FLOOR))


def tolerance(types: Iterable[str]) -> float:
    """The disagreement that rounding explains, between graphs with tensors of these types."""
    return HALF_TOLERANCE if "float16" in set(types) else TOLERANCE


def session_of(model: "ir.Model", threads: int | None = None, providers: Providers = "cpu") -> Session:
    """A session of a model in memory; other parameters and errors are those of `Session`.

    Raises
    ------
    InputError, UnsupportedOperator
        If onnxruntime does not take the model.
    """
    from craft_onnx.graph.load import save

    tensors = (value.const_value for value in model.graph.initializers.values())
    size = sum(tensor.nbytes for tensor in tensors if tensor is not None)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        save(model, path, "weights.bin" if size > FILE_LIMIT else None)
        return Session(path, providers, threads)


def normalize_proven(model: "ir.Model") -> "tuple[ir.Model, dict[str, float]]":
    """Normalize a model, and prove each step numerically.

    After every step of `graph.normalize.STEPS` the model runs on the same random input as before it; once the batch
    is open, at two batch sizes. The file as it was is the first to run; a step that found nothing to do needs no run.

    Parameters
    ----------
    model : ir.Model
        As loaded; not changed.

    Returns
    -------
    ir.Model
        Normalized.
    dict of str to float
        `disagreement` of each step with the one before, by its name; and "logits", of the first model with the last
        without their final Softmax, where they have one: saturated, it would hide what is wrong before it.

    Raises
    ------
    CheckFailed
        If a step changes the outputs by more than `tolerance` allows, or makes a model that does not run.
    InputError
        If the model does not run as it is, or cannot be normalized.
    """
    from craft_onnx.graph.normalize import STEPS

    original = model
    allowed = tolerance(_types(model))
    x, expected = _reference(model)
    errors = {}
    for name, step in STEPS:
        before, model = model, step(model)
        actual = expected if _identical(before, model) else _after(name, model, x)
        errors[name] = max(map(disagreement, expected, actual))
        require_agreement(f"Normalizing the model (step {name!r})", errors[name], allowed)
        expected = actual
    logits, normalized = _without_softmax(original, x), _without_softmax(model, x)
    if logits and normalized:
        errors["logits"] = max(map(disagreement, logits, normalized))
        require_agreement("Normalizing the model (before its Softmax)", errors["logits"], allowed)
    _warn_if_constant((logits or expected)[0])
    return model, errors


def _types(model: "ir.Model") -> set[str]:
    """Types of a model's weights: those of its inputs and outputs may be wider."""
    return {value.dtype.name.lower() for value in model.graph.initializers.values() if value.dtype is not None}


def _reference(model: "ir.Model") -> tuple[Array, list[Array]]:
    """`reference` of a model in memory."""
    from craft_onnx.graph.load import image_input, logits_output, read_description

    image_input(model)
    logits_output(model)
    return reference(session_of(model), read_description(model).preprocessing)


def reference(f: Session, rule: Preprocessing | None) -> tuple[Array, list[Array]]:
    """Random input of three batches (of one row, where the batch is open), and a model's outputs for it.

    Returns
    -------
    (3b, ...) array
        The input.
    list of array
        Outputs for all of it at once, and for its first third.

    Raises
    ------
    CheckFailed
        If an output is not finite.
    """
    x = random_inputs(f.inputs[:1], 3 * (f.inputs[0].shape[0] or 1), rule=rule)[f.inputs[0].name]
    outputs = _outputs(f, x)
    if not np.isfinite(outputs[0]).all():
        raise CheckFailed("The model's outputs on random input are not finite.", "Check the model in its framework.")
    return x, outputs


def _outputs(session: Session, x: Array) -> list[Array]:
    """The outputs for all rows in one batch and for the first third in another; a fixed batch is run as often."""
    first = len(x) // 3
    whole = run_array(session, x, len(x))
    return [whole, whole[:first] if session.inputs[0].shape[0] else run_array(session, x[:first], first)]


def _without_softmax(model: "ir.Model", x: Array) -> list[Array] | None:
    """The outputs without a final Softmax, None where there is none."""
    from craft_onnx.graph.softmax import remove_softmax

    bare, found = remove_softmax(model)
    return _outputs(session_of(bare), x) if found else None


def _warn_if_constant(outputs: Array) -> None:
    """Agreement of outputs that are the same for every input, as with constant weights, proves nothing."""
    if disagreement(outputs, np.broadcast_to(outputs[:1], outputs.shape)) <= TOLERANCE:
        warnings.warn(
            "The model's output hardly depends on its input, so that proofs by random input say little. Is it trained, "
            "and is its preprocessing known?",
            CraftWarning,
            stacklevel=3,
        )


def _identical(before: "ir.Model", after: "ir.Model") -> bool:
    """Whether two models are the same down to the last byte: the same graph, over the very same weights."""
    from craft_onnx.graph.skeleton import skeleton

    weights = [[(name, id(v.const_value)) for name, v in m.graph.initializers.items()] for m in (before, after)]
    if weights[0] != weights[1]:
        return False
    graphs = [skeleton(model).SerializeToString(deterministic=True) for model in (before, after)]
    return graphs[0] == graphs[1]


def _after(step: str, model: "ir.Model", x: Array) -> list[Array]:
    try:
        return _outputs(session_of(model), x)
    except CraftError as error:
        problem = f"After step {step!r} of normalizing, the model does not run: {error.problem}"
        raise CheckFailed(problem, REPORT) from error


def require_agreement(what: str, error: float, allowed: float = TOLERANCE) -> None:
    """Raise CheckFailed, naming `what`, if a disagreement is above what is allowed."""
    if not error <= allowed:
        problem = f"{what} changes its outputs by {error:.1e} of the largest; {allowed:.0e} is what rounding may do."
        raise CheckFailed(problem, REPORT)


def split_proven(model: "ir.Model", tensor: str) -> "tuple[ir.Model, ir.Model, float]":
    """Split a model at a tensor, and prove h(g(x)) = f(x) on random input at two batch sizes.

    Parameters
    ----------
    model : ir.Model
        Normalized, with an open batch.
    tensor : str
        Exact name of the cut's tensor.

    Returns
    -------
    g, h : ir.Model
        Image to activations, activations to logits.
    error : float
        Largest `disagreement` of h(g(x)) with f(x).

    Raises
    ------
    CheckFailed
        If the error is above what `tolerance` allows.
    InputError
        If the tensor is no cut.
    """
    from craft_onnx.graph.split import split

    g, h = split(model, tensor)
    x, expected = _reference(model)
    return g, h, split_error(expected, session_of(g), session_of(h), x, tensor)


def split_error(expected: Sequence[Array], g: Session, h: Session, x: Array, tensor: str) -> float:
    """Largest disagreement of h(g(x)) with the model's outputs for all rows of `x` and the first third; proven small.

    Raises
    ------
    CheckFailed
        If it is above what `tolerance` allows for the tensor that is passed on.
    """
    actual = [run_array(h, run_array(g, rows, len(rows)), len(rows)) for rows in (x, x[: len(x) // 3])]
    error = max(map(disagreement, expected, actual))
    require_agreement(f"Splitting the model at {tensor!r}", error, tolerance([h.inputs[0].dtype]))
    return error

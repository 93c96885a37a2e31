"""From what an exporter wrote to a model that is proven to compute the same: the way every source takes."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import onnx_ir as ir

from craft_onnx.description import Description, Preprocessing
from craft_onnx.errors import InputError, UnsupportedOperator
from craft_onnx.files import sha256
from craft_onnx.graph.bake import bake_preprocessing
from craft_onnx.graph.load import check, image_input, logits_output, write_description
from craft_onnx.graph.softmax import flatten_logits, remove_softmax
from craft_onnx.runtime.proof import normalize_proven, session_of
from craft_onnx.runtime.sessions import Session, TensorSpec
from craft_onnx_converters.exported import Conversion, Exported, Options
from craft_onnx_converters.verify import BATCHES, agreement, random_sample


def prove(exported: Exported, options: Options) -> Conversion:
    """Normalize an exported model, cut its Softmax off, record its preprocessing, and prove the result.

    Raises
    ------
    UnsupportedOperator
        If the exporter left an operator out, or onnxruntime lacks one.
    CheckFailed
        If the model does not agree with the framework, before or after the normalization.
    InputError
        If it has several inputs or outputs, its batch cannot vary, or the preprocessing does not fit its input.
    """
    session = _session(exported)
    spec = _source_input(session, options)
    before = _described(exported, spec, options)
    write_description(exported.model, before)  # the proofs below draw their input by it
    # First the graph as exported: a fault of the exporter is not to be taken for one of our own passes.
    batch = spec.shape[0] or exported.batch or BATCHES[0]
    agreement(session, random_sample(spec, batch, before.preprocessing, False, options.seed), exported)
    model, steps = normalize_proven(exported.model)
    model, after = _finished(model, before, options)
    check(model)
    errors = _errors(model, exported, before, after, spec, options.seed)
    write_description(model, after)
    return Conversion(model, after, errors, steps)


def _session(exported: Exported) -> Session:
    """The graph as exported, if it has one input and one output and onnxruntime takes it at all."""
    if exported.unsupported:
        raise UnsupportedOperator(
            f"tf2onnx has no conversion for {', '.join(exported.unsupported)}.",
            "Write that part of the model with other layers.",
        )
    image_input(exported.model)
    logits_output(exported.model)
    try:
        return session_of(exported.model)
    except InputError as error:
        raise UnsupportedOperator(
            f"The {exported.framework} exporter wrote a graph that onnxruntime refuses: {error.problem}",
            "One of the model's operators was converted wrongly; write that part with other layers.",
        ) from error


def _source_input(session: Session, options: Options) -> TensorSpec:
    """The model's input, with the shape that was asked for where the graph leaves it open."""
    (spec,) = session.inputs
    inner = options.input_shape or spec.shape[1:]
    if len(inner) != len(spec.shape) - 1 or any(b not in (None, a) for a, b in zip(inner, spec.shape[1:], strict=True)):
        raise InputError(f"Input shape {inner} does not fit the model's input {spec}.", "Leave --input-shape out.")
    return dataclasses.replace(spec, shape=(spec.shape[0], *inner))


def _described(exported: Exported, spec: TensorSpec, options: Options) -> Description:
    """What is known of the model before anything is done to it."""
    before = exported.description or Description()
    rule = preprocessing_rule(options.preprocessing, spec) if options.preprocessing else before.preprocessing
    if options.bake_preprocessing and (rule is None or rule.baked):
        raise InputError(
            f"The preprocessing {'is baked into the graph already' if rule else 'is not known'}.",
            "Leave --bake-preprocessing out." if rule else "Give --preset, or --scale, --mean, --std, --channel-order.",
        )
    source = before.source_sha256 or (sha256(exported.source) if exported.source else None)
    return dataclasses.replace(before, framework=exported.framework, source_sha256=source, preprocessing=rule)


def preprocessing_rule(given: Preprocessing | Mapping[str, Any] | str, spec: TensorSpec) -> Preprocessing:
    """A rule completed by size and layout of the model's input.

    Parameters
    ----------
    given : Preprocessing, mapping or str
        A rule, arguments of `Preprocessing.for_input`, or the name of a preset.
    spec : TensorSpec
        The model's input.

    Raises
    ------
    InputError
        If it does not fit the input.
    """
    if isinstance(given, str):
        return Preprocessing.for_input(spec.shape, given)
    if isinstance(given, Mapping):
        return Preprocessing.for_input(spec.shape, **given)
    fitting = Preprocessing.for_input(spec.shape, size=given.size)
    if (fitting.layout, len(fitting.mean)) != (given.layout, len(given.mean)):
        raise InputError(
            f"Preprocessing for {given.layout} and {len(given.mean)} channel(s) does not fit the input {spec}.",
            f"That is {fitting.layout} with {len(fitting.mean)}.",
        )
    return given


def _finished(model: ir.Model, before: Description, options: Options) -> tuple[ir.Model, Description]:
    """The model with one row of logits a picture, Softmax and preprocessing as asked for; and its description."""
    removed, rule, model = False, before.preprocessing, flatten_logits(model)
    if not options.keep_softmax:
        model, removed = remove_softmax(model)
    if options.bake_preprocessing and rule:
        model, rule = bake_preprocessing(model, rule), dataclasses.replace(rule, baked=True, layout="NHWC")
    return model, dataclasses.replace(before, preprocessing=rule, softmax_removed=removed or before.softmax_removed)


def _errors(
    model: ir.Model, exported: Exported, before: Description, after: Description, spec: TensorSpec, seed: int
) -> dict[int, float]:
    """Relative error of the finished model against the framework, by batch size."""
    session = session_of(model)
    softmax = after.softmax_removed and not before.softmax_removed
    baked = before.preprocessing != after.preprocessing
    samples = (random_sample(spec, batch, before.preprocessing, baked, seed + batch) for batch in BATCHES)
    return {len(sample.onnx): agreement(session, sample, exported, softmax) for sample in samples}

"""Conditional attribution: relevance of the prediction through chosen concepts of chosen layers.

Achtibat et al. 2023, "From attribution maps to human-understandable explanations through Concept Relevance
Propagation", section "Methods".
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from craft_onnx.attribution.channels import reduce_channels
from craft_onnx.attribution.model import Rows, as_inputs, batches
from craft_onnx.errors import InputError
from craft_onnx.graph.reverse.relevance.files import composite_of
from craft_onnx.graph.reverse.rules import Rules
from craft_onnx.relevance.concepts import ChannelConcept, Concept, as_concept
from craft_onnx.relevance.conditions import Condition, read_conditions
from craft_onnx.relevance.layers import Layer, Layers
from craft_onnx.relevance.passes import Forward, Passes, Way
from craft_onnx.runtime.batches import BATCH_SIZE, as_array
from craft_onnx.runtime.model import SplitModel

Array = NDArray[Any]
MaskMap = Concept | Mapping[str, Concept] | None
# What relevance starts from in place of the prediction.
InitialRelevance = float | Array | Callable[[Array], Any] | None
KEPT = 4  # ways whose graphs are kept: each holds the weights
TINY = 1e-30


@dataclass(frozen=True)
class ConditionalAttribution:
    """Relevance under conditions, a row for each sample and condition: all conditions of the first sample come first.

    Unpacks into heatmap, activations, relevances, prediction.

    Attributes
    ----------
    heatmap : (n, H, W) float array
        Relevance of the input's pixels, summed over its colours; of inputs that are no pictures, in their shape.
    activations : dict of str to (n, channels, ...) array
        Of the recorded layers, channels first.
    relevances : dict of str to (n, channels, ...) array
        That reached the recorded layers, before masks there were applied; channels first.
    prediction : (n, classes) array
        Logits.
    conserved : (n,) array
        Relevance of the input over the relevance that it started from; masks and biases take what is missing to 1.
    """

    heatmap: Array
    activations: dict[str, Array]
    relevances: dict[str, Array]
    prediction: Array
    conserved: Array

    def __iter__(self) -> Iterator[Any]:
        """Heatmap, activations, relevances, prediction."""
        return iter((self.heatmap, self.activations, self.relevances, self.prediction))


class CondAttribution:
    """Relevance through conditions, on any model.

    Parameters
    ----------
    model : SplitModel
        A bundle, or an ONNX file, opened by `craft_onnx.load`.
    """

    def __init__(self, model: SplitModel) -> None:
        self.model = model
        self.layers = Layers(model)
        self._output = str(self.layers.graph.graph.outputs[0].name)
        self._made: list[tuple[Any, Passes]] = []
        self._lock = threading.RLock()

    def __call__(
        self,
        data: Any,
        conditions: Sequence[Mapping[str, Any]],
        composite: str | Rules,
        record_layer: Sequence[str] = (),
        mask_map: MaskMap = None,
        start_layer: str | None = None,
        init_rel: InitialRelevance = None,
        exclude_parallel: bool = True,
        *,
        batch_size: int = BATCH_SIZE,
    ) -> ConditionalAttribution:
        """Relevance of samples under conditions.

        Parameters
        ----------
        data : (n, ...) array or tensor
            Preprocessed samples in the model's layout.
        conditions : list of dict
            Each {layer: [concept, ...], ..., "y": [class, ...]}: relevance starts from the logits of the classes and
            goes, at every layer that is named, through these concepts alone; an empty list lets nothing through. As
            many as samples belong to one sample each; otherwise each is applied to all samples.
        composite : str or Rules
            The rules: a name such as "epsilon_plus_flat", or a composite.
        record_layer : sequence of str
            Layers whose activations and relevances are asked for.
        mask_map : Concept, or mapping of str to Concept
            What the numbers at a layer mean; channels by default.
        start_layer : str, optional
            Start from the activation of this layer instead of the prediction; "y" is not looked at.
        init_rel : float, array or callable, optional
            What relevance starts from in place of the prediction (or of the start layer's activation): a number, an
            array that broadcasts, or a function of it.
        exclude_parallel : bool
            Relevance flows through the layers that are named alone: shortcuts around them are cut.
        batch_size : int
            Samples in one run, at most.

        Returns
        -------
        ConditionalAttribution
            Heatmap, activations, relevances, prediction, and how much was conserved.

        Raises
        ------
        InputError
            If a condition cannot be read or says no "y" where that is needed, or there is no such layer, concept or
            class.
        UnsupportedOperator
            If an operator of the model has no rule.
        """
        x, job = as_inputs(data), self._job(composite, record_layer, mask_map, start_layer, init_rel, exclude_parallel)
        read = self._read(conditions, job)
        carried = self._pairs if len(read) == len(x) else self._products
        parts = (part for rows in batches(len(x), batch_size) for part in carried(x, rows, read, job))
        return _joined(parts)

    def generate(
        self,
        data: Any,
        conditions: Sequence[Mapping[str, Any]],
        composite: str | Rules,
        record_layer: Sequence[str] = (),
        mask_map: MaskMap = None,
        start_layer: str | None = None,
        init_rel: InitialRelevance = None,
        exclude_parallel: bool = True,
        *,
        batch_size: int = BATCH_SIZE,
    ) -> Iterator[ConditionalAttribution]:
        """Relevance of samples under many conditions, some conditions at a time: forward once for all.

        Parameters
        ----------
        data, conditions, composite, record_layer, mask_map, start_layer, init_rel, exclude_parallel
            As in a call; every condition is applied to all samples, which are run at once.
        batch_size : int
            Conditions in one result.

        Yields
        ------
        ConditionalAttribution
            Of the next conditions, in order.

        Raises
        ------
        InputError, UnsupportedOperator
            As a call does.
        """
        x, job = as_inputs(data), self._job(composite, record_layer, mask_map, start_layer, init_rel, exclude_parallel)
        read = self._read(conditions, job)
        carried = self._carried(x, read, job)
        for chosen in batches(len(read), batch_size):
            count = len(chosen)
            parts = zip(range(count), itertools.islice(carried, count), strict=True)
            yield _joined((np.arange(len(x)) * count + place, part) for place, part in parts)

    def _products(self, x: Array, rows: Rows, conditions: Sequence[Condition], job: _Job) -> Iterator[_Placed]:
        """Every condition on all of some rows; those on the same layers one after the other."""
        order = sorted(range(len(conditions)), key=lambda place: conditions[place].layers)
        carried = self._carried(x[rows], [conditions[place] for place in order], job)
        for place, part in zip(order, carried, strict=True):
            yield rows * len(conditions) + place, part

    def _pairs(self, x: Array, rows: Rows, conditions: Sequence[Condition], job: _Job) -> Iterator[_Placed]:
        """Every row under its own condition; rows with conditions on the same layers are carried together."""
        for layers in sorted({conditions[row].layers for row in rows}):
            some = np.array([row for row in rows if conditions[row].layers == layers])
            passes = self._passes(layers, job)
            yield some, self._back(passes, passes.forward(x[some]), x[some], [conditions[row] for row in some], job)

    def _carried(self, x: Array, conditions: Sequence[Condition], job: _Job) -> Iterator[_Part]:
        """What each condition carries back on all rows; forward once as long as the layers stay the same."""
        for layers, same in itertools.groupby(conditions, key=lambda condition: condition.layers):
            passes = self._passes(layers, job)
            forward = passes.forward(x)
            for condition in same:
                yield self._back(passes, forward, x, [condition], job)

    def _back(self, passes: Passes, forward: Forward, x: Array, conditions: Sequence[Condition], job: _Job) -> _Part:
        """Under one condition for all rows, or under one for each."""
        masks: dict[str, Array] = {}
        for layer in map(self.layers.__getitem__, conditions[0].concepts):
            mask = _mask(layer, forward.activations[layer.tensor], conditions, job)
            masks[layer.tensor] = mask * masks.get(layer.tensor, 1)  # a tensor may be named twice
        relevance = self._start(forward, conditions, job)
        at_input, records = passes.backward(forward, relevance, masks)
        recorded = {layer.name: layer for layer in job.recorded}
        return _Part(
            reduce_channels(at_input, self.model, "sum" if at_input.ndim == 4 else None),
            {name: _channels_first(layer, forward.activations[layer.tensor]) for name, layer in recorded.items()},
            {name: _channels_first(layer, records[layer.tensor]) for name, layer in recorded.items()},
            forward.activations[self._output],
            _ratio(at_input, relevance),
        )

    def _start(self, forward: Forward, conditions: Sequence[Condition], job: _Job) -> Array:
        """What relevance starts from: the prediction of the classes, or the activation of a layer."""
        value = forward.activations[job.start.tensor if job.start else self._output]
        initial = job.init_rel(value) if callable(job.init_rel) else value if job.init_rel is None else job.init_rel
        relevance = _broadcast(as_array(initial).astype(value.dtype, copy=False), value.shape)
        return relevance if job.start else relevance * _selected(conditions, value)

    def _read(self, conditions: Any, job: _Job) -> list[Condition]:
        """The conditions; InputError where one does not say what to start from."""
        read = read_conditions(conditions, None if job.start else self.model.classes)
        if job.start is None and job.init_rel is None and any(condition.classes is None for condition in read):
            raise InputError(
                "A condition has no 'y', and relevance has nothing to start from.",
                "Give 'y': [class], or start_layer, or init_rel.",
            )
        return read

    def _job(
        self,
        composite: str | Rules,
        record_layer: Sequence[str],
        mask_map: MaskMap,
        start_layer: str | None,
        init_rel: InitialRelevance,
        exclude_parallel: bool,
    ) -> _Job:
        names = [record_layer] if isinstance(record_layer, str) else record_layer
        recorded = tuple(self.layers[name] for name in dict.fromkeys(names))
        start = None if start_layer is None else self.layers[start_layer]
        return _Job(composite_of(composite), recorded, self._concepts(mask_map), start, init_rel, exclude_parallel)

    def _concepts(self, mask_map: MaskMap) -> dict[str | None, Concept]:
        """What the numbers mean at each tensor, and by None at all others."""
        if not isinstance(mask_map, Mapping):
            return {None: ChannelConcept() if mask_map is None else as_concept(mask_map)}
        named = ((self.layers[name].tensor, as_concept(concept)) for name, concept in mask_map.items())
        return {None: ChannelConcept(), **dict(named)}

    def _passes(self, layers: Sequence[str], job: _Job) -> Passes:
        """The graphs of a way, made once; the last few are kept."""
        masked = tuple(sorted({self.layers[name].tensor for name in layers}))
        recorded = tuple(dict.fromkeys(layer.tensor for layer in job.recorded))
        start = job.start.tensor if job.start else self._output
        self.layers.require_feeding(layers, start)
        way = Way(start, masked, recorded, job.exclude_parallel)
        with self._lock:
            for known, passes in self._made:
                if known == (job.rules, way):
                    return passes
            passes = Passes(self.model, self.layers, job.rules, way, [self._output, *masked, *recorded])
            self._made = [*self._made[-KEPT + 1 :], ((job.rules, way), passes)]
            return passes


@dataclass(frozen=True)
class _Job:
    """What is the same for all conditions."""

    rules: Rules
    recorded: tuple[Layer, ...]
    concepts: Mapping[str | None, Concept]
    start: Layer | None
    init_rel: InitialRelevance
    exclude_parallel: bool

    def concept(self, layer: Layer) -> Concept:
        """What the numbers at a layer mean."""
        return self.concepts.get(layer.tensor, self.concepts[None])


class _Part(NamedTuple):
    """Some rows of a result."""

    heatmap: Array
    activations: dict[str, Array]
    relevances: dict[str, Array]
    prediction: Array
    conserved: Array


_Placed = tuple[Rows, _Part]


def _joined(parts: Iterable[_Placed]) -> ConditionalAttribution:
    """The rows of all parts in the order of their places."""
    placed = list(parts)
    order = np.argsort(np.concatenate([places for places, _ in placed]))
    in_order = (np.diff(order) == 1).all()

    def whole(rows: Callable[[_Part], Array]) -> Array:
        arrays = [rows(part) for _, part in placed]
        joined = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)  # of many layers: large
        return joined if in_order else joined[order]

    layers = list(placed[0][1].relevances)
    return ConditionalAttribution(
        whole(lambda part: part.heatmap),
        {name: whole(lambda part, name=name: part.activations[name]) for name in layers},  # type: ignore[misc]
        {name: whole(lambda part, name=name: part.relevances[name]) for name in layers},  # type: ignore[misc]
        whole(lambda part: part.prediction),
        whole(lambda part: part.conserved),
    )


def _mask(layer: Layer, activations: Array, conditions: Sequence[Condition], job: _Job) -> Array:
    """The mask of one condition for all rows, or of one for each, as the model has its axes."""
    concept, first = job.concept(layer), _channels_first(layer, activations)
    if len(conditions) == 1:
        masks = _fitting(concept.mask(conditions[0].concepts[layer.name], first), first)
    else:
        rows = [first[row : row + 1] for row in range(len(conditions))]
        pairs = zip(conditions, rows, strict=True)
        masks = np.concatenate([_fitting(concept.mask(one.concepts[layer.name], row), row) for one, row in pairs])
    return np.moveaxis(masks.astype(activations.dtype, copy=False), 1, layer.channel_axis)


def _fitting(mask: Any, activations: Array) -> Array:
    """A mask with all axes of the activations; InputError where it does not broadcast to them."""
    array = as_array(mask)
    try:
        np.broadcast_to(array, activations.shape)
    except ValueError as error:
        raise InputError(
            f"A mask of shape {array.shape} does not fit activations of shape {activations.shape}.",
            "Give one that broadcasts to them.",
        ) from error
    return array.reshape((1,) * (activations.ndim - array.ndim) + array.shape)


def _selected(conditions: Sequence[Condition], prediction: Array) -> Array:
    """1 at the classes of each condition, (1 or n, classes)."""
    selected = np.zeros((len(conditions), prediction.shape[1]), prediction.dtype)
    for row, condition in enumerate(conditions):
        selected[row, slice(None) if condition.classes is None else list(condition.classes)] = 1
    return selected


def _broadcast(initial: Array, shape: tuple[int, ...]) -> Array:
    try:
        return np.broadcast_to(initial, shape)
    except ValueError as error:
        raise InputError(
            f"init_rel has shape {initial.shape}, relevance starts at one of shape {shape}.",
            "Give a number, or an array that broadcasts to it.",
        ) from error


def _channels_first(layer: Layer, array: Array) -> Array:
    return np.moveaxis(array, layer.channel_axis, 1)


def _ratio(at_input: Array, start: Array) -> Array:
    """Sums of relevance over that of the start, per row."""
    ends = [values.reshape(len(values), -1).sum(axis=1, dtype=np.float64) for values in (at_input, start)]
    return ends[0] / np.where(np.abs(ends[1]) > TINY, ends[1], np.nan)

"""Which concepts of earlier layers a concept is made of in one prediction, by the relevance that flows between them.

Achtibat et al. 2023, "From attribution maps to human-understandable explanations through Concept Relevance
Propagation".

Relevance that reaches an earlier layer through further layers that are looked at belongs to those: they are blocked
while it is measured. So what the concepts of all layers that feed a concept have adds up to its own relevance, whatever
shortcuts there are.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from craft_onnx.attribution.model import as_inputs
from craft_onnx.attribution.targets import check_range
from craft_onnx.errors import InputError
from craft_onnx.graph.reverse.rules import Rules
from craft_onnx.relevance.attribution import CondAttribution
from craft_onnx.relevance.attribution_tree import AttributionTree, ConceptNode
from craft_onnx.relevance.concepts import ChannelConcept, Concept
from craft_onnx.relevance.conditions import OUTPUT
from craft_onnx.relevance.model_graph import ModelGraph
from craft_onnx.runtime.batches import BATCH_SIZE

Array = NDArray[Any]
LINEAR = ("Conv", "ConvTranspose", "Gemm", "MatMul")
TINY = 1e-10


class AttributionGraph:
    """Trees of concepts by relevance, of single predictions.

    Parameters
    ----------
    attribution : CondAttribution
        Of the model.
    graph : ModelGraph or sequence of str, optional
        The layers to look at; by default those of `layer_map`, or all convolutions and dense layers.
    layer_map : mapping of str to Concept, optional
        What the numbers at a layer mean; channels by default.

    Raises
    ------
    InputError
        If the model has no such layer.
    """

    def __init__(
        self,
        attribution: CondAttribution,
        graph: ModelGraph | Sequence[str] | None = None,
        layer_map: Mapping[str, Concept] | None = None,
    ) -> None:
        self.attribution = attribution
        self.layer_map = dict(layer_map or {})
        if not isinstance(graph, ModelGraph):
            names = graph or list(self.layer_map) or attribution.layers.names(LINEAR)
            graph = ModelGraph(attribution.layers, tuple(names))
        self.graph = graph

    def __call__(
        self,
        sample: Any,
        composite: str | Rules,
        concept_id: int,
        layer_name: str,
        target: int | None = None,
        width: Sequence[int] = (4, 2),
        parent_c_id: int | None = None,
        parent_layer: str | None = None,
        abs_norm: bool = True,
        batch_size: int = BATCH_SIZE,
        *,
        heatmaps: bool = False,
    ) -> AttributionTree:
        """What a concept is made of in one prediction.

        Parameters
        ----------
        sample : (1, ...) array or tensor
            Preprocessed, in the model's layout.
        composite : str or Rules
            The rules: a name such as "epsilon_plus_flat", or a composite.
        concept_id : int
            Number of the concept.
        layer_name : str
            Its layer.
        target : int, optional
            Class whose logit relevance starts from; by default it starts from the activation of `parent_layer`, or of
            the concept itself.
        width : sequence of int
            How many concepts to follow at every level: the most relevant ones for the concept above, of all layers that
            feed it. Only those that add to its relevance are.
        parent_c_id, parent_layer : int and str, optional
            A concept of a later layer: only what flows through it counts.
        abs_norm : bool
            Connections of the result have shares, or else relevances.
        batch_size : int
            Concepts in one result, at most.
        heatmaps : bool
            Carry the relevance of every concept on to the input.

        Returns
        -------
        AttributionTree

        Raises
        ------
        InputError
            If there is no such layer, concept or class, the sample is not one, or of a parent the layer or the number
            is missing.
        UnsupportedOperator
            If an operator of the model has no rule.
        """
        x = _single(as_inputs(sample))
        run = _Run(self, x, composite, batch_size)
        root = run.root(concept_id, layer_name, target, _parent(parent_c_id, parent_layer))
        level = [root]
        for count in width:
            run.grow(level, count)
            level = [child for node in level for child in node.children]
        if heatmaps:
            run.heat(list(root.all()))
        return AttributionTree(root.closed(), target, abs_norm)

    def concept(self, layer: str) -> Concept:
        """What the numbers at a layer mean."""
        return self.layer_map.get(layer) or ChannelConcept()


@dataclass
class _Open:
    """A node that may still grow.

    `reached` is what relevance its whole layer has on the way through the concepts above; nodes of the same way and
    layer share it.
    """

    layer: str
    concept: int
    relevance: float
    share: float
    reached: Array
    children: list[_Open] = field(default_factory=list)
    passed: float | None = None
    heatmap: Array | None = None

    def all(self) -> Iterator[_Open]:
        yield self
        for child in self.children:
            yield from child.all()

    def closed(self) -> ConceptNode:
        """The node as it is now."""
        children = tuple(child.closed() for child in self.children)
        return ConceptNode(self.layer, self.concept, self.relevance, self.share, children, self.passed, self.heatmap)


@dataclass(frozen=True)
class _Run:
    """One sample by one composite."""

    owner: AttributionGraph
    x: Array
    composite: str | Rules
    batch_size: int

    def root(self, concept: int, layer: str, target: int | None, parent: dict[str, list[int]]) -> _Open:
        """The concept that was asked for, and what reaches its layer."""
        start = None if target is not None else next(iter(parent), layer)
        condition = {**parent, OUTPUT: [target]} if start is None else parent
        mask_map = {name: self.owner.concept(name) for name in parent}
        found = self.owner.attribution(
            self.x, [condition], self.composite, [layer], mask_map, start, batch_size=self.batch_size
        )
        reached = found.relevances[layer]
        shares = self._shares(layer, reached, found.activations[layer])
        check_range(np.array([concept]), len(shares), "concept")
        share = shares[concept] / (np.abs(shares).sum() + TINY)
        return _Open(layer, concept, float(shares[concept]), float(share), reached)

    def grow(self, level: Sequence[_Open], count: int) -> None:
        """Give nodes their children."""
        for layer, reached, nodes in _alike(level):
            feeding = self.owner.graph.find_input_layers(layer)
            if feeding:
                for node, found in zip(nodes, self._below(layer, reached, nodes, feeding), strict=True):
                    _give(node, found, count)

    def heat(self, nodes: Sequence[_Open]) -> None:
        """Give nodes their heatmaps."""
        for layer, reached, alike in _alike(nodes):
            results = self._carried(layer, reached, alike, {}, [])
            rows = itertools.chain.from_iterable(result.heatmap for result in results)
            for node, row in zip(alike, rows, strict=True):
                node.heatmap = row

    def _below(
        self, layer: str, reached: Array, nodes: Sequence[_Open], feeding: Sequence[str]
    ) -> Iterator[dict[str, tuple[Array, Array]]]:
        """For every node, what reaches each layer that feeds it, and the relevances of the concepts there."""
        for result in self._carried(layer, reached, nodes, {name: [] for name in feeding}, feeding):
            for row in range(len(result.heatmap)):
                rows = {name: (result.relevances[name][[row]], result.activations[name][[row]]) for name in feeding}
                yield {name: (relevance, self._shares(name, relevance, a)) for name, (relevance, a) in rows.items()}

    def _carried(
        self,
        layer: str,
        reached: Array,
        nodes: Sequence[_Open],
        blocked: Mapping[str, list[int]],
        record: Sequence[str],
    ) -> Iterable[Any]:
        """Relevance from a layer on, through each of some concepts."""
        axis = self.owner.attribution.layers[layer].channel_axis
        return self.owner.attribution.generate(
            self.x,
            [{layer: [node.concept], **blocked} for node in nodes],
            self.composite,
            record,
            {layer: self.owner.concept(layer)},
            layer,
            np.moveaxis(reached, 1, axis),
            exclude_parallel=False,
            batch_size=self.batch_size,
        )

    def _shares(self, layer: str, relevance: Array, activations: Array) -> Array:
        """Relevances (concepts,)."""
        concept = self.owner.concept(layer)
        return concept.attribute(relevance, layer_name=layer, abs_norm=False, activations=activations)[0]


def _single(x: Array) -> Array:
    if len(x) != 1:
        raise InputError(f"There are {len(x)} samples, a tree is of one.", "Give one, such as x[:1].")
    return x


def _parent(number: int | None, layer: str | None) -> dict[str, list[int]]:
    if (number is None) != (layer is None):
        given = f"parent_c_id={number!r} and parent_layer={layer!r}"
        raise InputError(f"{given} are no concept.", "Give both, or neither.")
    return {} if number is None or layer is None else {layer: [number]}


def _alike(nodes: Iterable[_Open]) -> Iterator[tuple[str, Array, list[_Open]]]:
    """Nodes with the same way above them, those of a layer one after the other: they are run with the same graphs."""
    ways: dict[tuple[str, int], list[_Open]] = {}
    for node in nodes:
        ways.setdefault((node.layer, id(node.reached)), []).append(node)
    for (layer, _), alike in sorted(ways.items(), key=lambda item: item[0][0]):
        yield layer, alike[0].reached, alike


def _give(node: _Open, found: Mapping[str, tuple[Array, Array]], count: int) -> None:
    """The most relevant concepts below a node as its children."""
    layers = [layer for layer, (_, shares) in found.items() for _ in shares]
    numbers = [number for _, shares in found.values() for number in range(len(shares))]
    relevances = np.concatenate([shares for _, shares in found.values()]).astype(np.float64)
    direction = 1 if node.relevance >= 0 else -1
    total = np.abs(relevances).sum() + TINY
    node.passed = float(relevances.sum() / node.relevance) if node.relevance else None
    for place in np.argsort(-direction * relevances, kind="stable")[:count]:
        if direction * relevances[place] > 0:
            relevance = float(relevances[place])
            reached = found[layers[place]][0]
            node.children.append(_Open(layers[place], numbers[place], relevance, float(relevance / total), reached))

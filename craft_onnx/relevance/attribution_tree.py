"""What a concept is made of in one prediction: concepts of earlier layers, those of layers before these, and so on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from craft_onnx.extras import require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from craft_onnx.show.tree import Node

Array = NDArray[Any]
Key = tuple[str, int]
SIDE = 0.9  # of a picture in the drawn tree, inches
# Pictures of concepts, by layer and number.
References = Mapping[Key, Sequence[NDArray[np.uint8]]]


@dataclass(frozen=True)
class ConceptNode:
    """A concept, on the way through all those above it.

    Attributes
    ----------
    layer : str
        Name of its layer.
    concept : int
        Its number.
    relevance : float
        That flows through it and all concepts above it.
    share : float
        The same over the sum of absolute relevances of all concepts that feed the one above, of the root those of its
        layer.
    children : tuple of ConceptNode
        What it is made of, the most relevant first.
    passed : float, optional
        Relevance that all concepts below it have together, over its own: biases take what is missing to 1. None where
        nothing was looked for.
    heatmap : (H, W) array, optional
        Relevance of the input's pixels on this way.
    """

    layer: str
    concept: int
    relevance: float
    share: float
    children: tuple[ConceptNode, ...] = ()
    passed: float | None = None
    heatmap: Array | None = None

    @property
    def key(self) -> Key:
        """Layer and number."""
        return self.layer, self.concept

    def all(self) -> Iterator[ConceptNode]:
        """Itself, and all below it."""
        yield self
        for child in self.children:
            yield from child.all()

    def to_json(self) -> dict[str, Any]:
        """As JSON values, without heatmaps."""
        return {
            "layer": self.layer,
            "concept": self.concept,
            "relevance": self.relevance,
            "share": self.share,
            "passed": self.passed,
            "children": [child.to_json() for child in self.children],
        }


@dataclass(frozen=True)
class AttributionTree:
    """A concept and what it is made of; unpacks into nodes and connections.

    Attributes
    ----------
    root : ConceptNode
        The concept that was asked for.
    target : int, optional
        Class whose logit relevance starts from; None where it starts from a layer.
    abs_norm : bool
        Connections have shares, or else relevances.
    """

    root: ConceptNode
    target: int | None = None
    abs_norm: bool = True

    def __iter__(self) -> Iterator[Any]:
        """Nodes, connections."""
        return iter((self.nodes, self.connections))

    @property
    def nodes(self) -> list[Key]:
        """Layers and numbers of all concepts, each once, level by level."""
        found, level = [], [self.root]
        while level:
            found += [node.key for node in level]
            level = [child for node in level for child in node.children]
        return list(dict.fromkeys(found))

    @property
    def connections(self) -> dict[Key, list[tuple[str, int, float]]]:
        """From each concept that has any to what it is made of: layer, number, share or relevance.

        A concept that is part of several others has the parts of each.
        """
        found: dict[Key, list[tuple[str, int, float]]] = {}
        for node in self.root.all():
            for child in node.children:
                weight = child.share if self.abs_norm else child.relevance
                found.setdefault(node.key, []).append((*child.key, weight))
        return found

    def to_json(self) -> dict[str, Any]:
        """As JSON values: the target, and the tree from its root on."""
        return {"target": self.target, "root": self.root.to_json()}

    def plot(
        self,
        picture: NDArray[np.uint8] | None = None,
        references: References | None = None,
        names: Mapping[Key, str] | None = None,
    ) -> Figure:
        """Draw the tree; a branch is as wide as the share of the concept that it leads to.

        Parameters
        ----------
        picture : (H, W, 3) uint8 array, optional
            The sample, drawn under the heatmaps of the concepts, where the tree has any.
        references : mapping of (layer, concept) to sequence of (h, w, 3) uint8 arrays, optional
            Pictures of what a concept stands for.
        names : mapping of (layer, concept) to str, optional
            Names instead of numbers.
        """
        require("matplotlib", "build")
        from craft_onnx.show.tree import concept_tree

        title = "activation" if self.target is None else f"class {self.target}"
        look = _Look(picture, references or {}, names or {}, _colours(self.root))
        return concept_tree(title, [look.node(self.root)], crop=SIDE)


@dataclass(frozen=True)
class _Look:
    """How nodes are drawn."""

    picture: NDArray[np.uint8] | None
    references: References
    names: Mapping[Key, str]
    colours: Mapping[str, Array]

    def node(self, one: ConceptNode) -> Node:
        """A node to draw, with all below it."""
        from craft_onnx.show.tree import Node

        title = self.names.get(one.key, f"{one.layer} · {one.concept}")
        note = f"relevance {one.relevance:.3g}, {one.share:.0%}"
        crops = [*self._overlay(one.heatmap), *self.references.get(one.key, ())]
        children = [self.node(child) for child in one.children]
        return Node(title, note, abs(one.share), self.colours[one.layer], crops, children)

    def _overlay(self, heatmap: Array | None) -> list[Array]:
        from craft_onnx.show.attributions import attribution_overlay

        return [] if self.picture is None or heatmap is None else [attribution_overlay(self.picture, heatmap)]


def _colours(root: ConceptNode) -> dict[str, Array]:
    """One for each layer."""
    from craft_onnx.show.colours import concept_colours

    layers = list(dict.fromkeys(node.layer for node in root.all()))
    return dict(zip(layers, concept_colours(len(layers)), strict=True))

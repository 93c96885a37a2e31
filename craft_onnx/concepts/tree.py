"""The tree of a class, its concepts and their sub-concepts, as nodes to draw."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from craft_onnx.concepts.importance import ranking
from craft_onnx.extras import require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from craft_onnx.concepts.craft import Craft
    from craft_onnx.show.tree import Node


def plot_concept_tree(craft: "Craft", most: int, nb_crops: int) -> "Figure":
    """Draw the tree from the class down, see `Craft.plot_concept_tree`."""
    require("matplotlib", "build")
    from craft_onnx.show.tree import concept_tree

    while craft.parent_ is not None:
        craft = craft.parent_.craft
    model = craft.halves_.model
    names = model.class_names if model else None
    title = f"class {craft.class_id_}" if names is None else f"{names[craft.class_id_]}"
    return concept_tree(title, _nodes(craft, most, nb_crops, craft.colours()))


def _nodes(craft: "Craft", most: int, nb_crops: int, colours: NDArray[np.uint8]) -> "list[Node]":
    """The most important concepts and all that were decomposed, the most important ones first."""
    from craft_onnx.show.tree import Node

    weights = _weights(craft)
    decomposed = {child.parent_.concept for child in craft.children if child.parent_ is not None}
    order = [int(i) for rank, i in enumerate(ranking(weights)) if rank < most or i in decomposed]
    return [
        Node(
            _title(craft, i),
            _note(craft, i),
            float(weights[i]),
            colours[i],
            craft.best_crops(i, nb_crops),
            _children(craft, i, most, nb_crops, colours[i]),
        )
        for i in order
    ]


def _children(craft: "Craft", concept: int, most: int, nb_crops: int, colour: NDArray[np.uint8]) -> "list[Node]":
    """Sub-concepts, in the colour of the concept they are part of."""
    subs = [child for child in craft.children if child.parent_ is not None and child.parent_.concept == concept]
    return [
        node
        for sub in subs
        for node in _nodes(sub, most, nb_crops, np.repeat(colour[None], len(sub.concept_bank_), axis=0))
    ]


def _weights(craft: "Craft") -> NDArray[np.float64]:
    """Importances for what the concepts are part of."""
    return (craft.parent_importance_ or craft.global_importance()).values


def _title(craft: "Craft", concept: int) -> str:
    model, label = craft.halves_.model, craft.labels()[concept]
    name = f"Concept {concept}" if label == str(concept) else f"{concept} {label}"
    return f"{name} at {model.cut.name}" if model else name


def _note(craft: "Craft", concept: int) -> str:
    known, above = craft.importance_, craft.parent_importance_
    parts = [] if known is None else [f"class: {known.values[concept]:.2f}"]
    if craft.parent_ is not None and above is not None:
        parts.insert(0, f"concept {craft.parent_.concept}: {above.values[concept]:.2f}")
    return f"importance for {', '.join(parts)}"

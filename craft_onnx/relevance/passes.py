"""The way of relevance through a model under masks: forward once, back as often as there are conditions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from craft_onnx.errors import CraftError, InputError
from craft_onnx.graph.reverse.pair import gradient_pair
from craft_onnx.graph.reverse.relevance.conditions import MASK, RELEVANCE, Conditions
from craft_onnx.graph.reverse.rules import Rules
from craft_onnx.relevance.layers import Layers
from craft_onnx.runtime.batches import check_rows
from craft_onnx.runtime.model import SplitModel
from craft_onnx.runtime.sessions import Value

Array = NDArray[Any]


@dataclass(frozen=True)
class Way:
    """Where relevance goes, by names of tensors; graphs are made once for each.

    Attributes
    ----------
    start : str
        Where it starts.
    masked, recorded : tuple of str
        Where masks are, and where it is recorded before they are applied.
    exclude_parallel : bool
        Shortcuts around masked tensors are cut.
    """

    start: str
    masked: tuple[str, ...]
    recorded: tuple[str, ...]
    exclude_parallel: bool


@dataclass(frozen=True)
class Forward:
    """What a forward pass left.

    Attributes
    ----------
    activations : dict of str to array
        Tensors that were asked for.
    residuals : dict of str to onnxruntime.OrtValue
        What the way back needs; stays on the device.
    """

    activations: dict[str, Array]
    residuals: dict[str, Value]


class Passes:
    """The two graphs of a way, ready to run.

    Parameters
    ----------
    model : SplitModel
        Where and how they are run.
    layers : Layers
        Of the model.
    rules : Rules
        The composite.
    way : Way
        Where relevance goes.
    kept : sequence of str
        Tensors that the forward pass is asked for beside `way.start`.

    Raises
    ------
    UnsupportedOperator
        If an operator has no rule.
    InputError
        If no relevance leads from the start to the input.
    """

    def __init__(self, model: SplitModel, layers: Layers, rules: Rules, way: Way, kept: Sequence[str]) -> None:
        self.way = way
        self._kept = tuple(dict.fromkeys((way.start, *kept)))
        carry = Conditions(way.masked, way.recorded, way.exclude_parallel)
        graphs = gradient_pair(layers.graph, way.start, None, rules, carry, self._kept[1:])
        self._forward, self._backward = (model.session_of(graph) for graph in graphs)

    def forward(self, x: Array) -> Forward:
        """Run the model on rows x (n, ...); InputError where they do not fit, or are not finite."""
        image, cotangent, masks = self._forward.inputs[0], self._backward.inputs[0].name, self._masks()
        check_rows(x, image)
        if not np.isfinite(x).all():
            raise InputError("The input holds numbers that are not finite.", "Look at the pictures' preprocessing.")
        values = self._forward.run_values({image.name: np.ascontiguousarray(x, image.dtype)})
        needed = [spec.name for spec in self._backward.inputs if spec.name != cotangent and spec.name not in masks]
        residuals = {name: values[name] for name in needed}
        return Forward({name: values.pop(name).numpy() for name in self._kept}, residuals)

    def backward(
        self, forward: Forward, relevance: Array, masks: Mapping[str, Array]
    ) -> tuple[Array, dict[str, Array]]:
        """Carry relevance back under masks.

        Parameters
        ----------
        forward : Forward
            Of the rows.
        relevance : array
            In the shape of the start.
        masks : mapping of str to array
            For every masked tensor what its relevance is multiplied by, of its rank.

        Returns
        -------
        array (n, ...)
            Relevance of the input.
        dict of str to array
            That of the recorded tensors.

        Raises
        ------
        CraftError
            If relevance is not finite.
        """
        start = self._backward.inputs[0]
        given = {f"{MASK}{name}": mask for name, mask in masks.items()}
        feeds = {start.name: np.ascontiguousarray(relevance, start.dtype), **given, **forward.residuals}
        values = self._backward.run_values({spec.name: feeds[spec.name] for spec in self._backward.inputs})
        found = {name: values.pop(name).numpy() for name in list(values)}  # copied and let go one after the other
        at_input = found[self._backward.outputs[0].name]
        if not np.isfinite(at_input).all():
            raise CraftError(
                "The relevance of the input is not finite.", "Take a composite with a larger epsilon or stabilizer."
            )
        return at_input, {name: found[f"{RELEVANCE}{name}"] for name in self.way.recorded}

    def _masks(self) -> set[str]:
        return {f"{MASK}{name}" for name in self.way.masked}

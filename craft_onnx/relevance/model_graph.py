"""Which layer feeds which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from craft_onnx.relevance.layers import Layers
from craft_onnx.runtime.model import SplitModel


@dataclass(frozen=True)
class ModelGraph:
    """Some layers of a model, and how they are connected.

    Attributes
    ----------
    layers : Layers
        All layers of the model.
    layer_names : tuple of str
        Those that are looked at.
    """

    layers: Layers
    layer_names: tuple[str, ...]

    def find_input_layers(self, layer_name: str) -> list[str]:
        """The layers that feed a layer with none of the others between, in the order of `layer_names`.

        Parameters
        ----------
        layer_name : str
            One of the layers, or any other of the model.

        Raises
        ------
        InputError
            If the model has no such layer.
        """
        return self.layers.feeding(list(dict.fromkeys([*self.layer_names, layer_name])))[layer_name]


def trace_model_graph(model: SplitModel, sample: Any = None, layer_names: Sequence[str] = ()) -> ModelGraph:
    """How some layers of a model are connected.

    Parameters
    ----------
    model : SplitModel
        The model.
    sample : object
        Taken for the sake of zennit-crp's signature: nothing is run.
    layer_names : sequence of str
        Names of layers, such as `get_layer_names` gives.

    Raises
    ------
    InputError
        If the model has no such layer.
    """
    layers = Layers(model)
    for name in layer_names:
        layers[name]  # is there
    return ModelGraph(layers, tuple(layer_names))

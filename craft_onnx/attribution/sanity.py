"""The sanity check of an attribution method: its maps must change when the model's weights become random."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from craft_onnx.attribution.attribute import attribute
from craft_onnx.attribution.model import Progress, as_inputs, resolved
from craft_onnx.attribution.similarity import rank_correlation, structural_similarity
from craft_onnx.extras import require
from craft_onnx.runtime.batches import BATCH_SIZE

if TYPE_CHECKING:
    import onnx_ir as ir

    from craft_onnx.runtime.model import SplitModel

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LayerSanity:
    """How alike the maps are before and after a layer's weights became random.

    Attributes
    ----------
    layer : str
        The last layer that became random; in a cascade all those after it are random too.
    rank_correlation : (n,) array
        Spearman's, of each map with the original one; near 0 where the method listens to the weights.
    similarity : (n,) array
        Structural similarity of the two.
    """

    layer: str
    rank_correlation: Floats
    similarity: Floats

    def to_json(self) -> dict[str, Any]:
        """A dictionary of JSON values."""
        return {
            "layer": self.layer,
            "rank_correlation": self.rank_correlation.tolist(),
            "similarity": self.similarity.tolist(),
        }


def sanity_check(
    model: "SplitModel",
    inputs: Any,
    targets: Any = None,
    method: str = "integrated_gradients",
    *,
    layers: Sequence[str] | None = None,
    cascade: bool = True,
    how: str = "shuffle",
    batch_size: int = BATCH_SIZE,
    seed: int = 0,
    progress: Progress | None = None,
    **options: Any,
) -> list[LayerSanity]:
    """Make the weights random layer by layer, from the logits down (Adebayo et al. 2018, arXiv 1810.03292, section 3).

    Needs the extra `build`: the model's ONNX file is changed, cut and loaded again for every layer.

    Parameters
    ----------
    model : SplitModel
        The model.
    inputs : (n, ...) array
        Preprocessed pictures in the model's layout.
    targets : int, (n,) ints or Target, optional
        What to explain; by default the class that the model predicts with its own weights.
    method : str
        Name of the attribution method.
    layers : sequence of str, optional
        In this order; by default all that have weights, from the logits down.
    cascade : bool
        Layers stay random once they are; otherwise one is random at a time.
    how : "shuffle" or "normal"
        The numbers of each tensor in another order, or normal ones of its mean and standard deviation.
    batch_size, seed, **options
        As in `craft_onnx.attribution.attribute.attribute`; the seed is also that of the weights.
    progress : callable, optional
        Told (done, total) layers.

    Returns
    -------
    list of LayerSanity
        One for each layer.

    Raises
    ------
    InputError
        If there is no such layer or method.
    """
    require("onnx_ir", "build")
    from craft_onnx.graph.load import load
    from craft_onnx.graph.randomize import randomized, weighted_layers

    x = as_inputs(inputs)
    settings = {"method": method, "batch_size": batch_size, "seed": seed, **options}
    target = resolved(model, x, targets, batch_size)
    original = attribute(model, x, target, **settings).maps
    graph = load(model.bundle.path("model"))
    names, found = list(weighted_layers(graph) if layers is None else layers), []
    for i, layer in enumerate(names):
        changed = randomized(graph, names[: i + 1] if cascade else [layer], how, seed)  # type: ignore[arg-type]
        maps = _maps_of(changed, model, x, target, settings)
        found.append(LayerSanity(layer, rank_correlation(original, maps), structural_similarity(original, maps)))
        if progress:
            progress(i + 1, len(names))
    return found


def _maps_of(graph: "ir.Model", like: "SplitModel", x: Any, target: Any, settings: dict[str, Any]) -> Any:
    """Maps of a changed model, cut where the original is, from a bundle that is removed again."""
    from craft_onnx.runtime.bundle import create_bundle
    from craft_onnx.runtime.model import load

    with tempfile.TemporaryDirectory() as name:
        bundle = create_bundle(graph, [like.cut.tensor], Path(name) / "bundle")
        return attribute(load(bundle.folder, like.provider), x, target, **settings).maps

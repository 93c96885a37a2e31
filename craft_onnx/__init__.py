"""Explains image classifiers without the framework that trained them."""

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import Any

try:
    __version__ = version("craft-onnx")
except PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "0.0.0"

# Public name -> module. Loaded on first use, so that `import craft_onnx` costs nothing.
_PUBLIC = {
    "load": "craft_onnx.runtime.model",
    "SplitModel": "craft_onnx.runtime.model",
    "Craft": "craft_onnx.concepts.craft",
    "CraftManager": "craft_onnx.concepts.manager",
    "compare_cuts": "craft_onnx.concepts.cuts",
    "compare_crafts": "craft_onnx.concepts.cuts",
    "CutComparison": "craft_onnx.concepts.cut_comparison",
    "XPLIQUE": "craft_onnx.concepts.craft",
    "DisplayImportancesOrder": "craft_onnx.concepts.craft",
    "Cav": "craft_onnx.concepts.cav",
    "Tcav": "craft_onnx.concepts.cav",
    "Explanation": "craft_onnx.concepts.explanation",
    "attribute": "craft_onnx.attribution.attribute",
    "Attribution": "craft_onnx.attribution.attribute",
    "Logit": "craft_onnx.attribution.targets",
    "LinearCombination": "craft_onnx.attribution.targets",
    "Channel": "craft_onnx.attribution.targets",
    "Probability": "craft_onnx.attribution.targets",
    "deletion": "craft_onnx.attribution.fidelity",
    "insertion": "craft_onnx.attribution.fidelity",
    "pointing_game": "craft_onnx.attribution.pointing",
    "sanity_check": "craft_onnx.attribution.sanity",
    "CondAttribution": "craft_onnx.relevance.attribution",
    "ConditionalAttribution": "craft_onnx.relevance.attribution",
    "Concept": "craft_onnx.relevance.concepts",
    "ChannelConcept": "craft_onnx.relevance.concepts",
    "NMFConcept": "craft_onnx.relevance.nmf_concept",
    "AttributionGraph": "craft_onnx.relevance.attribution_graph",
    "trace_model_graph": "craft_onnx.relevance.model_graph",
    "FeatureVisualization": "craft_onnx.relevance.visualization",
    "Maximization": "craft_onnx.relevance.maximization",
    "Statistics": "craft_onnx.relevance.maximization",
    "get_layer_names": "craft_onnx.relevance.layers",
    "conservation": "craft_onnx.relevance.conservation",
    "composite_of": "craft_onnx.graph.reverse.relevance.files",
    "Preprocessing": "craft_onnx.description",
    "Description": "craft_onnx.description",
    "imgify": "craft_onnx.show.imgify",
    "vis_opaque_img": "craft_onnx.show.references",
    "vis_img_heatmap": "craft_onnx.show.references",
    "plot_grid": "craft_onnx.show.relevance",
    "ImageCache": "craft_onnx.relevance.cache",
    "generate_maximal": "craft_onnx.relevance.generation",
    "gradient_rule": "craft_onnx.graph.reverse.gradients",
    "open_pictures": "craft_onnx.runtime.pictures",
    "CraftError": "craft_onnx.errors",
    "InputError": "craft_onnx.errors",
    "CheckFailed": "craft_onnx.errors",
    "UnsupportedOperator": "craft_onnx.errors",
    "ProviderUnavailable": "craft_onnx.errors",
    "MissingExtra": "craft_onnx.errors",
    "NotFittedError": "craft_onnx.errors",
    "CraftWarning": "craft_onnx.errors",
}
__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'craft_onnx' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_PUBLIC]

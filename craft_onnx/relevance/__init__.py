"""Concept Relevance Propagation: which channels and concepts a prediction goes through, and what each stands for.

What users of zennit and zennit-crp import, under the same names, loaded on first use.
"""

import importlib
from typing import Any

_RULES = "craft_onnx.graph.reverse.relevance.rules"
_COMPOSITES = "craft_onnx.graph.reverse.relevance.composites"
_CANONIZERS = "craft_onnx.relevance.canonizers"
_PUBLIC = {
    "CondAttribution": "craft_onnx.relevance.attribution",
    "AttributionGraph": "craft_onnx.relevance.attribution_graph",
    "trace_model_graph": "craft_onnx.relevance.model_graph",
    "Concept": "craft_onnx.relevance.concepts",
    "ChannelConcept": "craft_onnx.relevance.concepts",
    "NMFConcept": "craft_onnx.relevance.nmf_concept",
    "get_layer_names": "craft_onnx.relevance.layers",
    "Maximization": "craft_onnx.relevance.maximization",
    "Statistics": "craft_onnx.relevance.maximization",
    "FeatureVisualization": "craft_onnx.relevance.visualization",
    "ImageCache": "craft_onnx.relevance.cache",
    "generate_maximal": "craft_onnx.relevance.generation",
    "imgify": "craft_onnx.show.imgify",
    "plot_grid": "craft_onnx.show.relevance",
    "vis_img_heatmap": "craft_onnx.show.references",
    "vis_opaque_img": "craft_onnx.show.references",
    **dict.fromkeys(["AlphaBeta", "Epsilon", "Flat", "Gamma", "Norm", "Pass", "WSquare", "ZBox", "ZPlus"], _RULES),
    **dict.fromkeys(
        [
            "AttnLRP",
            "BetaSmooth",
            "DeconvNet",
            "EpsilonAlpha2Beta1",
            "EpsilonAlpha2Beta1Flat",
            "EpsilonGammaBox",
            "EpsilonPlus",
            "EpsilonPlusFlat",
            "ExcitationBackprop",
            "GuidedBackprop",
            "LayerMapComposite",
            "MixedComposite",
            "NameLayerMapComposite",
            "NameMapComposite",
            "SpecialFirstLayerMapComposite",
        ],
        _COMPOSITES,
    ),
    **dict.fromkeys(
        [
            "AttributeCanonizer",
            "CompositeCanonizer",
            "MergeBatchNorm",
            "NamedMergeBatchNorm",
            "ResNetCanonizer",
            "SequentialMergeBatchNorm",
            "VGGCanonizer",
        ],
        _CANONIZERS,
    ),
}
__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'craft_onnx.relevance' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_PUBLIC]

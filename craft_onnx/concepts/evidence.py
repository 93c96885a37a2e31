"""What results say of where they come from."""

import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from craft_onnx.concepts.extractor import ConceptExtractor

PACKAGES = ("craft-onnx", "numpy", "onnxruntime", "onnxruntime-gpu", "scikit-learn", "scipy")


def versions() -> dict[str, str]:
    """Installed versions of this package and of those its numbers depend on."""
    installed = {}
    for name in PACKAGES:
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed


def provenance(craft: "ConceptExtractor") -> dict[str, Any]:
    """Model and concepts by their hashes, cut, provider, seed, versions: JSON values, None where unknown."""
    model = craft.halves_.model
    return {
        "model_sha256": model.manifest.files[model.manifest.graph("model").file] if model else None,
        "source_sha256": model.manifest.source.sha256 if model else None,
        **origin(craft),
        "tensor": model.cut.tensor if model else None,
        "concepts": craft.stored_as_,
        "class_id": craft.class_id_,
        "provider": craft.halves_.provider,
        "random_state": craft.random_state,
        "versions": versions(),
    }


def origin(craft: "ConceptExtractor") -> dict[str, Any]:
    """The cut of concepts, and what sub-concepts are part of: JSON values, None where there is none."""
    model = craft.halves_.model
    return {"cut": model.cut.name if model else None, "parent": _parent(craft)}


def numbers_above(craft: "ConceptExtractor") -> tuple[int, ...]:
    """Numbers of the concepts that lead to sub-concepts, from the class down; none to the concepts of a class."""
    parent = craft.parent_
    return () if parent is None else (*numbers_above(parent.craft), parent.concept)


def summary(craft: "ConceptExtractor") -> dict[str, Any]:
    """Concepts with their importances, the most important one first, and the evidence: JSON values.

    Raises
    ------
    NotFittedError
        Before `estimate_importance`.
    """
    importance = craft.global_importance()
    intervals = importance.intervals
    found = craft.factorisation_
    return {
        "concepts": [
            {
                "concept": int(i),
                "name": craft.labels()[i],
                "importance": float(importance.values[i]),
                "interval": None if intervals is None else intervals[i].tolist(),
                "contribution": float(importance.contributions[i]),
                **_for_parent(craft, int(i)),
            }
            for i in importance.values.argsort()[::-1]
        ],
        "parent": _parent(craft),
        "importances_exact": importance.exact,
        "bias": importance.bias,
        "factoriser": craft.factoriser,
        "relative_error": found.relative_error,
        "kkt_residual": found.kkt_residual,
        "n_iter": found.n_iter,
        "converged": found.converged,
        **craft.evidence_,
        "provenance": provenance(craft),
    }


def _parent(craft: "ConceptExtractor") -> dict[str, Any] | None:
    """What sub-concepts are part of, None for the concepts of a class."""
    parent = craft.parent_
    if parent is None:
        return None
    return {
        "concept": parent.concept,
        "name": parent.craft.labels()[parent.concept],
        "quantile": parent.quantile,
        **origin(parent.craft),
    }


def _for_parent(craft: "ConceptExtractor", concept: int) -> dict[str, Any]:
    """The importance of a sub-concept for its parent, where it is known."""
    known = craft.parent_importance_
    if known is None:
        return {}
    return {
        "parent_importance": float(known.values[concept]),
        "parent_interval": None if known.intervals is None else known.intervals[concept].tolist(),
        "parent_contribution": float(known.contributions[concept]),
    }

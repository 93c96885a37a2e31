"""CRAFT: factorisation, non-negative least squares, Sobol indices, and the fitted explainer; and CAVs beside it."""

from craft_onnx.concepts.cav import Cav, Tcav

__all__ = ["Cav", "Tcav"]

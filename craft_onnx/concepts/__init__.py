"""CRAFT: factorisation, non-negative least squares, Sobol indices, and the fitted explainer."""

"""Fitted results under the names that Xplique's users know."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from craft_onnx.concepts.importance import ranking

Floats = NDArray[np.floating]

# What reproduces Xplique 2.0.2: a penalty that depends on the scale of the activations, scikit-learn's transform, which
# seldom converges, and 32 points of an unscrambled Halton sequence, sampled even where the head is linear.
XPLIQUE: dict[str, Any] = {
    "alpha_W": 1e-2,
    "encoder": "sklearn",
    "normalize": False,
    "tol": 1e-4,
    "max_iter": 200,
    "sampler": "halton",
    "estimator": "jansen",
    "nb_design": 32,
    "exact": False,
}


class DisplayImportancesOrder(Enum):
    """In which order concepts are displayed: by their importance for the class, or for the picture at hand."""

    GLOBAL = 0
    LOCAL = 1


@dataclass(frozen=True)
class Reducer:
    """What turns activations into coefficients, as a fitted `sklearn.decomposition.NMF` does.

    Attributes
    ----------
    components_ : array (k, p)
        Concept bank W.
    transform : callable
        Activations (n, p) to coefficients (n, k).
    """

    components_: Floats
    transform: Callable[[Floats], Floats]


@dataclass(frozen=True)
class Factorization:
    """What `fit` found.

    Attributes
    ----------
    inputs : array (N, ...) or sequence, optional
        The images; None where the concepts were loaded.
    class_id : int
        The class.
    crops : sequence of crops
        Not resized.
    reducer : Reducer
        Encodes activations.
    crops_u : array (n_crops, k)
        Coefficients of the crops.
    concept_bank_w : array (k, p)
        Concept bank.
    coeffs_u : array (N, H', W', k), optional
        Coefficients at all positions of the images, where no crops were cut.
    """

    inputs: Any
    class_id: int
    crops: Any
    reducer: Reducer
    crops_u: Floats
    concept_bank_w: Floats
    coeffs_u: Floats | None = None


@dataclass(frozen=True)
class Sensitivity:
    """The global importances.

    Attributes
    ----------
    importances : array (k,)
        Total Sobol indices.
    """

    importances: Floats

    @property
    def most_important_concepts(self) -> NDArray[np.intp]:
        """Concepts from the most to the least important."""
        return ranking(self.importances)

    @property
    def cmaps(self) -> NDArray[np.uint8]:
        """Colours (k, 3), RGB; colour i belongs to the i-th most important concept."""
        from craft_onnx.show.colours import concept_colours

        return concept_colours(len(self.importances))

"""Concepts over many pictures: which pictures show one most, how often one dominates, and how right the model then is.

Prevalence and reliability are those of Fel et al., A Holistic Approach to Unifying Automatic Concept Extraction and
Concept Importance Estimation (NeurIPS 2023), where they rank the strategies of a model, in the form of Xplique 2's
`reduce_to_prevalence` and `reduce_to_reliability`: a picture belongs to the concept that is most important in it.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from craft_onnx.concepts.extractor import ConceptExtractor
from craft_onnx.concepts.factorisation import pool
from craft_onnx.concepts.halves import as_images
from craft_onnx.concepts.importance import linear_importance, local_importance, ranking
from craft_onnx.errors import InputError
from craft_onnx.runtime.batches import as_array

if TYPE_CHECKING:
    from craft_onnx.concepts.plots import ConceptPlots

Floats = NDArray[np.floating]
Array = NDArray[np.float64]


def dominant_concepts(importances: Floats) -> NDArray[np.intp]:
    """The most important concept (N,) of every picture.

    Parameters
    ----------
    importances : array (N, k) or (N, ..., k)
        Of every concept in every picture; positions are averaged.
    """
    return _per_picture(importances).argmax(axis=-1)


def prevalence(importances: Floats) -> Array:
    """Per concept (k,), the share of the pictures in which it is the most important one; they sum to 1.

    Xplique's `reduce_to_prevalence`.

    Parameters
    ----------
    importances : array (N, k) or (N, ..., k)
        Of every concept in every picture; positions are averaged.
    """
    k = np.shape(importances)[-1]
    return np.bincount(dominant_concepts(importances), minlength=k) / len(importances)


def reliability(importances: Floats, accuracy: Any) -> Array:
    """Per concept (k,), the mean accuracy over the pictures in which it is the most important one.

    Xplique's `reduce_to_reliability`, but for concepts that dominate no picture: nothing is known of them, they are NaN
    here and 0 there.

    Parameters
    ----------
    importances : array (N, k) or (N, ..., k)
        Of every concept in every picture; positions are averaged.
    accuracy : array (N,) of bool or float
        Whether the model is right about each picture, or how right.

    Raises
    ------
    InputError
        If there is not one accuracy a picture.
    """
    right = as_array(accuracy).astype(np.float64)
    if right.shape != (len(importances),):
        raise InputError(
            f"Accuracies of shape {right.shape} do not fit {len(importances)} pictures.", "Give one for each."
        )
    dominant, k = dominant_concepts(importances), np.shape(importances)[-1]
    counts = np.bincount(dominant, minlength=k)
    sums = np.bincount(dominant, weights=right, minlength=k)
    return np.divide(sums, counts, out=np.full(k, np.nan), where=counts > 0)


class PicturesOfConcepts(ConceptExtractor):
    """The concept extractor, and what its concepts are over many pictures."""

    def image_importances(self, images: Any = None, nb_design: int | None = None) -> Array:
        """Local importances (N, k) of every image: total Sobol indices, exact where the head is linear.

        Parameters
        ----------
        images : array (N, ...) or sequence of images, optional
            Preprocessed images, by default those of `fit`.
        nb_design : int, optional
            Points of a design, where the head is sampled; one design an image.

        Raises
        ------
        NotFittedError
            Before `fit`.
        InputError
            Without a second half of the model, or if the images of the fit are not kept.
        """
        self.check_if_fitted()
        points = nb_design or self.points_
        batches = self.coefficient_batches(images)
        return np.stack([self._importances_of_one(u[None], points) for batch in batches for u in batch])

    def prevalence(self, images: Any = None) -> Array:
        """Per concept (k,), the share of the images in which it is the most important one; they sum to 1.

        Parameters
        ----------
        images : array (N, ...) or sequence of images, optional
            Preprocessed images, by default those of `fit`.
        """
        return prevalence(self.image_importances(images))

    def reliability(self, accuracy: Any, images: Any = None) -> Array:
        """Per concept (k,), the mean accuracy over the images in which it is the most important one; NaN if in none.

        Parameters
        ----------
        accuracy : array (N,) of bool or float
            Whether the model is right about each image.
        images : array (N, ...) or sequence of images, optional
            Preprocessed images, by default those of `fit`.

        Raises
        ------
        InputError
            If there is not one accuracy an image.
        """
        return reliability(self.image_importances(images), accuracy)

    def top_images(self, concept: int, nb_images: int = 3, images: Any = None) -> NDArray[np.intp]:
        """Indices (n,) of the images with the largest mean coefficient of a concept, the largest first.

        Parameters
        ----------
        concept : int
            Its number.
        nb_images : int
            How many images; fewer where there are fewer.
        images : array (N, ...) or sequence of images, optional
            Preprocessed images, by default those of `fit`.

        Raises
        ------
        NotFittedError
            Before `fit`.
        InputError
            If there is no such concept, or the images of the fit are not kept.
        """
        self.check_if_fitted()
        k = self.number_of_concepts
        if not 0 <= concept < k:
            raise InputError(f"There is no concept {concept}.", f"Concepts go from 0 to {k - 1}.")
        return ranking(_means(self, images)[:, concept])[:nb_images]

    def _importances_of_one(self, u: Floats, points: int) -> Array:
        u = self.head_.reduced(u)
        if self.exact and self.head_.linear:
            return linear_importance(self.head_, u).values
        sampling = self._sampling(points)
        return local_importance(self.head_, u, sampling.draw(u.shape[-1], 1), sampling).values


def top_image_overlays(
    craft: "ConceptPlots", images: Any, order: NDArray[np.intp], nb_images: int, *style: Any
) -> list[list[NDArray[np.uint8]]]:
    """For every concept of `order`, its top images (H, W, 3) uint8 RGB with its own map on them."""
    images = craft.images_of_fit() if images is None else as_images(images)
    tops = np.argsort(_means(craft, images), axis=0)[::-1][:nb_images]
    return [[craft.overlays(images[int(i)], [concept], *style)[0] for i in tops[:, concept]] for concept in order]


def _means(craft: ConceptExtractor, images: Any) -> Floats:
    """Mean coefficients (N, k) over the positions in the picture."""
    return np.concatenate([pool(craft.tokens_.placed(u)) for u in craft.coefficient_batches(images)])


def _per_picture(importances: Floats) -> Floats:
    values = np.asarray(importances)
    return values.mean(axis=tuple(range(1, values.ndim - 1)))

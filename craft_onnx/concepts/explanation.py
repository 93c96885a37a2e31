"""What the concepts say of one picture."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from craft_onnx.concepts.evidence import provenance
from craft_onnx.concepts.factorisation import relative_error
from craft_onnx.concepts.halves import as_images
from craft_onnx.concepts.importance import Importance, ranking
from craft_onnx.errors import CheckFailed, InputError
from craft_onnx.runtime.batches import as_array, is_array
from craft_onnx.runtime.predictions import probabilities

if TYPE_CHECKING:
    from craft_onnx.concepts.craft import Craft

Floats = NDArray[np.floating]
Pictures = NDArray[np.uint8]
TOP = 5


@dataclass(frozen=True)
class ClassScore:
    """One class in a prediction.

    Attributes
    ----------
    class_id : int
        The class.
    name : str, optional
        Its name, where the model knows it.
    logit, probability : float
        Output of the model, and its softmax over all classes; the two are the same where the model ends in a softmax.
    """

    class_id: int
    name: str | None
    logit: float
    probability: float


@dataclass(frozen=True)
class Explanation:
    """What a model predicts for a picture, and which concepts of a class are in it, where, and with what effect.

    Attributes
    ----------
    explained : ClassScore
        The class whose concepts these are.
    prediction : tuple of ClassScore
        The five most probable classes, the first is the prediction.
    names : tuple of str
        Of the k concepts; their numbers where they have none.
    coefficients : array (k,)
        Mean over the positions.
    maps : array (H', W', k), (T, k) or (k,)
        Coefficients at every position of the activations.
    importance : Importance
        Local importances, intervals where they were sampled, and signed contributions to the logit.
    reconstructed_logit : float
        What the head makes of the reconstruction U W; `explained.logit` less this is what the concepts do not explain.
    reconstruction_error : float
        ||A - U W|| / ||A|| of this picture's activations, of all tokens where there are such.
    size : (int, int), optional
        Height and width of the picture, pixels; None where a preprocessed image was given.
    provenance : dict
        Model and concepts by their hashes, cut, provider, seed, versions.
    """

    explained: ClassScore
    prediction: tuple[ClassScore, ...]
    names: tuple[str, ...]
    coefficients: Floats
    maps: Floats
    importance: Importance
    reconstructed_logit: float
    reconstruction_error: float
    size: tuple[int, int] | None
    provenance: dict[str, Any]

    @property
    def order(self) -> list[int]:
        """Concepts from the most to the least important for this picture."""
        return [int(i) for i in ranking(self.importance.values)]

    def to_json(self) -> dict[str, Any]:
        """A dictionary of JSON values, all of them finite."""
        intervals = self.importance.intervals
        concepts = [
            {
                "concept": i,
                "name": self.names[i],
                "coefficient": float(self.coefficients[i]),
                "importance": float(self.importance.values[i]),
                "interval": None if intervals is None else intervals[i].tolist(),
                "contribution": float(self.importance.contributions[i]),
                "map": self.maps[..., i].tolist(),
            }
            for i in self.order
        ]
        return {
            "explained": vars(self.explained),
            "prediction": [vars(score) for score in self.prediction],
            "concepts": concepts,
            "importances_exact": self.importance.exact,
            "bias": self.importance.bias,
            "reconstructed_logit": self.reconstructed_logit,
            "reconstruction_error": self.reconstruction_error,
            "size": self.size and list(self.size),
            "provenance": self.provenance,
        }


def explain(craft: "Craft", pictures: Any) -> list[Explanation]:
    """Explain pictures; see `Craft.explain`."""
    craft.check_if_fitted()
    known = provenance(craft)
    return [
        explanation
        for images, sizes in _prepared(craft, pictures)
        for explanation in _explain_batch(craft, images, sizes, known)
    ]


def _prepared(craft: "Craft", pictures: Any) -> Iterator[tuple[Floats, list[tuple[int, int] | None]]]:
    """Batches of images with the sizes of the pictures they come from."""
    batch_size = craft.halves_.batch(craft.batch_size)
    if not _are_pictures(pictures):
        images = as_images(pictures)
        for start in range(0, len(images), batch_size):
            stop = min(start + batch_size, len(images))
            yield np.stack([as_array(images[i]) for i in range(start, stop)]), [None] * (stop - start)
        return
    if craft.halves_.model is None:
        raise InputError("Only a bundle knows how pictures become images.", "Give preprocessed float arrays.")
    single = isinstance(pictures, np.ndarray) and pictures.ndim == 3
    pictures = [pictures] if single else pictures
    for start in range(0, len(pictures), batch_size):
        batch = [pictures[i] for i in range(start, min(start + batch_size, len(pictures)))]
        yield craft.halves_.model.preprocess(batch), [(len(picture), len(picture[0])) for picture in batch]


def _are_pictures(pictures: Any) -> bool:
    """Whether these are uint8 pictures rather than preprocessed images."""
    if not is_array(pictures):
        images = as_images(pictures)
        if not len(images):
            raise InputError("There are no pictures.", "Give at least one.")
        pictures = images[0]
    return as_array(pictures).dtype == np.uint8


def _explain_batch(
    craft: "Craft", images: Floats, sizes: Sequence[tuple[int, int] | None], known: dict[str, Any]
) -> Iterator[Explanation]:
    activations = next(craft.halves_.activations([images], craft.layout_))
    logits = craft.halves_.logits(activations, craft.layout_)
    if not np.isfinite(logits).all():
        raise CheckFailed(f"The model's output holds {logits[~np.isfinite(logits)][0]}.", "Check model and pictures.")
    everywhere = craft._encode(activations)
    maps = craft.tokens_.placed(everywhere)
    for a, u, placed, scores, size in zip(activations, everywhere, maps, logits, sizes, strict=True):
        importance = craft.importance_of(u[None])
        rows, coefficients = a.reshape(-1, a.shape[-1]), u.reshape(-1, u.shape[-1])
        prediction = _prediction(scores, craft)
        yield Explanation(
            explained=prediction[craft.class_id_],
            prediction=tuple(sorted(prediction, key=lambda score: -score.logit)[:TOP]),
            names=tuple(craft.labels()),
            coefficients=placed.reshape(-1, u.shape[-1]).mean(axis=0),
            maps=placed,
            importance=importance,
            reconstructed_logit=float(craft.head_(craft.head_.reduced(u[None]))[0]),
            reconstruction_error=relative_error(rows, coefficients, craft.concept_bank_),
            size=size,
            provenance=known,
        )


def _prediction(logits: Floats, craft: "Craft") -> list[ClassScore]:
    """Every class with its logit and probability."""
    names = (craft.halves_.model and craft.halves_.model.class_names) or [None] * len(logits)
    return [
        ClassScore(i, name, float(logit), float(probability))
        for i, (name, logit, probability) in enumerate(zip(names, logits, probabilities(logits[None])[0], strict=True))
    ]

"""CraftManager: one Craft per class, each on the images that the model predicts as that class."""

import warnings
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from craft_onnx.concepts.craft import Craft
from craft_onnx.concepts.extractor import _NB_DESIGN
from craft_onnx.concepts.halves import Halves, as_images, batches_of, find_halves
from craft_onnx.concepts.selection import Selection
from craft_onnx.concepts.views import DisplayImportancesOrder
from craft_onnx.errors import CraftWarning, InputError, NotFittedError
from craft_onnx.runtime.batches import as_array

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Ints = NDArray[np.int64]
GLOBAL = DisplayImportancesOrder.GLOBAL
MOST_NAMED = 5  # classes in an error


class CraftManager:
    """Concepts of several classes of a model f = h(g(x)).

    Parameters
    ----------
    input_to_latent_model, latent_to_logit_model : SplitModel, Bundle, path or callable
        As in `Craft`; the second is None where the first has both halves.
    inputs : array (N, C, H, W) or (N, H, W, C), or sequence of images
        Preprocessed images of all classes.
    labels : array (N,) of int, or None
        Class of every image. They say which classes there are, where `list_of_class_of_interest` does not, and which
        predictions are right (`reliability`); concepts are those of images *predicted* as a class.
    list_of_class_of_interest : sequence of int, optional
        Classes to explain; by default all labels, in ascending order.
    number_of_concepts, batch_size, patch_size, device : optional
        As in `Craft`.
    skip : bool
        Leave out classes that cannot be fitted, with a CraftWarning each, in place of an error.
    **settings
        Other settings of `Craft`, such as `random_state` or `crops`.

    Attributes
    ----------
    craft_instances : dict of int to Craft
        One a class.
    predictions_ : array (N,)
        Class predicted for every image, after `fit`.
    fitted_classes_ : list of int
        Classes that were fitted, after `fit`.

    Raises
    ------
    InputError
        If there are no classes of interest, or the labels do not fit the images.
    """

    predictions_: Ints
    fitted_classes_: list[int]

    def __init__(
        self,
        input_to_latent_model: Any,
        latent_to_logit_model: Any,
        inputs: Any,
        labels: Any,
        list_of_class_of_interest: Any = None,
        number_of_concepts: int = 20,
        batch_size: int = 64,
        patch_size: int = 64,
        device: Any = None,
        *,
        skip: bool = False,
        **settings: Any,
    ) -> None:
        self.input_to_latent_model = input_to_latent_model
        self.latent_to_logit_model = latent_to_logit_model
        self.inputs = as_images(inputs)
        self.labels = None if labels is None else _checked_labels(labels, len(self.inputs))
        self.list_of_class_of_interest = _classes_of_interest(list_of_class_of_interest, self.labels)
        self.skip = skip
        sizes = (number_of_concepts, batch_size, patch_size, device)
        self.craft_instances = {
            class_id: Craft(input_to_latent_model, latent_to_logit_model, *sizes, **settings)
            for class_id in self.list_of_class_of_interest
        }

    @classmethod
    def from_model(
        cls,
        model: Any,
        inputs: Any,
        labels: Any,
        list_of_class_of_interest: Any = None,
        number_of_concepts: int = 20,
        batch_size: int = 64,
        patch_size: int = 64,
        **settings: Any,
    ) -> "CraftManager":
        """A manager of a model that has both halves.

        Parameters
        ----------
        model : SplitModel, Bundle or path
            The model, or the folder of its bundle.
        inputs, labels, list_of_class_of_interest, number_of_concepts, batch_size, patch_size, **settings
            As in `CraftManager`.
        """
        sizes = (number_of_concepts, batch_size, patch_size)
        return cls(model, None, inputs, labels, list_of_class_of_interest, *sizes, **settings)

    @cached_property
    def halves_(self) -> Halves:
        """The model's halves, loaded once for all classes."""
        craft = next(iter(self.craft_instances.values()))
        return find_halves(self.input_to_latent_model, self.latent_to_logit_model, craft.device, craft.data_format)

    def compute_predictions(self) -> Ints:
        """Classes (N,) that the model predicts for the images, batch by batch.

        Raises
        ------
        InputError
            If there are no images, no second half of the model, or its output is not finite rows of logits.
        """
        halves = self.halves_
        halves.layout_of(self.inputs)
        batch = halves.batch(next(iter(self.craft_instances.values())).batch_size)
        return np.concatenate([_predicted(halves, images) for images in batches_of(self.inputs, batch)])

    def fit(self, nb_samples_per_class: int | None = None, verbose: bool = False) -> "CraftManager":
        """Find the concepts of every class in the first images that are predicted as that class.

        Parameters
        ----------
        nb_samples_per_class : int, optional
            How many images of each class, at most; by default all.
        verbose : bool
            Print the class at hand.

        Returns
        -------
        CraftManager
            Itself.

        Raises
        ------
        InputError
            If a class is never predicted, or cannot be fitted for another reason; with `skip`, if no class can.
        """
        if nb_samples_per_class is not None and nb_samples_per_class < 1:
            raise InputError(f"nb_samples_per_class is {nb_samples_per_class}.", "Give at least 1, or None for all.")
        self.predictions_ = self.compute_predictions()
        self.fitted_classes_ = []
        for class_id in self.craft_instances:
            _say(verbose, f"Fitting CRAFT instance for class {class_id}")
            try:
                self._fit_class(class_id, nb_samples_per_class)
            except InputError as error:
                if not self.skip:
                    raise
                warnings.warn(f"Class {class_id} is left out. {error}", CraftWarning, stacklevel=2)
        if not self.fitted_classes_:
            raise InputError("None of the classes could be fitted.", "The warnings say why.")
        return self

    def estimate_importance(self, nb_design: int = _NB_DESIGN, verbose: bool = False) -> dict[int, NDArray[np.float64]]:
        """Total Sobol indices of the concepts of every class for its logit.

        Parameters
        ----------
        nb_design : int
            Points of a design, where the head is sampled.
        verbose : bool
            Print the class at hand.

        Returns
        -------
        dict of int to array (k,)
            Global importances, by class.

        Raises
        ------
        NotFittedError
            Before `fit`.
        """
        importances = {}
        for class_id, craft in self.fitted():
            _say(verbose, f"Estimating importances for class {class_id}")
            importances[class_id] = craft.estimate_importance(nb_design=nb_design)
        return importances

    def fitted(self) -> Iterator[tuple[int, Craft]]:
        """Classes that were fitted, and their Craft; NotFittedError before `fit`."""
        if not hasattr(self, "fitted_classes_"):
            raise NotFittedError("The concepts have not been fitted yet.", "Call fit() first.")
        return ((class_id, self.craft_instances[class_id]) for class_id in self.fitted_classes_)

    def of(self, class_id: int) -> Craft:
        """The fitted Craft of a class.

        Raises
        ------
        NotFittedError
            Before `fit`.
        InputError
            If it is no class of interest, or was left out.
        """
        found = dict(self.fitted())
        if class_id not in found:
            why = "was left out when fitting" if class_id in self.craft_instances else "is no class of interest"
            raise InputError(f"Class {class_id} {why}.", f"Take one of {', '.join(map(str, found))}.")
        return found[class_id]

    def reliability(self, class_id: int) -> NDArray[np.float64]:
        """Per concept (k,), the share of right predictions among the images it dominates; see `Craft.reliability`.

        Raises
        ------
        NotFittedError
            Before `fit`.
        InputError
            Without labels, or if the class was not fitted.
        """
        craft = self.of(class_id)
        if self.labels is None:
            raise InputError("There are no labels to say which predictions are right.", "Give labels.")
        return craft.reliability(self.labels[craft.images_.indices] == class_id)

    def plot_concepts_importances(
        self, class_id: int, nb_most_important_concepts: int = 5, verbose: bool = False
    ) -> "Figure":
        """Bar chart of the importances of a class; see `Craft.plot_concepts_importances`."""
        return self.of(class_id).plot_concepts_importances(
            nb_most_important_concepts=nb_most_important_concepts, verbose=verbose
        )

    def plot_concepts_crops(
        self, class_id: int, nb_crops: int = 10, nb_most_important_concepts: int | None = None
    ) -> "Figure":
        """The best crops of every concept of a class; see `Craft.plot_concepts_crops`."""
        return self.of(class_id).plot_concepts_crops(nb_crops, nb_most_important_concepts)

    def plot_image_concepts(
        self,
        img: Any,
        class_id: int,
        display_importance_order: DisplayImportancesOrder = GLOBAL,
        nb_most_important_concepts: int = 5,
        filter_percentile: int = 90,
        clip_percentile: float | None = 10,
        alpha: float = 0.65,
        filepath: Any = None,
        **imshow: Any,
    ) -> "Figure":
        """Everything about one image and the concepts of a class; see `Craft.plot_image_concepts`."""
        return self.of(class_id).plot_image_concepts(
            img,
            display_importance_order,
            nb_most_important_concepts,
            filter_percentile,
            clip_percentile,
            alpha,
            filepath,
            **imshow,
        )

    def _fit_class(self, class_id: int, most: int | None) -> None:
        indices = np.flatnonzero(self.predictions_ == class_id)[:most]
        if not len(indices):
            raise InputError(
                f"Class {class_id} is predicted for none of {_counted(self.predictions_)}.",
                "Give images of it, leave the class out, or set skip=True.",
            )
        craft = self.craft_instances[class_id]
        craft.halves_ = self.halves_
        craft.fit(Selection(self.inputs, indices), class_id=class_id)
        self.fitted_classes_.append(class_id)


def _predicted(halves: Halves, images: NDArray[Any]) -> Ints:
    """Classes (n,) of one batch."""
    if halves.h is None:
        raise InputError(
            "There is no second half of the model, predictions need one.",
            "Give latent_to_logit_model, or a bundle in place of both.",
        )
    logits = as_array(halves.h(as_array(halves.g(images))))
    if logits.ndim != 2 or not np.isfinite(logits).all():
        raise InputError(
            f"The model's output of shape {logits.shape} is no finite row of logits for each image.",
            "Look at the second half of the model, and at the images.",
        )
    return logits.argmax(axis=1)


def _checked_labels(labels: Any, count: int) -> NDArray[Any]:
    """Labels (count,); a column (count, 1) is taken for them."""
    found = as_array(labels)
    if found.shape == (count, 1):
        found = found[:, 0]
    if found.shape != (count,):
        raise InputError(
            f"Labels of shape {found.shape} do not fit {count} images.", "Give the number of the class of every image."
        )
    return found


def _classes_of_interest(classes: Any, labels: NDArray[Any] | None) -> list[int]:
    if classes is None and labels is None:
        raise InputError("There are neither labels nor classes of interest.", "Give list_of_class_of_interest.")
    found = np.unique(labels) if classes is None else np.atleast_1d(as_array(classes))  # type: ignore[arg-type] # one of both is there
    if not len(found):
        raise InputError("There are no classes of interest.", "Name at least one.")
    return list(dict.fromkeys(int(class_id) for class_id in found))


def _counted(predictions: Ints) -> str:
    """How many images are predicted what, the most frequent class first."""
    counts = Counter(predictions.tolist()).most_common()
    named = ", ".join(f"{class_id} for {count}" for class_id, count in counts[:MOST_NAMED])
    more = f" and {len(counts) - MOST_NAMED} more classes" if len(counts) > MOST_NAMED else ""
    return f"{len(predictions)} images (predicted: class {named}{more})"


def _say(verbose: bool, text: str) -> None:
    if verbose:
        print(text)

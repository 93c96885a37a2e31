"""Craft: the concepts a model uses for a class, how much each matters, and where each is (Fel et al., CVPR 2023)."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from craft_onnx.concepts.evaluation import EvaluatedConcepts
from craft_onnx.concepts.halves import as_images, guess_layout
from craft_onnx.concepts.importance import ranking
from craft_onnx.concepts.pictures import displayed
from craft_onnx.concepts.presence import PicturesOfConcepts, top_image_overlays
from craft_onnx.concepts.views import XPLIQUE, DisplayImportancesOrder
from craft_onnx.errors import InputError
from craft_onnx.extras import require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from craft_onnx.concepts.attributions import ConceptAttribution
    from craft_onnx.concepts.explanation import Explanation
    from craft_onnx.concepts.head import ConceptHead
    from craft_onnx.runtime.bundle import Bundle
    from craft_onnx.runtime.segment import Segment

__all__ = ["XPLIQUE", "Craft", "DisplayImportancesOrder"]

Floats = NDArray[np.floating]
Pictures = NDArray[np.uint8]
CROPS_BESIDE_A_PICTURE = 6

GLOBAL = DisplayImportancesOrder.GLOBAL


class Craft(EvaluatedConcepts, PicturesOfConcepts):
    """Concept extraction for one class of a model f = h(g(x)).

    Parameters
    ----------
    input_to_latent_model : SplitModel, Bundle, path or callable
        A model with both halves, a bundle, an ONNX file of g, or g itself: a function of arrays, or a PyTorch module,
        which is run in evaluation mode where its parameters are. Its activations are not negative.
    latent_to_logit_model : path or callable, optional
        h, beside such a g.
    number_of_concepts : int
        k.
    batch_size : int
        Images or crops in one run.
    patch_size : int
        Side of the crops, pixels.
    device : str, optional
        Where models loaded here run: "cpu" (default), "cuda", "cuda:1".
    random_state : int, optional
        Seed of everything random: crops, factorisation, designs.
    crops : "grid", "random" or None
        Crops on a grid of stride int(0.8 * patch_size), or `crops_per_image` anywhere (as the paper has them). None
        factorises the activations of all positions of the whole images; patches around them stand for the crops.
    crops_per_image : int
        Number of random crops.
    interpolation : "bilinear" or "bicubic"
        How crops are resized to the model's input, as CraftTorch and CraftTf do.
    alpha_W : float
        Weight of scikit-learn's penalty in the factorisation; the paper has none.
    encoder : "nnls" or "sklearn"
        Coefficients by exact non-negative least squares, or by scikit-learn's `NMF.transform`.
    normalize : bool
        Factorise free of the activations' scale, and give the rows of W unit length.
    tol, max_iter : float, int
        When the factorisation stops.
    sampler, estimator : str
        How importances are sampled, see `craft_onnx.attribution.total_indices`.
    nb_design : int
        Points of a design where `estimate_importance` is not told.
    exact : bool
        Take the closed form of the importances where the head is linear.
    data_format : str, optional
        "NCHW" or "NHWC" (or "channels_first", "channels_last"): axes of images and feature maps where the model does
        not say and the images do not show.

    Attributes
    ----------
    crops_ : Crops
        The crops of the images, cut when asked for.
    crops_u_ : array (n_crops, k)
        Their coefficients.
    concept_bank_ : array (k, p)
        W.
    factorisation_ : Factorisation
        W, U and the evidence: relative error, KKT residual, iterations, convergence.
    importance_ : Importance or None
        Global importances with intervals and signed contributions, after `estimate_importance()`.
    parent_ : Parent or None
        Of sub-concepts, the `craft` and the `concept` that was decomposed, and the `quantile` of its crops.
    parent_importance_ : Importance or None
        Of sub-concepts for that concept, after `estimate_parent_importance()`.
    names_ : dict of int to str
        Names of concepts.
    class_id_, images_ : int, sequence
        What it was fitted to.
    evidence_ : dict
        Numbers of images and crops, provider and versions of the fit.
    stored_as_ : str or None
        Folder in the bundle, once saved or loaded.

    The plots return a matplotlib figure, and raise NotFittedError before `estimate_importance`. Colour i belongs to the
    i-th most important concept of the class in all of them. Images are shown by the inverse of the preprocessing, or
    scaled to 0..1 where that is not known.
    """

    @classmethod
    def load(
        cls,
        bundle: "str | Path | Bundle",
        class_id: int | None = None,
        cut: str | None = None,
        providers: Any = "cpu",
        threads: int | None = None,
        *,
        parent: Any = None,
    ) -> "Craft":
        """Concepts of a class from a bundle; needs no more than running the model does.

        Parameters
        ----------
        bundle : path or Bundle
            Where `save` stored them.
        class_id : int, optional
            Their class; may be left out where the bundle has concepts of one class only.
        cut : str, optional
            Name of their cut, by default the first one that has concepts of the class.
        providers : str or sequence of str
            Where to run the model.
        threads : int, optional
            Threads inside an operator on the CPU; all cores by default.
        parent : int or sequence, optional
            For sub-concepts, the number of the concept that was decomposed; further down those from the class on, such
            as (3, 0). The name of a cut may stand before a number: ("layer4", 3).

        Raises
        ------
        InputError
            If the bundle has no such concepts (it says which it has), or they are damaged.
        """
        from craft_onnx.concepts.store import load_concepts

        return load_concepts(cls, bundle, class_id, cut, parent, providers, threads)

    def save(self, bundle: "str | Path | Bundle | None" = None) -> None:
        """Store the concepts in the bundle they were fitted on; those of the same class and cut are replaced.

        Sub-concepts are stored below their parent, which is stored first where it is not yet. Where other concepts take
        a parent's place, its sub-concepts go with it.

        Parameters
        ----------
        bundle : path or Bundle, optional
            By default the one the model came from.

        Raises
        ------
        NotFittedError
            Before `fit` or `estimate_importance`.
        InputError
            If the bundle has another model, or cannot be written.
        """
        from craft_onnx.concepts.store import save_concepts

        save_concepts(self, bundle)

    def decompose(
        self,
        concept: int,
        at: Any,
        number_of_concepts: int = 5,
        quantile: float = 0.9,
        *,
        images: Any = None,
        segment: Any = None,
    ) -> "Craft":
        """Find what a concept is made of: the concepts of an earlier layer in the crops where it is strongest.

        Parameters
        ----------
        concept : int
            Number of the concept.
        at : str or callable
            Name of an earlier cut of the bundle (of an ONNX file any earlier layer); or, as a function, images to
            activations there.
        number_of_concepts : int
            How many sub-concepts to find.
        quantile : float
            The crops whose coefficient is at or above this quantile (`numpy.quantile`, linear) are factorised.
        images : array (N, ...) or sequence of images, optional
            Preprocessed; needed where the concepts were loaded, whose crops are not stored. By default those of `fit`.
        segment : callable, optional
            Beside a callable `at`: from the activations there to those of these concepts; importances need it.

        Returns
        -------
        Craft
            Fitted to those crops, with this one as its parent; it can be decomposed again.

        Raises
        ------
        NotFittedError
            Before `fit`.
        InputError
            If there is no such concept or cut, the cut is no earlier one, or there are fewer crops than concepts.
        """
        from craft_onnx.concepts.recursion import decompose

        return decompose(self, concept, at, number_of_concepts, quantile, images, segment)

    @property
    def children(self) -> "list[Craft]":
        """The sub-concepts of those concepts that were decomposed, a Craft each."""
        from craft_onnx.concepts.recursion import children_of

        self.check_if_fitted()
        return children_of(self)

    def estimate_parent_importance(
        self, inputs: Any = None, nb_design: int | None = None, *, tol: float | None = None
    ) -> NDArray[np.float64]:
        """Total Sobol indices of sub-concepts for the coefficient of the concept they are part of.

        That coefficient is the least squares solution for the activations which the reconstruction from sub-concepts
        leads to at the parent's layer, averaged over positions.

        Parameters
        ----------
        inputs : array (N, ...) or sequence of images, optional
            Images to compute them on; by default the crops of the fit, for the importances that are kept in
            `parent_importance_`.
        nb_design : int, optional
            Points of a design, where they are sampled; by default that of the constructor.
        tol : float, optional
            As in `estimate_importance`.

        Returns
        -------
        array (k,)
            Mean over the images.

        Raises
        ------
        NotFittedError
            Before `fit`.
        InputError
            If these concepts have no parent, or what lies between the layers is not known.
        """
        from craft_onnx.concepts.recursion import estimate_parent_importance

        self.check_if_fitted()
        importance = estimate_parent_importance(self, inputs, nb_design, tol)
        if inputs is None:
            self.parent_importance_ = importance
        return importance.values

    @cached_property
    def segment_(self) -> "Segment":
        """What lies between the layer of sub-concepts and that of their parent."""
        from craft_onnx.concepts.recursion import segment_of

        return segment_of(self)

    @cached_property
    def parent_head_(self) -> "ConceptHead":
        """The coefficient of the parent concept as a function of those of its sub-concepts."""
        from craft_onnx.concepts.recursion import parent_head

        return parent_head(self)

    def explain(self, pictures: Any) -> "list[Explanation]":
        """Explain pictures: what is predicted, by which concepts, and where they are.

        Parameters
        ----------
        pictures : uint8 (H, W, 3), sequence of such, or float array (N, ...)
            RGB pictures of any size, or preprocessed images.

        Returns
        -------
        list of Explanation
            One per picture.
        """
        from craft_onnx.concepts.explanation import explain

        return explain(self, pictures)

    def attribute(
        self,
        images: Any,
        concepts: int | Sequence[int] | None = None,
        method: str = "integrated_gradients",
        **options: Any,
    ) -> "ConceptAttribution":
        """Which pixels the concepts lie on, by any attribution method (ingredient 3 of the paper).

        The target of a concept is the mean of `transform(images)[..., k]` over the positions. White-box methods go
        through the closed form of its derivative and the gradient graph of g, all concepts on one forward pass where
        it fits in a batch; black-box methods solve for the coefficients again, once for all concepts.

        Parameters
        ----------
        images : array (N, ...) or sequence of images
            Preprocessed.
        concepts : int or sequence of int, optional
            Which concepts, by default all.
        method : str
            One of `craft_onnx.attribution.registry.methods()`.
        **options
            Of the method; and `seed`, `batch_size` (by default that of the constructor) and `progress`.

        Returns
        -------
        ConceptAttribution
            `.maps` (N, K, H, W), `.values` (N, K), `.residual`, `.provider`, `.concepts`.

        Raises
        ------
        NotFittedError
            Before `fit`.
        InputError
            If there is no such concept, method or option, or the model has no gradients for the method.
        """
        from craft_onnx.concepts.attributions import attribute_concepts

        return attribute_concepts(self, images, concepts, method, **options)

    def summary(self) -> dict[str, Any]:
        """Concepts, importances and evidence, as a dictionary of JSON values."""
        from craft_onnx.concepts.evidence import summary

        return summary(self)

    def plot_concepts_importances(
        self,
        importances: Floats | None = None,
        display_importance_order: DisplayImportancesOrder = GLOBAL,
        nb_most_important_concepts: int | None = None,
        verbose: bool = False,
    ) -> "Figure":
        """Bar chart of the importances; of the global ones with intervals and signed contributions too.

        Parameters
        ----------
        importances : array (k,), optional
            Importances of `estimate_importance(images)`; by default the global ones.
        display_importance_order : DisplayImportancesOrder
            What the title says: "Global" or "Local".
        nb_most_important_concepts : int, optional
            How many to show, ordered by importance; by default all, unordered.
        verbose : bool
            Print the values.
        """
        known = self.global_importance()
        values = known.values if importances is None else np.asarray(importances)
        order = ranking(values)[:nb_most_important_concepts]
        self._print(order if verbose else [], values)
        return _figures().importances(
            values,
            self.colours(),
            order=None if nb_most_important_concepts is None else order.tolist(),
            names=self.labels(),
            intervals=known.intervals if importances is None and not known.exact else None,
            contributions=known.contributions if importances is None else None,
            title=_title(display_importance_order),
        )

    def plot_concepts_crops(
        self, nb_crops: int = 10, nb_most_important_concepts: int | None = None, verbose: bool = False
    ) -> "Figure":
        """The best crops of every concept, the most important concept first.

        Parameters
        ----------
        nb_crops : int
            Crops per concept; fewer where there are fewer.
        nb_most_important_concepts : int, optional
            How many concepts to show, by default all.
        verbose : bool
            Print the importances.
        """
        values = self.global_importance().values
        order = ranking(values)[:nb_most_important_concepts]
        self._print(order if verbose else [], values)
        titles = [self._title_of(i) for i in order]
        crops = [self.best_crops(i, nb_crops) for i in order]
        return _figures().concept_crops(crops, self.colours()[order], titles)

    def plot_top_images(
        self,
        images: Any = None,
        nb_images: int = 3,
        nb_most_important_concepts: int | None = None,
        filter_percentile: int = 80,
        clip_percentile: float | None = 5,
        alpha: float = 0.65,
    ) -> "Figure":
        """The images that show each concept most, with its map on them, the most important concept first.

        Parameters
        ----------
        images : array (N, ...) or sequence of images, optional
            Preprocessed images, by default those of `fit`.
        nb_images : int
            Images per concept, see `top_images`.
        nb_most_important_concepts : int, optional
            How many concepts to show, by default all.
        filter_percentile, clip_percentile, alpha
            As in `plot_concept_attribution_map`.
        """
        order = ranking(self.global_importance().values)[:nb_most_important_concepts]
        shown = top_image_overlays(self, images, order, nb_images, filter_percentile, clip_percentile, alpha)
        titles = [self._title_of(i) for i in order]
        return _figures().concept_crops(shown, self.colours()[order], titles, cols=len(shown[0]), img_size=2.0)

    def plot_concept_attribution_legend(self, nb_most_important_concepts: int = 6, border_width: int = 5) -> "Figure":
        """The best crop of each of the most important concepts, framed in the concept's colour.

        Parameters
        ----------
        nb_most_important_concepts : int
            How many concepts to show.
        border_width : int
            Of the frame, pixels of the crop.
        """
        from craft_onnx.show.overlay import framed

        order = ranking(self.global_importance().values)[:nb_most_important_concepts]
        colours = self.colours()[order]
        crops = [self.best_crops(i, 1)[0] for i in order]
        framed_crops = [framed(crop, colour, border_width) for crop, colour in zip(crops, colours, strict=True)]
        return _figures().concept_legend(framed_crops, colours, [self.labels()[i] for i in order])

    def plot_concept_attribution_map(
        self,
        image: Any,
        most_important_concepts: Any,
        nb_most_important_concepts: int = 5,
        filter_percentile: int = 90,
        clip_percentile: float | None = 10,
        alpha: float = 0.65,
        **imshow: Any,
    ) -> "Figure":
        """Where the concepts are in one image, each in its colour, the most important one on top.

        Parameters
        ----------
        image : array (C, H, W) or (H, W, C)
            Preprocessed.
        most_important_concepts : sequence of int
            Concepts to show, the most important one first.
        nb_most_important_concepts : int
            How many of them.
        filter_percentile : float
            Positions below this percentile of a concept's map are left out.
        clip_percentile : float, optional
            The rest is clipped to the percentiles (clip, 100 - clip).
        alpha : float
            Opacity.
        **imshow
            Properties of the matplotlib image, such as `interpolation`.
        """
        order = np.asarray(most_important_concepts)[:nb_most_important_concepts]
        overlays = self.overlays(image, order, filter_percentile, clip_percentile, alpha)
        return _with_properties(_figures().concept_maps(overlays, cols=1, img_size=4.0), imshow)

    def plot_concept_attribution_maps(
        self,
        images: Any,
        importances: Floats | None = None,
        nb_most_important_concepts: int = 5,
        filter_percentile: int = 90,
        clip_percentile: float | None = 10.0,
        alpha: float = 0.65,
        cols: int = 5,
        img_size: float = 2.0,
        **imshow: Any,
    ) -> "Figure":
        """Where the concepts are in several images; as `plot_concept_attribution_map`.

        Parameters
        ----------
        images : array (N, ...) or sequence of images
            Preprocessed.
        importances : array (k,), optional
            Which concepts are most important, by default the global importances.
        nb_most_important_concepts : int
            How many concepts to show.
        filter_percentile, clip_percentile, alpha, **imshow
            As in `plot_concept_attribution_map`.
        cols : int
            Images in a row.
        img_size : float
            Width of an image, inches.
        """
        values = self.global_importance().values if importances is None else np.asarray(importances)
        order = ranking(values)[:nb_most_important_concepts]
        overlays = self.overlays(images, order, filter_percentile, clip_percentile, alpha)
        return _with_properties(_figures().concept_maps(overlays, cols=cols, img_size=img_size), imshow)

    def plot_image_concepts(
        self,
        img: Any,
        display_importance_order: DisplayImportancesOrder = GLOBAL,
        nb_most_important_concepts: int = 5,
        filter_percentile: int = 90,
        clip_percentile: float | None = 10,
        alpha: float = 0.65,
        filepath: Any = None,
        **imshow: Any,
    ) -> "Figure":
        """Everything about one image: its concept map, the best crops of its concepts, their importances.

        Parameters
        ----------
        img : array (C, H, W) or (H, W, C)
            Preprocessed.
        display_importance_order : DisplayImportancesOrder
            GLOBAL orders by the importances for the class, LOCAL by those for this image.
        nb_most_important_concepts, filter_percentile, clip_percentile, alpha, **imshow
            As in `plot_concept_attribution_map`.
        filepath : path, optional
            Where to save the figure.
        """
        known = self.global_importance()
        local = display_importance_order is DisplayImportancesOrder.LOCAL
        shown = self.importance_of(self.transform(img)) if local else known
        order = ranking(shown.values)[:nb_most_important_concepts]
        figure = _figures().image_concepts(
            self.overlays(img, order, filter_percentile, clip_percentile, alpha)[0],
            [self.best_crops(i, CROPS_BESIDE_A_PICTURE) for i in order],
            order.tolist(),
            shown.values,
            self.colours(),
            self.labels(),
            None if shown.exact else shown.intervals,
            _title(display_importance_order),
        )
        _with_properties(figure, imshow)
        if filepath is not None:
            figure.savefig(filepath)
        return figure

    def plot_concept_tree(self, nb_most_important_concepts: int = 5, nb_crops: int = 4) -> "Figure":
        """The class, its concepts and what was found in those that were decomposed, with their best crops.

        A branch is as wide as the concept it leads to is important for what it comes from.

        Parameters
        ----------
        nb_most_important_concepts : int
            Concepts to show of each Craft; those that were decomposed are shown besides.
        nb_crops : int
            Crops per concept; fewer where there are fewer.
        """
        from craft_onnx.concepts.tree import plot_concept_tree

        self.check_if_fitted()
        return plot_concept_tree(self, nb_most_important_concepts, nb_crops)

    @staticmethod
    def compute_subplots_layout_parameters(
        images: Any, cols: int = 5, img_size: float = 2.0, margin: float = 0.3, spacing: float = 0.3
    ) -> tuple[dict[str, float], int, float, float]:
        """How to lay out images in rows without distorting them.

        Parameters
        ----------
        images : array (N, C, H, W) or (N, H, W, C)
            The images.
        cols : int
            Images in a row.
        img_size, margin, spacing : float
            Width of an image, space around and between images, inches.

        Returns
        -------
        layout_parameters : dict of str to float
            For `Figure.subplots_adjust`.
        rows : int
            Rows needed.
        figwidth, figheight : float
            Of the figure, inches.
        """
        shape = np.shape(images)
        height, width = shape[2:4] if guess_layout(shape[1:]) == "NCHW" else shape[1:3]
        layout = _figures().subplots_layout(shape[0], height, width, cols, img_size, margin, spacing)
        return layout.adjust, layout.rows, layout.figwidth, layout.figheight

    def overlays(
        self,
        images: Any,
        order: Any,
        filter_percentile: float = 90,
        clip_percentile: float | None = 10,
        alpha: float = 0.65,
    ) -> list[Pictures]:
        """Images (H, W, 3) uint8 RGB with the maps of the concepts in `order` on them."""
        from craft_onnx.show.overlay import concept_overlay

        images = as_images(images)
        maps = self.transform(images)
        if maps.ndim != 4:
            raise InputError(
                f"Coefficients of shape {maps.shape} have no place in the picture.", "Cut the model at a feature map."
            )
        colours, full = self.colours(), self.typical_coefficients()
        return [
            concept_overlay(
                displayed(np.asarray(images[i]), self.layout_, self.halves_.preprocessing),
                maps[i], order, colours, filter_percentile, clip_percentile, alpha, full,
            )
            for i in range(len(maps))
        ]  # fmt: skip  # arguments in the order of the signature

    def _title_of(self, concept: int) -> str:
        label = self.labels()[concept]
        return f"Concept {concept}" if label == str(concept) else f"{concept} {label}"

    def _print(self, order: Any, values: Floats) -> None:
        for i in order:
            print(f"Concept {self.labels()[i]} has an importance value of {values[i]:.2f}")


def _figures() -> Any:
    require("matplotlib", "build")
    from craft_onnx.show import figures

    return figures


def _title(order: DisplayImportancesOrder) -> str:
    return f"{'Global' if order is GLOBAL else 'Local'} Concept Importance"


def _with_properties(figure: "Figure", imshow: dict[str, Any]) -> "Figure":
    """Set properties of every image of a figure, which `imshow` would have taken."""
    for axes in figure.axes if imshow else ():
        for image in axes.images:
            image.set(**imshow)
    return figure

"""Craft: the concepts a model uses for a class, how much each matters, and where each is (Fel et al., CVPR 2023)."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from craft_onnx.concepts.plots import ConceptPlots
from craft_onnx.concepts.views import XPLIQUE, DisplayImportancesOrder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from craft_onnx.concepts.attributions import ConceptAttribution
    from craft_onnx.concepts.explanation import Explanation
    from craft_onnx.concepts.factorisation import Factoriser
    from craft_onnx.concepts.head import ConceptHead
    from craft_onnx.runtime.bundle import Bundle
    from craft_onnx.runtime.segment import Segment

__all__ = ["XPLIQUE", "Craft", "DisplayImportancesOrder"]


class Craft(ConceptPlots):
    """Concept extraction for one class of a model f = h(g(x)).

    Parameters
    ----------
    input_to_latent_model : SplitModel, Bundle, path or callable
        A model with both halves, a bundle, an ONNX file of g, or g itself: a function of arrays, or a PyTorch module,
        which is run in evaluation mode where its parameters are. Its activations are not negative, unless `factoriser`
        is for it.
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
    factoriser : "nmf" or "semi_nmf"
        Non-negative matrix factorisation, of activations that are not negative, or semi-NMF, of activations of any
        sign: its concepts are signed, its coefficients are not.
    alpha_W : float
        Weight of scikit-learn's penalty in the factorisation; the paper has none.
    encoder : "nnls" or "sklearn"
        Coefficients by exact non-negative least squares, or by scikit-learn's `NMF.transform`.
    normalize : bool
        Factorise free of the activations' scale, and give the rows of W unit length.
    tol, max_iter : float, int
        When the factorisation stops. By default NMF stops at 1e-5 of its projected gradient, and semi-NMF, which
        loses the concepts over the last bit of its objective, when an iteration gains less than 1e-2 of that.
    sampler, estimator : str
        How importances are sampled, see `craft_onnx.attribution.total_indices`.
    nb_design : int
        Points of a design where `estimate_importance` is not told.
    exact : bool
        Take the closed form of the importances where the head is linear.
    data_format : str, optional
        "NCHW" or "NHWC" (or "channels_first", "channels_last"): axes of images and feature maps where the model does
        not say and the images do not show.
    prefix_tokens : int, optional
        Of transformers, the tokens before those of the patches: class, distillation and register tokens. By default
        the fewest, of 0 to 5, that leave a grid in the proportions of the picture. Concepts are those of the patches.

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
        factoriser: "Factoriser | None" = None,
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
        factoriser : "nmf" or "semi_nmf", optional
            By default that of these concepts; semi-NMF where the activations at the earlier layer are signed.

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

        return decompose(self, concept, at, number_of_concepts, quantile, images, segment, factoriser)

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

"""CRAFT: the concepts a model uses for a class, what each matters, and where each is (Fel et al., CVPR 2023)."""

import inspect
from collections.abc import Iterator
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from craft_onnx.concepts.factorisation import Encoder, Factorisation, check_activations, check_number, encode, factorise
from craft_onnx.concepts.halves import Halves, as_images, batches_of, check_axes, find_halves
from craft_onnx.concepts.head import ConceptHead, folded_head
from craft_onnx.concepts.importance import (
    SPARE,
    Importance,
    Sampling,
    linear_importance,
    local_importance,
    sampled_importance,
)
from craft_onnx.concepts.plots import CraftPlots, DisplayImportancesOrder
from craft_onnx.concepts.sobol import Estimator, Sampler
from craft_onnx.concepts.views import Factorization, Reducer, Sensitivity
from craft_onnx.description import Layout
from craft_onnx.errors import InputError, NotFittedError
from craft_onnx.runtime.batches import as_array
from craft_onnx.runtime.crops import Crops, Interpolation, stream_crops

__all__ = ["XPLIQUE", "Craft", "DisplayImportancesOrder"]

Floats = NDArray[np.floating]


class _Unset(int):
    """A number that can be told from the same number given by the caller."""


_NB_DESIGN = _Unset(256)

# What reproduces Xplique 2.0.2: a penalty that depends on the scale of the activations, scikit-learn's transform,
# which seldom converges, and 32 points of an unscrambled Halton sequence, sampled even where the head is linear.
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


class Craft(CraftPlots):
    """Concept extraction for one class of a model f = h(g(x)).

    Parameters
    ----------
    input_to_latent_model : SplitModel, Bundle, path or callable
        A model with both halves, a bundle, an ONNX file of g, or g itself as a function of arrays; its activations
        are not negative.
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
    crops : "grid" or "random"
        Crops on a grid of stride int(0.8 * patch_size), or `crops_per_image` anywhere (as the paper has them).
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
        How importances are sampled, see `craft_onnx.concepts.sobol`.
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
    names_ : dict of int to str
        Names of concepts.
    class_id_, images_ : int, sequence
        What it was fitted to.
    """

    images_: Any
    crops_: Any
    class_id_: int
    layout_: Layout
    factorisation_: Factorisation
    crops_u_: Floats
    concept_bank_: Floats
    importance_: Importance | None
    names_: dict[int, str]
    designs_: NDArray[np.float32] | None

    def __init__(
        self,
        input_to_latent_model: Any,
        latent_to_logit_model: Any = None,
        number_of_concepts: int = 20,
        batch_size: int = 64,
        patch_size: int = 64,
        device: Any = None,
        *,
        random_state: int = 0,
        crops: Literal["grid", "random"] = "grid",
        crops_per_image: int = 10,
        interpolation: Interpolation = "bilinear",
        alpha_W: float = 0.0,
        encoder: Encoder = "nnls",
        normalize: bool = True,
        tol: float = 1e-5,
        max_iter: int = 2000,
        sampler: Sampler = "sobol",
        estimator: Estimator = "jansen",
        nb_design: int = 256,
        exact: bool = True,
        data_format: str | None = None,
    ) -> None:
        self.input_to_latent_model = input_to_latent_model
        self.latent_to_logit_model = latent_to_logit_model
        self.number_of_concepts = number_of_concepts
        self.batch_size = batch_size
        self.patch_size = patch_size
        self.device = device
        self.random_state = random_state
        self.crops = crops
        self.crops_per_image = crops_per_image
        self.interpolation = interpolation
        self.alpha_W = alpha_W
        self.encoder = encoder
        self.normalize = normalize
        self.tol = tol
        self.max_iter = max_iter
        self.sampler = sampler
        self.estimator = estimator
        self.nb_design = nb_design
        self.exact = exact
        self.data_format = data_format

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments, by name."""
        names = list(inspect.signature(type(self).__init__).parameters)[1:]
        return {name: getattr(self, name) for name in names}

    @cached_property
    def halves_(self) -> Halves:
        """The model's halves as functions of arrays."""
        return find_halves(self.input_to_latent_model, self.latent_to_logit_model, self.device, self.data_format)

    def fit(self, inputs: Any, class_id: int = 0) -> tuple[Crops, Floats, Floats]:
        """Find the concepts of a class in images that the model predicts as that class.

        Parameters
        ----------
        inputs : array (N, C, H, W) or (N, H, W, C), or sequence of images
            Preprocessed images in the model's layout; a sequence may make each when it is asked for.
        class_id : int
            The class.

        Returns
        -------
        crops : Crops (n_crops, C, patch_size, patch_size) or channels last
            A lazy sequence, not resized.
        crops_u : array (n_crops, k)
            Coefficients U.
        concept_bank_w : array (k, p)
            Concept bank W.

        Raises
        ------
        InputError
            If activations are negative or not finite, the patch is larger than the images, or k does not fit.
        """
        images = as_images(inputs)
        layout = self.halves_.layout_of(images)
        crops = self._cut(images, layout)
        check_number(self.number_of_concepts, (len(crops), self.number_of_concepts))
        pooled = self._pooled_activations(crops, layout)
        found = factorise(
            pooled,
            self.number_of_concepts,
            self.alpha_W,
            self.normalize,
            self.random_state,
            encoder=self.encoder,
            tol=self.tol,
            max_iter=self.max_iter,
        )
        self._set_fitted(images, int(class_id), layout, crops, found)
        return crops, self.crops_u_, self.concept_bank_

    def transform(self, inputs: Any, activations: Any = None) -> Floats:
        """Concept maps of images: the coefficients at every position, by non-negative least squares.

        Parameters
        ----------
        inputs : array (N, ...) or sequence of images
            Preprocessed images; not looked at where `activations` are given.
        activations : array (N, H', W', p), (N, T, p) or (N, p), optional
            Activations, channels last.

        Returns
        -------
        array (N, H', W', k), (N, T, k) or (N, k), float32

        Raises
        ------
        NotFittedError
            Before `fit`.
        InputError
            If activations are negative, not finite, or of other channels than those of `fit`.
        """
        self.check_if_fitted()
        if activations is not None:
            return self._encode(as_array(activations))
        return self._coefficients(as_images(inputs))

    def estimate_importance(self, inputs: Any = None, nb_design: int = _NB_DESIGN) -> NDArray[np.float64]:
        """Total Sobol indices of the concepts for the logit of the class.

        Parameters
        ----------
        inputs : array (N, ...) or sequence of images, optional
            Images to compute local importances on; by default those of `fit`, for the global importances, which are
            kept in `importance_`.
        nb_design : int
            Points of a design, where the head is sampled.

        Returns
        -------
        array (k,)
            Mean over the images.

        Raises
        ------
        NotFittedError
            Before `fit`.
        InputError
            Without a second half of the model, or without images.
        """
        self.check_if_fitted()
        points = self.nb_design if nb_design is _NB_DESIGN else nb_design
        if inputs is not None:
            return self.importance_of(self._coefficients(as_images(inputs), self.head_), points).values
        if self.images_ is None:
            raise InputError("The images of the fit are not stored with it.", "Give images, for local importances.")
        u = self._coefficients(self.images_, self.head_)
        importance = self._global_importance(u, self._sampling(points))
        self.importance_ = importance
        return importance.values

    def importance_of(self, u: Floats, nb_design: int | None = None) -> Importance:
        """Importances, intervals and contributions for given coefficients (N, ..., k)."""
        u = self.head_.reduced(u)
        if self.exact and self.head_.linear:
            return linear_importance(self.head_, u)
        return local_importance(self.head_, u, self.designs(nb_design or self.nb_design), self.estimator)

    def designs(self, nb_design: int) -> NDArray[np.float32]:
        """The designs (r, n, 2 k) of local importances; those stored in a bundle where they fit."""
        if self.designs_ is None or self.designs_.shape[1] != nb_design:
            self.designs_ = self._sampling(nb_design).draw(self.number_of_concepts, 1 + SPARE)
        return self.designs_

    def check_if_fitted(self) -> None:
        """Raise NotFittedError before `fit`."""
        if not hasattr(self, "factorisation_"):
            raise NotFittedError("The concepts have not been fitted yet.", "Call fit(images, class_id) first.")

    @cached_property
    def head_(self) -> ConceptHead:
        """The logit of the class as a function of coefficients, with W folded into h where that is an ONNX graph."""
        self.check_if_fitted()
        return folded_head(self.halves_, self.concept_bank_, self.class_id_, self.layout_, self.batch_size)[0]

    @property
    def factorization(self) -> Factorization | None:
        """What `fit` found, under Xplique's names; None before."""
        if not hasattr(self, "factorisation_"):
            return None
        reducer = Reducer(self.concept_bank_, lambda a: encode(a, self.concept_bank_, self.encoder, self.alpha_W))
        return Factorization(
            inputs=self.images_,
            class_id=self.class_id_,
            crops=self.crops_,
            reducer=reducer,
            crops_u=self.crops_u_,
            concept_bank_w=self.concept_bank_,
        )

    @property
    def sensitivity(self) -> Sensitivity | None:
        """The global importances, under Xplique's names; None before `estimate_importance`."""
        importance = getattr(self, "importance_", None)
        return None if importance is None else Sensitivity(importance.values)

    def _cut(self, images: Any, layout: Layout) -> Crops:
        if self.crops == "grid":
            return Crops.grid(images, self.patch_size, layout)
        if self.crops != "random":
            raise InputError(f"There are no crops {self.crops!r}.", "Take 'grid' or 'random'.")
        return Crops.random(images, self.patch_size, layout, self.crops_per_image, self.random_state)

    def _pooled_activations(self, crops: Crops, layout: Layout) -> Floats:
        """A (n_crops, p): activations averaged over positions, batch by batch."""
        sides = np.shape(crops.images[0])
        size = self.halves_.size or (sides[1:] if layout == "NCHW" else sides[:2])
        batches = stream_crops(crops, size, self.halves_.batch(self.batch_size), interpolation=self.interpolation)
        pooled = np.empty((0, 0), np.float32)
        row = 0
        for a in self._checked(self.halves_.activations(batches, layout)):
            if not row:
                pooled = np.empty((len(crops), a.shape[-1]), a.dtype)
            pooled[row : row + len(a)] = a.mean(axis=tuple(range(1, a.ndim - 1))) if a.ndim > 2 else a
            row += len(a)
        return pooled

    def _checked(self, activations: Iterator[Floats]) -> Iterator[Floats]:
        for a in activations:
            check_activations(a, self.halves_.nonnegative_cuts)
            yield a

    def _coefficients(self, images: Any, head: ConceptHead | None = None) -> Floats:
        """U of whole images, batch by batch; reduced as a head takes them."""
        batches = batches_of(images, self.halves_.batch(self.batch_size))
        activations = self.halves_.activations(batches, self.layout_)
        if self.encoder == "sklearn":  # whose stopping rule is about all rows at once
            activations = iter([np.concatenate(list(activations))])
        encoded = map(self._encode, activations)
        return np.concatenate([head.reduced(u) if head else u for u in encoded])

    def _encode(self, activations: Floats) -> Floats:
        """U (n, ..., k) of activations (n, ..., p)."""
        check_axes(activations)
        check_activations(activations, self.halves_.nonnegative_cuts)
        rows = np.ascontiguousarray(activations).reshape(-1, activations.shape[-1])
        u = encode(rows, self.concept_bank_, self.encoder, self.alpha_W)
        return u.astype(np.float32, copy=False).reshape(*activations.shape[:-1], self.number_of_concepts)

    def _sampling(self, nb_design: int) -> Sampling:
        return Sampling(self.sampler, self.estimator, nb_design, self.random_state)

    def _global_importance(self, u: Floats, sampling: Sampling) -> Importance:
        if self.exact and self.head_.linear:
            return linear_importance(self.head_, u)
        return sampled_importance(self.head_, u, sampling)

    def _set_fitted(self, images: Any, class_id: int, layout: Layout, crops: Any, found: Factorisation) -> None:
        self.__dict__.pop("head_", None)
        self.images_ = images
        self.class_id_ = class_id
        self.layout_ = layout
        self.crops_ = crops
        self.factorisation_ = found
        self.crops_u_ = found.u
        self.concept_bank_ = found.w
        self.importance_ = None
        self.names_ = {}
        self.designs_ = None

"""The method of CRAFT: crops, activations, concept bank, coefficients, importances (Fel et al., CVPR 2023)."""

import inspect
from collections.abc import Iterator
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from craft_onnx.attribution.total_indices import Estimator, Sampler
from craft_onnx.concepts import semi_nmf
from craft_onnx.concepts.evidence import versions
from craft_onnx.concepts.factorisation import (
    TOL,
    Encoder,
    Factorisation,
    Factoriser,
    check_activations,
    check_factoriser,
    check_finite,
    check_number,
    encode,
    factorise,
    pool,
)
from craft_onnx.concepts.halves import Halves, as_images, batches_of, check_axes, find_halves, sides_of
from craft_onnx.concepts.head import ConceptHead, ProvenHead, folded_head
from craft_onnx.concepts.importance import (
    LOCAL_DESIGNS,
    Importance,
    Sampling,
    linear_importance,
    local_importance,
    ranking,
    refined,
    sampled_importance,
)
from craft_onnx.concepts.pictures import StoredCrops, displayed
from craft_onnx.concepts.positions import PositionCrops, best_rows, position_activations, position_crops
from craft_onnx.concepts.tokens import Tokens, find_tokens
from craft_onnx.concepts.views import Factorization, Reducer, Sensitivity
from craft_onnx.description import Layout
from craft_onnx.errors import InputError, NotFittedError
from craft_onnx.runtime.batches import as_array
from craft_onnx.runtime.crops import Crops, Interpolation, stream_crops

if TYPE_CHECKING:
    from craft_onnx.concepts.craft import Craft
    from craft_onnx.concepts.recursion import Parent

Floats = NDArray[np.floating]


class _Unset(int):
    """A default that is told from the same number given by the caller: then `nb_design` of the constructor holds."""


_NB_DESIGN = _Unset(256)
KEPT_BYTES = 1 << 26  # of pooled activations, for looking at them again without running the model


class ConceptExtractor:
    """Crops, factorisation, coefficients and importances: `craft_onnx.Craft` less plots, explanations and storage.

    Parameters and attributes are those of `Craft`.
    """

    images_: Any
    crops_: Any
    pooled_: Floats | None
    class_id_: int
    layout_: Layout
    positions_: tuple[int, ...]
    tokens_: Tokens
    factorisation_: Factorisation
    crops_u_: Floats
    concept_bank_: Floats
    importance_: Importance | None
    parent_: "Parent | None"
    parent_importance_: Importance | None
    children_: "list[Craft] | None"
    names_: dict[int, str]
    designs_: NDArray[np.float32] | None
    points_: int
    stored_as_: str | None
    evidence_: dict[str, Any]

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
        crops: Literal["grid", "random"] | None = "grid",
        crops_per_image: int = 10,
        interpolation: Interpolation = "bilinear",
        factoriser: Factoriser = "nmf",
        alpha_W: float = 0.0,
        encoder: Encoder = "nnls",
        normalize: bool = True,
        tol: float | None = None,
        max_iter: int = 2000,
        sampler: Sampler = "sobol",
        estimator: Estimator = "jansen",
        nb_design: int = 256,
        exact: bool = True,
        data_format: str | None = None,
        prefix_tokens: int | None = None,
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
        self.factoriser = factoriser
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
        self.prefix_tokens = prefix_tokens

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
            If there is no such class, activations are negative (but for semi-NMF) or not finite, the patch is larger
            than the images, or k does not fit.
        """
        images = as_images(inputs)
        layout = self.halves_.layout_of(images)
        self.halves_.check_class(class_id)
        crops = self._cut(images, layout)
        self._fit_crops(images, int(class_id), layout, crops)
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
            Of tokens, those of the patches: on their grid, or without positions where they are none.

        Raises
        ------
        NotFittedError
            Before `fit`.
        InputError
            If activations are negative (but for semi-NMF), not finite, or of other channels than those of `fit`.
        """
        self.check_if_fitted()
        if activations is not None:
            return self.tokens_.placed(self._encode(as_array(activations)))
        return self.tokens_.placed(self._coefficients(as_images(inputs)))

    def estimate_importance(
        self, inputs: Any = None, nb_design: int = _NB_DESIGN, *, tol: float | None = None
    ) -> NDArray[np.float64]:
        """Total Sobol indices of the concepts for the logit of the class.

        Parameters
        ----------
        inputs : array (N, ...) or sequence of images, optional
            Images to compute local importances on; by default those of `fit`, for the global importances, which are
            kept in `importance_`.
        nb_design : int
            Points of a design, where the head is sampled.
        tol : float, optional
            Double `nb_design` until every 95 % interval is at most `tol` wide to either side, up to 16384 points: what
            is then missing is said in a CraftWarning. `points_` is what was taken for the global importances.

        Returns
        -------
        array (k,)
            Mean over the images.

        Raises
        ------
        NotFittedError
            Before `fit`.
        InputError
            Without a second half of the model, or without images, or where `tol` is asked for without intervals.
        """
        self.check_if_fitted()
        points = self.nb_design if nb_design is _NB_DESIGN else nb_design
        if inputs is not None:
            u = self._coefficients(as_images(inputs), self.head_)
            return refined(partial(self.importance_of, u), points, tol)[0].values
        if self.images_ is None:
            raise InputError("The images of the fit are not stored with it.", "Give images, for local importances.")
        u = self._coefficients(self.images_, self.head_)
        importance, points = refined(lambda n: self._importance_by(self.head_, u, self._sampling(n)), points, tol)
        self.importance_, self.points_ = importance, points
        return importance.values

    def importance_of(self, u: Floats, nb_design: int | None = None) -> Importance:
        """Importances, intervals and contributions for given coefficients (N, ..., k).

        Parameters
        ----------
        u : array (N, ..., k)
            Coefficients of images: those of `coefficient_batches`, or of `transform` where these are all.
        nb_design : int, optional
            Points of a design, where the head is sampled; by default as many as for the global importances.

        Returns
        -------
        Importance
            Means over the images.

        Raises
        ------
        InputError
            If the coefficients of tokens before the patches are missing.
        """
        u = self.head_.reduced(self.tokens_.flat(u) if u.ndim == 4 and len(self.positions_) == 1 else u)
        points = nb_design or self.points_
        if self.exact and self.head_.linear:
            return linear_importance(self.head_, u)
        return local_importance(self.head_, u, self.designs(points), self._sampling(points))

    def global_importance(self) -> Importance:
        """`importance_`; NotFittedError before `estimate_importance`."""
        self.check_if_fitted()
        if self.importance_ is None:
            raise NotFittedError("The importances have not been estimated yet.", "Call estimate_importance() first.")
        return self.importance_

    def labels(self) -> list[str]:
        """Names of the concepts, their numbers where they have none."""
        return [self.names_.get(i, str(i)) for i in range(self.crops_u_.shape[1])]

    def best_crops(self, concept: int, count: int) -> list[NDArray[np.uint8]]:
        """The crops (patch, patch, 3) uint8 RGB with the largest coefficients of a concept, the best first."""
        if isinstance(self.crops_, StoredCrops):
            return self.crops_.best(concept)[:count]
        best = best_rows(self.crops_, self.crops_u_[:, concept])[:count]
        rule = self.halves_.preprocessing
        return [displayed(self.crops_[int(i)], self.layout_, rule) for i in best]

    def typical_coefficients(self, count: int = 10) -> NDArray[np.float64]:
        """Mean coefficient (k,) of each concept's best crops: what it amounts to where it is plainly there."""
        return np.sort(np.asarray(self.crops_u_, np.float64), axis=0)[-count:].mean(axis=0)

    def colours(self) -> NDArray[np.uint8]:
        """Colours (k, 3) of the concepts, RGB, given out by global importance."""
        from craft_onnx.show.colours import concept_colours

        order = ranking(self.global_importance().values)
        colours = np.empty((len(order), 3), np.uint8)
        colours[order] = concept_colours(len(order))
        return colours

    def designs(self, nb_design: int) -> NDArray[np.float32]:
        """The designs (r, n, 2 k) of local importances; those stored in a bundle where they fit."""
        if self.designs_ is None or self.designs_.shape[1] != nb_design:
            self.designs_ = self._sampling(nb_design).draw(self.number_of_concepts, LOCAL_DESIGNS)
        return self.designs_

    def check_if_fitted(self) -> None:
        """Raise NotFittedError before `fit`."""
        if not hasattr(self, "factorisation_"):
            raise NotFittedError("The concepts have not been fitted yet.", "Call fit(images, class_id) first.")

    @cached_property
    def head_(self) -> ConceptHead:
        """The logit of the class as a function of coefficients, with W folded into h where that is an ONNX graph."""
        self.check_if_fitted()
        return self.proven_head().head

    def proven_head(self) -> ProvenHead:
        """The head as it was just folded and proven."""
        return folded_head(
            self.halves_, self.concept_bank_, self.class_id_, self.layout_, self.positions_, self.batch_size
        )

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
            coeffs_u=self.coeffs_u_,
            reducer=reducer,
            crops_u=self.crops_u_,
            concept_bank_w=self.concept_bank_,
        )

    @property
    def coeffs_u_(self) -> Floats | None:
        """Coefficients (N, H', W', k) of the images of the fit, where all their positions were factorised."""
        if not isinstance(self.crops_, PositionCrops):
            return None
        return self.crops_u_.reshape(len(self.images_), *self.crops_.positions, -1)

    @property
    def sensitivity(self) -> Sensitivity | None:
        """The global importances, under Xplique's names; None before `estimate_importance`."""
        importance = getattr(self, "importance_", None)
        return None if importance is None else Sensitivity(importance.values)

    def _fit_crops(self, images: Any, class_id: int, layout: Layout, crops: Crops) -> None:
        """Factorise the activations of crops, and keep what was found: the second half of `fit`, and `decompose`."""
        check_number(self.number_of_concepts, (len(crops), self.halves_.channels))
        pooled, positions = self._pooled_activations(crops, layout)
        found = self._factorised(pooled, self.number_of_concepts)
        self._set_fitted(images, class_id, layout, crops, found)
        self.pooled_ = pooled if pooled.nbytes <= KEPT_BYTES else None
        self.positions_ = positions
        self.tokens_ = self.tokens_of(positions, crops, layout)
        self.evidence_ = {
            "n_images": len(crops.images),
            "n_crops": len(crops),
            "provider": self.halves_.provider,
            "versions": versions(),
        }

    def input_size(self, crops: Crops, layout: Layout) -> tuple[int, int]:
        """Height and width of the model's input, pixels; of the images where any size goes."""
        return self.halves_.size or sides_of(crops.images[0], layout)

    def tokens_of(self, positions: tuple[int, ...], crops: Crops, layout: Layout) -> Tokens:
        """Which of the positions of activations are patches, and how these lie."""
        return find_tokens(positions, self.input_size(crops, layout), self.prefix_tokens)

    def _cut(self, images: Any, layout: Layout) -> Crops:
        if self.crops is None:
            return position_crops(self, images, layout)
        if self.crops == "grid":
            return Crops.grid(images, self.patch_size, layout)
        if self.crops != "random":
            raise InputError(f"There are no crops {self.crops!r}.", "Take 'grid', 'random' or None.")
        return Crops.random(images, self.patch_size, layout, self.crops_per_image, self.random_state)

    def _pooled_activations(self, crops: Crops, layout: Layout) -> tuple[Floats, tuple[int, ...]]:
        """A (n_crops, p): activations averaged over positions in the picture; and the shape of all positions."""
        if isinstance(crops, PositionCrops):
            return position_activations(self, crops, layout)
        size = self.input_size(crops, layout)
        batches = stream_crops(crops, size, self.halves_.batch(self.batch_size), interpolation=self.interpolation)
        rows, positions = np.empty((0, 0), np.float32), ()
        row = 0
        for a in self._checked(self.halves_.activations(batches, layout)):
            if not row:
                rows, positions = np.empty((len(crops), a.shape[-1]), a.dtype), a.shape[1:-1]
                tokens = self.tokens_of(positions, crops, layout)
            rows[row : row + len(a)] = pool(tokens.placed(a))
            row += len(a)
        return rows, positions

    def _factorised(self, pooled: Floats, number_of_concepts: int, seed: int | None = None) -> Factorisation:
        """W and U of pooled activations, with the settings of the constructor."""
        seed = self.random_state if seed is None else seed
        if self.factoriser == "semi_nmf":
            tol = semi_nmf.TOL if self.tol is None else self.tol
            return semi_nmf.semi_nmf(pooled, number_of_concepts, seed, tol=tol, max_iter=self.max_iter)
        return factorise(
            pooled,
            number_of_concepts,
            self.alpha_W,
            self.normalize,
            seed,
            encoder=self.encoder,
            tol=TOL if self.tol is None else self.tol,
            max_iter=self.max_iter,
        )

    def _checked(self, activations: Iterator[Floats]) -> Iterator[Floats]:
        for a in activations:
            self._check(a)
            yield a

    def _check(self, activations: Floats) -> None:
        """InputError for activations that are not finite, or negative where the factorisation is not for them."""
        check_factoriser(self.factoriser, self.alpha_W, self.encoder, self.normalize)
        if self.factoriser == "semi_nmf":
            check_finite(activations)
        else:
            check_activations(activations, self.halves_.nonnegative_cuts)

    def _coefficients(self, images: Any, head: ConceptHead | None = None) -> Floats:
        """U of whole images, batch by batch; reduced as a head takes them."""
        batches = batches_of(images, self.halves_.batch(self.batch_size))
        activations = self.halves_.activations(batches, self.layout_)
        if self.encoder == "sklearn":  # whose stopping rule is about all rows at once
            activations = iter([np.concatenate(list(activations))])
        encoded = map(self._encode, activations)
        return np.concatenate([head.reduced(u) if head else u for u in encoded])

    def coefficient_batches(self, images: Any = None) -> Iterator[Floats]:
        """U (n, ..., k) of images at all positions that h takes, by default of those of the fit, batch by batch.

        InputError where these are not kept.
        """
        images = self.images_of_fit() if images is None else as_images(images)
        batches = batches_of(images, self.halves_.batch(self.batch_size))
        return map(self._encode, self.halves_.activations(batches, self.layout_))

    def images_of_fit(self) -> Any:
        """The images of the fit; InputError where the concepts were loaded without them."""
        self.check_if_fitted()
        if self.images_ is None:
            raise InputError("The images of the fit are not stored with it.", "Give images.")
        return self.images_

    def _encode(self, activations: Floats) -> Floats:
        """U (n, ..., k) of activations (n, ..., p)."""
        check_axes(activations)
        self._check(activations)
        rows = np.ascontiguousarray(activations).reshape(-1, activations.shape[-1])
        u = encode(rows, self.concept_bank_, self.encoder, self.alpha_W)
        return u.astype(np.float32, copy=False).reshape(*activations.shape[:-1], self.number_of_concepts)

    def _sampling(self, nb_design: int) -> Sampling:
        return Sampling(self.sampler, self.estimator, nb_design, self.random_state)

    def _importance_by(self, head: ConceptHead, u: Floats, sampling: Sampling) -> Importance:
        if self.exact and head.linear:
            return linear_importance(head, u)
        return sampled_importance(head, u, sampling)

    def _set_fitted(self, images: Any, class_id: int, layout: Layout, crops: Any, found: Factorisation) -> None:
        self.__dict__.pop("head_", None)
        self.stored_as_ = None
        self.images_ = images
        self.class_id_ = class_id
        self.layout_ = layout
        self.crops_ = crops
        self.pooled_ = None
        self.factorisation_ = found
        self.crops_u_ = found.u
        self.concept_bank_ = found.w
        self.importance_ = None
        self.parent_, self.parent_importance_, self.children_ = None, None, []
        for made in ("segment_", "parent_head_"):
            self.__dict__.pop(made, None)
        self.names_ = {}
        self.designs_ = None
        self.points_ = self.nb_design

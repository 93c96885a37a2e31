"""How far concepts can be trusted: fidelity, stability, their number, and TCAV, as methods of `craft_onnx.Craft`."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from craft_onnx.concepts.extractor import KEPT_BYTES, ConceptExtractor
from craft_onnx.concepts.factorisation import encode
from craft_onnx.concepts.halves import as_images, batches_of
from craft_onnx.errors import InputError
from craft_onnx.extras import require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from craft_onnx.concepts.cav import ConceptTcav
    from craft_onnx.concepts.choice import Choice
    from craft_onnx.concepts.fidelity import ConceptCurve, Ranking
    from craft_onnx.concepts.stability import Stability
    from craft_onnx.concepts.surf import Surf

Floats = NDArray[np.floating]
RANKINGS: tuple[Literal["sobol", "contribution", "random"], ...] = ("sobol", "contribution", "random")


class EvaluatedConcepts(ConceptExtractor):
    """`ConceptExtractor` with the methods that say how good its concepts are."""

    def deletion(self, images: Any = None, ranking: "Ranking" = "sobol", seed: int = 0) -> "ConceptCurve":
        """Remove the concepts, the most important first; the faster the logit falls the better (CRAFT, fidelity).

        Parameters
        ----------
        images : array (N, ...) or sequence of images, optional
            By default those of the fit.
        ranking : "sobol", "contribution", "gradient_input", "tcav", "random", or int array (k,) or (N, k)
            By global importance, by signed contribution, by gradient times input or TCAV (both need a bundle), in any
            order, or in an order of one's own.
        seed : int
            Of "random".

        Returns
        -------
        ConceptCurve
            Logits of the class (N, k + 1) from the reconstruction to no concept at all, `.mean` over the images,
            `.area` under it. Exact where the head is linear.

        Raises
        ------
        NotFittedError
            Before `fit`, or before `estimate_importance` where the ranking is by importance or contribution.
        InputError
            If there is no such ranking, or no images are given to concepts that were loaded.
        """
        return self._curve(images, ranking, seed, inserted=False)

    def insertion(self, images: Any = None, ranking: "Ranking" = "sobol", seed: int = 0) -> "ConceptCurve":
        """Put the concepts in, the most important first; the faster the logit rises the better.

        Parameters, result and errors are those of `deletion`; the curve goes from no concept to the reconstruction.
        """
        return self._curve(images, ranking, seed, inserted=True)

    def plot_fidelity(
        self, images: Any = None, rankings: "Sequence[Ranking]" = RANKINGS, seed: int = 0, repeats: int = 10
    ) -> "Figure":
        """Deletion and insertion curves of several rankings in one figure, with their areas.

        Parameters
        ----------
        images : array (N, ...) or sequence of images, optional
            By default those of the fit.
        rankings : sequence
            As in `deletion`.
        seed : int
            Of "random".
        repeats : int
            Random orders, whose mean is shown.

        Raises
        ------
        NotFittedError, InputError
            As in `deletion`.
        """
        require("matplotlib", "build")
        from craft_onnx.concepts.fidelity import named_curves
        from craft_onnx.show.curves import fidelity_curves

        u = self._reduced(images)
        curves = [named_curves(self, u, images, rankings, inserted, seed, repeats) for inserted in (False, True)]
        return fidelity_curves(*curves)

    def surf(self, images: Any = None, repeats: int = 5, seed: int = 0) -> "Surf":
        """SURF, surrogate faithfulness: presence times importance of the concepts against the logits of all classes.

        Parameters
        ----------
        images : array (N, ...) or sequence of images, optional
            By default those of the fit; of all classes, if the concepts are to speak for all.
        repeats : int
            Of each sanity check: random concepts, and importances of other concepts.
        seed : int
            Of these.

        Returns
        -------
        Surf
            `.mae` in logits, `.emd` in probabilities, `.random_concepts`, `.random_importances`, `.sane`.
            `craft_onnx.concepts.surf` says what is taken from the paper (arXiv 2504.10833) and what is not.

        Raises
        ------
        NotFittedError
            Before `fit`.
        InputError
            Without a second half of the model, or without images.
        """
        from craft_onnx.concepts.surf import surf

        return surf(
            lambda a: self.halves_.logits(a, self.layout_),
            self._encoded_with,
            self.concept_bank_,
            self._activations(images),
            repeats,
            seed,
        )

    def stability(self, repeats: int = 5, seed: int = 0) -> "Stability":
        """Fit again to random halves of the crops, with other seeds, and see which concepts are found again.

        Parameters
        ----------
        repeats : int
            How often.
        seed : int
            Of the halves and of the factorisations.

        Returns
        -------
        Stability
            `.similarities` (k,), cosines of W with its match, by the Hungarian algorithm; `.unstable` (k,): below 0.9.

        Raises
        ------
        NotFittedError
            Before `fit`.
        InputError
            If half of the crops are fewer than k, or the concepts were loaded.
        """
        from craft_onnx.concepts.stability import stability

        pooled, k = self.pooled_activations(), len(self.concept_bank_)
        return stability(
            pooled, self.concept_bank_, lambda rows, child: self._factorised(rows, k, child).w, repeats, seed
        )

    def choose_number_of_concepts(
        self, images: Any = None, numbers: Iterable[int] = range(5, 31), repeats: int = 3, seed: int = 0
    ) -> "Choice":
        """Error, stability and redundancy of every number of concepts in a range, and the one to take.

        Parameters
        ----------
        images : array (N, ...) or sequence of images, optional
            By default those of the fit, whose activations are not computed again. Nothing is fitted: `refit(best)`
            does that after a fit, `number_of_concepts = best` before one.
        numbers : iterable of int
            Each k, at most half the number of crops.
        repeats, seed : int
            Of the stability.

        Returns
        -------
        Choice
            `.best` by `craft_onnx.concepts.choice.RULE`, and the numbers behind it, which `plot_choice(choice)` shows.

        Raises
        ------
        NotFittedError
            Without images before `fit`.
        InputError
            If a number does not fit, or as in `fit`.
        """
        from craft_onnx.concepts.choice import choose

        return choose(self._pooled_of(images), numbers, self._factorised, repeats, seed)

    @staticmethod
    def plot_choice(choice: "Choice") -> "Figure":
        """Error, stability and redundancy over the number of concepts, as `choose_number_of_concepts` found them.

        Parameters
        ----------
        choice : Choice
            What it returned.
        """
        require("matplotlib", "build")
        from craft_onnx.concepts.choice import plotted

        return plotted(choice)

    def refit(self, number_of_concepts: int) -> Floats:
        """Factorise the crops of the fit again, into another number of concepts.

        Parameters
        ----------
        number_of_concepts : int
            The new k.

        Returns
        -------
        array (k, p)
            Concept bank W; the rest of the fit is replaced too, importances have to be estimated again.

        Raises
        ------
        NotFittedError
            Before `fit`.
        InputError
            If k does not fit, or the concepts were loaded: a bundle keeps no activations.
        """
        pooled = self.pooled_activations()
        found = self._factorised(pooled, number_of_concepts)
        self.number_of_concepts = number_of_concepts
        self._set_fitted(self.images_, self.class_id_, self.layout_, self.crops_, found)
        self.pooled_ = pooled if pooled.nbytes <= KEPT_BYTES else None
        return self.concept_bank_

    def pooled_activations(self) -> Floats:
        """A (n_crops, p) of the fit: kept where it takes 64 MB at most, else computed again from the crops.

        Raises
        ------
        NotFittedError
            Before `fit`.
        InputError
            If the concepts were loaded: a bundle keeps neither activations nor images.
        """
        self.check_if_fitted()
        if self.pooled_ is not None:
            return self.pooled_
        if self.images_ is None:
            raise InputError("The activations of the crops are not stored with the concepts.", "Call fit again.")
        return self._pooled_activations(self.crops_, self.layout_)[0]

    def tcav(self, images: Any = None, class_id: int | None = None) -> "ConceptTcav":
        """TCAV of the concepts: for how many images the logit rises along each direction W_k (Kim et al. 2018).

        Parameters
        ----------
        images : array (N, ...) or sequence of images, optional
            By default those of the fit.
        class_id : int, optional
            By default that of the fit.

        Returns
        -------
        ConceptTcav
            `.scores` (k,) and the `.derivatives` (N, k) behind them.

        Raises
        ------
        NotFittedError
            Before `fit`.
        InputError
            If the model is no bundle with gradient graphs, or has no such class.
        """
        from craft_onnx.concepts.cav import ConceptTcav
        from craft_onnx.concepts.directions import derivatives

        chosen = self.class_id_ if class_id is None else class_id
        self.halves_.check_class(chosen)
        found = derivatives(self.halves_, self._batches(images), chosen, self.layout_, self.concept_bank_)
        return ConceptTcav((found > 0).mean(axis=0), found)

    def _curve(self, images: Any, ranking: "Ranking", seed: int, inserted: bool) -> "ConceptCurve":
        from craft_onnx.concepts.fidelity import concept_curve, order_of

        u = self._reduced(images)
        return concept_curve(self.head_, u, order_of(self, ranking, images, seed), inserted, self.exact)

    def _reduced(self, images: Any) -> Floats:
        """Coefficients of images, as the head takes them."""
        return np.concatenate([self.head_.reduced(u) for u in self.coefficient_batches(images)])

    def _batches(self, images: Any) -> Any:
        images = self.images_of_fit() if images is None else as_images(images)
        self.check_if_fitted()
        return batches_of(images, self.halves_.batch(self.batch_size))

    def _activations(self, images: Any) -> Any:
        return self._checked(self.halves_.activations(self._batches(images), self.layout_))

    def _encoded_with(self, activations: Floats, w: Floats) -> Floats:
        """Coefficients (n, ..., k) of activations for any concept bank."""
        rows = np.ascontiguousarray(activations).reshape(-1, activations.shape[-1])
        u = encode(rows, w, self.encoder, self.alpha_W)
        return u.astype(np.float32, copy=False).reshape(*activations.shape[:-1], len(w))

    def _pooled_of(self, images: Any) -> Floats:
        """Pooled activations of the crops of images, or those of the fit."""
        if images is None:
            return self.pooled_activations()
        images = as_images(images)
        layout = self.halves_.layout_of(images)
        return self._pooled_activations(self._cut(images, layout), layout)[0]

"""What concepts look like: the plots of Craft, under the names that users of Xplique know."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from craft_onnx.concepts.evaluation import EvaluatedConcepts
from craft_onnx.concepts.halves import as_images, guess_layout
from craft_onnx.concepts.importance import ranking
from craft_onnx.concepts.pictures import displayed
from craft_onnx.concepts.presence import PicturesOfConcepts, top_image_overlays
from craft_onnx.concepts.views import DisplayImportancesOrder
from craft_onnx.errors import InputError
from craft_onnx.extras import require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.floating]
Pictures = NDArray[np.uint8]
CROPS_BESIDE_A_PICTURE = 6

GLOBAL = DisplayImportancesOrder.GLOBAL


class ConceptPlots(EvaluatedConcepts, PicturesOfConcepts):
    """Plots of a fitted Craft: matplotlib figures, in which colour i is the i-th most important concept's."""

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
        shown = self.importance_of(self._coefficients(as_images(img))) if local else known
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

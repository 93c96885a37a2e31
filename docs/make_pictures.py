"""Make the pictures of the documents: ``python docs/make_pictures.py [FOLDER]``; drawn birds, nothing else.

Fits the concepts of the demo model's tag-wearing class and writes concepts.png (the README's), image_concepts.png,
concept_attributions.png, importances.png, choice.png, fidelity.png and cuts.png, generated.png of some channels, and
relevance.png of one prediction, channel by channel, and attribution_graph.png of one channel, layer by layer; by
default into docs/pictures.
"""

import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from craft_onnx.attribution.registry import methods
from craft_onnx.concepts.craft import Craft
from craft_onnx.concepts.cuts import compare_cuts
from craft_onnx.relevance.attribution import CondAttribution
from craft_onnx.relevance.attribution_graph import AttributionGraph
from craft_onnx.relevance.concepts import ChannelConcept
from craft_onnx.relevance.generation import generate_maximal
from craft_onnx.relevance.visualization import FeatureVisualization
from craft_onnx.runtime.model import SplitModel
from craft_onnx.show.attributions import attribution_overlay, attribution_sheet
from craft_onnx.show.colours import hex_code
from craft_onnx.show.overlay import concept_overlay, fitted, write_png
from craft_onnx.show.references import vis_opaque_img
from craft_onnx.show.relevance import ConceptRow, conditional_figure, plot_grid
from craft_onnx_models.birds import TAGGED, Bird, audit, class_names, draw_many, model_path

Picture = NDArray[np.uint8]
SEED = 0
OPACITY = 0.85
SHOWN_BIRDS, SHOWN_CONCEPTS, SHOWN_CROPS = 5, 3, 4
MARGIN, HEADING, BIRD, GAP, TEXT = 0.12, 0.52, 1.75, 0.08, 0.95  # inches
ENLARGED = 4  # times the 96 pixels of a bird
TILE = 136  # pixels
DPI = 76  # files of less than 300 kB
INK, GREY = "#222222", "#666666"
CUTS = ("features.3", "features.5", "features.9")
LAYER, CHANNELS = "features.9", (27, 51, 45, 26)
EARLIER, RULES, SHOWN_CHANNELS, FINCH = "features.8", "epsilon_plus_flat", 4, 0
CHAIN = ("features.4", "features.6", "features.8")
RANKINGS = ("sobol", "contribution", "tcav", "random")


def examined(folder: Path) -> audit.Examination:
    """The demo model, its concepts of the class that wears the tag, each named after the part that it lies on."""
    found = audit.examine(audit.prepare("shortcut", folder / "bundle"), "shortcut", SEED)
    parts: Counter[str] = Counter()
    for finding in found.audit.findings:
        parts[finding.part] += 1
        number = f" ({parts[finding.part]})" if parts[finding.part] > 1 else ""
        found.craft.names_[finding.concept] = finding.part + number
    return found


def chosen_birds(found: audit.Examination) -> list[Bird]:
    """Birds whose tag can be seen, those of the coolest plumage: the orange of the first concept stands out on it."""
    shown = [bird for bird in found.birds if bird.masks["tag"].sum() > 20]
    return sorted(shown, key=_warmth)[:SHOWN_BIRDS]


def _warmth(bird: Bird) -> float:
    red, _, blue = bird.picture[bird.masks["body"] | bird.masks["wing"]].mean(axis=0)
    return float(red - blue)


def overlay(craft: Craft, bird: Bird, order: Sequence[int], images: NDArray[np.floating]) -> tuple[Picture, Picture]:
    """A bird and the same bird with its concepts, enlarged."""
    side = ENLARGED * len(bird.picture)
    picture = np.asarray(cv2.resize(bird.picture, (side, side), interpolation=cv2.INTER_CUBIC), np.uint8)
    maps = craft.transform(images)[0]
    return picture, concept_overlay(
        picture, maps, order, craft.colours(), alpha=OPACITY, full=craft.typical_coefficients()
    )


def concepts_figure(found: audit.Examination) -> Figure:
    """Birds above, the same with their concepts below; the concepts' best crops and importance beside them."""
    craft = found.craft
    order = [finding.concept for finding in found.audit.findings[:SHOWN_CONCEPTS]]
    crop = (2 * BIRD + GAP - (SHOWN_CONCEPTS - 1) * GAP) / SHOWN_CONCEPTS
    legend = 2 * MARGIN + SHOWN_BIRDS * (BIRD + GAP)
    width = legend + TEXT + SHOWN_CROPS * (crop + GAP) + MARGIN
    figure = Figure(figsize=(width, HEADING + 2 * BIRD + GAP + MARGIN), facecolor="white")
    _heading(figure, MARGIN, "What the model sees in a coast tern")
    _heading(figure, legend, "Its concepts: importance, best crops")
    for column, bird in enumerate(chosen_birds(found)):
        pair = overlay(craft, bird, order, found.model.preprocess(bird.picture))
        for row, picture in enumerate(pair):
            _show(figure, picture, MARGIN + column * (BIRD + GAP), HEADING + row * (BIRD + GAP), BIRD)
    for row, concept in enumerate(order):
        _legend(figure, craft, concept, legend, HEADING + row * (crop + GAP), crop)
    return figure


def _legend(figure: Figure, craft: Craft, concept: int, left: float, top: float, side: float) -> None:
    """A concept's name and importance beside a block of its colour, and its best crops in frames of it."""
    colour = hex_code(craft.colours()[concept])
    axes = _axes(figure, left, top, TEXT, side)
    axes.axis("off")
    axes.axvspan(0, 0.07, color=colour)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.text(0.15, 0.52, craft.labels()[concept], color=INK, fontsize=14, weight="bold", va="bottom")
    axes.text(0.15, 0.46, f"{craft.global_importance().values[concept]:.2f}", color=GREY, fontsize=14, va="top")
    for column, crop in enumerate(craft.best_crops(concept, SHOWN_CROPS)):
        framed = _show(figure, crop, left + TEXT + column * (side + GAP), top, side)
        for spine in framed.spines.values():
            spine.set(visible=True, edgecolor=colour, linewidth=3)


def _heading(figure: Figure, left: float, text: str) -> None:
    width, height = figure.get_size_inches()
    figure.text(left / width, 1 - 0.12 / height, text, va="top", fontsize=15, weight="bold", color=INK)


def _show(figure: Figure, picture: Picture, left: float, top: float, side: float) -> Axes:
    """A picture without axes."""
    axes = _axes(figure, left, top, side, side)
    axes.imshow(picture, interpolation="bicubic")
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)
    return axes


def _axes(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes at a place in inches from the top left corner."""
    whole = figure.get_size_inches()
    return figure.add_axes((left / whole[0], 1 - (top + height) / whole[1], width / whole[0], height / whole[1]))


def concept_attributions(found: audit.Examination) -> Picture:
    """The concept that stands for the tag on a bird, by every attribution method, side by side."""
    tag, bird = found.audit.found("tag"), chosen_birds(found)[0]
    assert tag is not None
    side = ENLARGED * len(bird.picture)
    picture = np.asarray(cv2.resize(bird.picture, (side, side), interpolation=cv2.INTER_CUBIC), np.uint8)
    x = found.model.preprocess(bird.picture)
    overlays = [
        attribution_overlay(picture, found.craft.attribute(x, tag.concept, name).maps[0, 0], one.relative)
        for name, one in methods().items()
    ]
    return np.asarray(attribution_sheet(picture, overlays, ["picture", *methods()], columns=6, side=TILE), np.uint8)


def cuts_figure(found: audit.Examination) -> Figure:
    """The class that wears the tag at three layers."""
    images = found.model.preprocess([bird.picture for bird in found.birds])
    compared = compare_cuts(
        model_path("shortcut"), images, TAGGED, CUTS, number_of_concepts=8, patch_size=27, nb_design=32
    )
    return compared.plot(nb_most_important_concepts=4)


def generated_figure(found: audit.Examination) -> Figure:
    """What is generated for some channels beside the birds that activate them most, bright where they do."""
    drawn = [bird.picture for bird in draw_many(300, seed=5)]
    made = generate_maximal(found.model, CHANNELS, layer=LAYER)
    activations = found.model.g(found.model.preprocess(drawn))
    rows = {}
    for channel, picture in zip(CHANNELS, made.pictures, strict=True):
        best = np.argsort(-activations[:, channel].mean(axis=(1, 2)))[:6]
        bright = vis_opaque_img([drawn[i] for i in best], activations[best, channel], kernel_size=5)
        rows[f"channel {channel}"] = [picture, *bright]
    return plot_grid(rows)


def relevance_figure(model: SplitModel, folder: Path) -> Figure:
    """A finch, the channels that it is recognised by, and what each of these stands for."""
    attribution, notion = CondAttribution(model), ChannelConcept()
    birds, sample = draw_many(600, seed=3), draw_many(1, [FINCH], seed=8)[0]
    dataset = [(bird.picture, bird.label) for bird in birds]
    features = FeatureVisualization(attribution, dataset, {EARLIER: notion}, path=folder)
    features.run(RULES)
    x = model.preprocess(sample.picture)
    whole = attribution(x, [{"y": [FINCH]}], RULES, [EARLIER])
    share = notion.attribute(whole.relevances[EARLIER])[0]
    most = np.argsort(-share)[:SHOWN_CHANNELS]
    through = attribution(x, [{EARLIER: [channel], "y": [FINCH]} for channel in most], RULES).heatmap
    shown = features.get_max_reference(most, EARLIER, r_range=(0, 6), composite=RULES, rf=True, plot_fn=vis_opaque_img)
    rows = [ConceptRow(f"channel {k}", share[k], heat, shown[k]) for k, heat in zip(most, through, strict=True)]
    return conditional_figure(sample.picture, whole.heatmap[0], rows, title=class_names()[FINCH])


def tree_figure(model: SplitModel, folder: Path) -> Figure:
    """What the channel that sees the tag is made of, in one prediction: relevance, and what each stands for."""
    attribution, notion = CondAttribution(model), ChannelConcept()
    dataset = [(bird.picture, bird.label) for bird in draw_many(600, seed=3)]
    features = FeatureVisualization(attribution, dataset, dict.fromkeys(CHAIN, notion), path=folder)
    features.run(RULES)
    sample = next(bird for bird in draw_many(40, [TAGGED], seed=9) if bird.shows("tag"))
    x = model.preprocess(sample.picture)
    reached = attribution(x, [{"y": [TAGGED]}], RULES, [CHAIN[-1]]).relevances[CHAIN[-1]]
    channel = int(notion.attribute(reached)[0].argmax())
    tree = AttributionGraph(attribution, CHAIN)(x, RULES, channel, CHAIN[-1], TAGGED, [2, 2], heatmaps=True)
    shown = {}
    for layer, number in tree.nodes:
        found = features.get_max_reference(
            [number], layer, r_range=(0, 3), composite=RULES, rf=True, plot_fn=vis_opaque_img
        )
        shown[layer, number] = [fitted(crop, (96, 96)) for crop in found[number]]
    return tree.plot(sample.picture, shown)


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG."""
    figure.savefig(path, dpi=DPI, pil_kwargs={"optimize": True})
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def main(folder: Path) -> None:
    """Write the pictures into a folder."""
    with tempfile.TemporaryDirectory() as scratch:
        found = examined(Path(scratch))
        craft, bird = found.craft, chosen_birds(found)[0]
        image = found.model.preprocess(bird.picture)[0]
        one = craft.plot_image_concepts(image, nb_most_important_concepts=4, alpha=OPACITY, interpolation="bicubic")
        save(concepts_figure(found), folder / "concepts.png")
        save(one, folder / "image_concepts.png")
        write_png(folder / "concept_attributions.png", concept_attributions(found))
        choice = craft.choose_number_of_concepts(numbers=range(2, 15))
        save(craft.plot_choice(choice), folder / "choice.png")
        save(craft.plot_fidelity(rankings=RANKINGS), folder / "fidelity.png")
        save(cuts_figure(found), folder / "cuts.png")
        save(generated_figure(found), folder / "generated.png")
        save(relevance_figure(found.model, Path(scratch) / "references"), folder / "relevance.png")
        save(tree_figure(found.model, Path(scratch) / "tree"), folder / "attribution_graph.png")
        save(craft.plot_concepts_importances(nb_most_important_concepts=audit.CONCEPTS), folder / "importances.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "pictures")

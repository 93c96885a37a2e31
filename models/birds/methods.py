"""Which methods tell what the birds' models look at: ``python -m craft_onnx_models.birds.methods docs/birds.md``.

The truth is what drawing a part away does to the logit, picture by picture (the protocol of FunnyBirds, Hesse et al.
2023, arXiv 2308.06248, section 4: its "single deletion"). The body is left out: without it the other parts float.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from craft_onnx.attribution.attribute import attribute
from craft_onnx.attribution.fidelity import deletion, insertion
from craft_onnx.attribution.pointing import pointing_game
from craft_onnx.attribution.registry import methods
from craft_onnx.attribution.similarity import rank_correlation
from craft_onnx.files import new_file
from craft_onnx.runtime.model import SplitModel, load
from craft_onnx.show.attributions import attribution_overlay, attribution_sheet
from craft_onnx.show.overlay import write_png
from craft_onnx_models.birds import PARTS, TAGGED, WORLDS, Bird, draw_many, pictures
from craft_onnx_models.birds.audit import prepare
from craft_onnx_models.birds.document import replaced, table

Floats = NDArray[np.floating]

SEED = 2024  # of pictures that no model was trained or tested on
REMOVABLE = tuple(part for part in PARTS if part != "body")
TOLERANCE = 4  # pixels: a cell of the last feature map
RANDOM = "random numbers"


@dataclass(frozen=True)
class Score:
    """How well the maps of a method tell what is true, means over pictures.

    Attributes
    ----------
    method : str
        Its name.
    on_bird : float
        Share of the maps whose maximum lies on the bird.
    on_cause : float
        Share of the maps whose maximum lies on a part that counts: one worth at least half as much as the part of
        that picture which is worth most.
    correlation : float
        Rank correlation, over the parts of a picture, of the map's sum over the part with what the part is worth.
    deletion, insertion : float
        Areas under the curves of the probability.
    """

    method: str
    on_bird: float
    on_cause: float
    correlation: float
    deletion: float
    insertion: float


@dataclass(frozen=True)
class Truth:
    """Pictures of a class, and what a model's logit loses without each part.

    Attributes
    ----------
    birds : list of Bird
    class_id : int
    effects : (n, len(REMOVABLE)) array
        Logits; NaN where the part cannot be seen.
    """

    birds: list[Bird]
    class_id: int
    effects: NDArray[np.float64]

    @classmethod
    def of(cls, model: SplitModel, birds: Sequence[Bird], class_id: int) -> "Truth":
        """Draw every picture again without each part that it shows."""
        whole = _logits(model, birds, class_id)
        effects = np.full((len(birds), len(REMOVABLE)), np.nan)
        for j, part in enumerate(REMOVABLE):
            shown = [i for i, bird in enumerate(birds) if bird.shows(part)]
            if shown:
                effects[shown, j] = whole[shown] - _logits(model, [birds[i].without(part) for i in shown], class_id)
        return cls(list(birds), class_id, effects)

    @property
    def causes(self) -> NDArray[np.bool_]:
        """The pixels (n, H, W) of the parts that count."""
        counts = self.effects >= np.nanmax(self.effects, axis=1, keepdims=True) / 2
        return np.stack([
            np.any([bird.masks[part] for part, chosen in zip(REMOVABLE, row, strict=True) if chosen], axis=0)
            for bird, row in zip(self.birds, counts, strict=True)
        ])  # fmt: skip

    def correlation(self, maps: Floats, relative: bool = False) -> float:
        """Mean rank correlation of the maps' sums over parts with the effects of these.

        Where zero means nothing in the maps, they are counted from their mean over the picture.
        """
        if relative:
            maps = maps - maps.mean(axis=(1, 2), keepdims=True)
        found = []
        for bird, one, effects in zip(self.birds, maps, self.effects, strict=True):
            seen = ~np.isnan(effects)
            sums = np.array([one[bird.masks[part]].sum() for part in REMOVABLE])
            found.append(rank_correlation(sums[None, seen], effects[None, seen])[0])
        return float(np.mean(found))


def judge(model: SplitModel, truth: Truth, names: Sequence[str], **options: object) -> list[Score]:
    """Scores of methods, and of random numbers after them.

    Parameters
    ----------
    model : SplitModel
        The model that `truth` is about.
    truth : Truth
        Pictures and effects.
    names : sequence of str
        Methods; options are those that they have by default.
    **options
        Of `attribute`, for all of them.
    """
    x = model.preprocess(pictures(truth.birds))
    scores = []
    for name in names:
        maps = attribute(model, x, truth.class_id, name, **options).maps  # type: ignore[arg-type]
        scores.append(score(model, truth, x, name, maps, methods()[name].relative))
    noise = np.random.default_rng(0).random((len(x), *x.shape[2:]))
    return [*scores, score(model, truth, x, RANDOM, noise, True)]


def score(model: SplitModel, truth: Truth, x: Floats, name: str, maps: Floats, relative: bool) -> Score:
    """The score of maps of the pictures x."""
    bird = np.stack([np.any(list(one.masks.values()), axis=0) for one in truth.birds])
    return Score(
        method=name,
        on_bird=float(pointing_game(maps, bird, TOLERANCE).mean()),
        on_cause=float(pointing_game(maps, truth.causes, TOLERANCE).mean()),
        correlation=truth.correlation(maps, relative),
        deletion=float(deletion(model, x, maps, truth.class_id).areas.mean()),
        insertion=float(insertion(model, x, maps, truth.class_id).areas.mean()),
    )


def tagged_birds(world: str, n: int) -> list[Bird]:
    """Pictures of the class that wears the tag, all with one."""
    return [bird.with_tag() for bird in draw_many(n, [TAGGED], SEED, world)]


def report(models: dict[str, SplitModel], n: int, names: Sequence[str]) -> str:
    """Markdown: a table for each world."""
    parts = []
    for world, model in models.items():
        truth = Truth.of(model, tagged_birds(world, n), TAGGED)
        worth = ", ".join(f"{part} {value:.1f}" for part, value in zip(REMOVABLE, _means(truth.effects), strict=True))
        heading = f"The {world} model on {n} pictures of the class that wears the tag; logits lost without the {worth}:"
        parts += [heading, _scores(judge(model, truth, names))]
    return "\n\n".join(parts)


def _means(effects: NDArray[np.float64]) -> list[float]:
    return [float(value) + 0.0 for value in np.nanmean(effects, axis=0).round(1)]


def _scores(scores: Sequence[Score]) -> str:
    head = ["method", "needs", "on the bird", "on what counts", "rank correlation", "deletion", "insertion"]
    rows = []
    for one in scores:
        needs = "-" if one.method == RANDOM else methods()[one.method].needs
        shares = [f"{100 * share:.0f} %" for share in (one.on_bird, one.on_cause)]
        rows.append([one.method, needs, *shares, *(f"{x:.2f}" for x in (one.correlation, one.deletion, one.insertion))])
    return table(head, rows)


def sheet(model: SplitModel, bird: Bird, names: Sequence[str]) -> np.ndarray:
    """The maps of methods on one picture."""
    picture, x = bird.enlarged(3), model.preprocess(bird.picture)
    overlays = [
        attribution_overlay(picture, attribute(model, x, TAGGED, name).maps[0], methods()[name].relative)
        for name in names
    ]
    return attribution_sheet(picture, overlays, ["picture", *names], columns=5, side=192)


def _logits(model: SplitModel, birds: Sequence[Bird], class_id: int) -> Floats:
    return model.predict(model.preprocess(pictures(birds)))[:, class_id]


@click.command()
@click.argument("document", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--pictures", "n", type=click.IntRange(1), default=20, show_default=True)
@click.option("--method", "names", multiple=True, help="Some methods instead of all.")
def main(document: Path, n: int, names: tuple[str, ...]) -> None:
    """Write the tables between the markers of DOCUMENT, and pictures of the maps beside it."""
    names = names or tuple(methods())
    with tempfile.TemporaryDirectory() as folder:
        models = {world: load(prepare(world, Path(folder) / world)) for world in WORLDS}
        tables = report(models, n, names)
        sheets = {world: sheet(model, tagged_birds(world, 1)[0], names) for world, model in models.items()}
    images = document.parent / "images"
    images.mkdir(exist_ok=True)
    for world, drawn in sheets.items():
        write_png(images / f"birds_methods_{world}.png", drawn)
    with new_file(document, force=True) as staged:
        staged.write_text(replaced(document.read_text(encoding="utf-8"), "methods", tables), encoding="utf-8")


if __name__ == "__main__":
    main()

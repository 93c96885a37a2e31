"""Fits of one class at several cuts of a model, and their comparison: see `craft_onnx.concepts.cut_comparison`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from craft_onnx.concepts.cut_comparison import CutComparison
from craft_onnx.concepts.cut_matching import similarities
from craft_onnx.concepts.cut_measures import Observed, measure, observe
from craft_onnx.concepts.halves import as_images, find_halves, providers_of
from craft_onnx.errors import InputError

if TYPE_CHECKING:
    from craft_onnx.concepts.craft import Craft
    from craft_onnx.runtime.model import SplitModel

Array = NDArray[np.float64]
FINEST = 7  # rows and columns of the grid on which maps are compared


def compare_cuts(
    model: "SplitModel | str | Path | Any",
    images: Any,
    class_id: int = 0,
    cuts: Sequence[str] | None = None,
    *,
    repeats: int = 5,
    seed: int = 0,
    surf: bool = False,
    device: Any = None,
    **settings: Any,
) -> CutComparison:
    """Find the concepts of a class at several cuts of a model, and compare the cuts.

    Parameters
    ----------
    model : SplitModel, Bundle or path
        A bundle with these cuts; or an ONNX file, of which they are any layers.
    images : array (N, ...) or sequence of images
        Preprocessed images that the model predicts as the class.
    class_id : int
        The class.
    cuts : sequence of str, optional
        Names of two or more cuts; by default all of the bundle.
    repeats, seed : int
        Of the stability.
    surf : bool
        Compute surrogate faithfulness too. That runs the layers behind each cut k times an image and random bank.
    device : str, optional
        Where a model loaded here runs, as in `Craft`.
    **settings
        Of every `Craft`: number_of_concepts, patch_size, ...

    Returns
    -------
    CutComparison
        `.crafts`, `.rows()`, `.table()`, `.best`, `.matches`, `.plot()`.

    Raises
    ------
    InputError
        If a cut is not there or named twice, one alone is left, or as in `Craft.fit`.
    """
    from craft_onnx.concepts.craft import Craft

    models = _models(model, cuts, device)
    check_cuts([at.cut.name for at in models])
    crafts = {at.cut.name: Craft(at, **settings) for at in models}
    images = as_images(images)
    for craft in crafts.values():
        check_first(craft, images)
    for craft in crafts.values():
        craft.fit(images, class_id)
        craft.estimate_importance()
    return compare_crafts(crafts, repeats=repeats, seed=seed, surf=surf)


def compare_crafts(
    crafts: "Mapping[str, Craft]", *, repeats: int = 5, seed: int = 0, surf: bool = False
) -> CutComparison:
    """Compare fits of one class to the same images at several cuts.

    Parameters
    ----------
    crafts : mapping of str to Craft
        Fitted, by the name of their cut; importances are estimated where they have not been.
    repeats, seed, surf
        As in `compare_cuts`.

    Raises
    ------
    InputError
        If there is but one, they are of other classes, images or crops, or half of the crops are fewer than k.
    """
    check_comparable(crafts)
    grid = common_grid(list(crafts.values()))
    seen, measures = {}, {}
    for cut, craft in crafts.items():
        if craft.importance_ is None:
            craft.estimate_importance()
        seen[cut] = observe(craft, grid)
        stable = craft.stability(repeats, seed)
        measures[cut] = measure(craft, cut, seen[cut], stable, craft.surf(None, repeats, seed) if surf else None)
    return CutComparison(dict(crafts), measures, _all_similarities(crafts, seen))


def check_cuts(names: Sequence[str]) -> None:
    """Raise InputError unless two or more cuts are named, each once."""
    if len(names) < 2:
        raise InputError(
            f"{names[0] if names else 'No cut'} alone leaves nothing to compare.", "Name two or more cuts."
        )
    if len(set(names)) < len(names):
        raise InputError(f"One of the cuts {', '.join(names)} is named twice.", "Name each once.")


def check_comparable(crafts: "Mapping[str, Craft]") -> None:
    """Raise InputError for fits that cannot be compared."""
    check_cuts(list(crafts))
    for craft in crafts.values():
        craft.check_if_fitted()
    facts = {(craft.class_id_, len(craft.images_of_fit()), craft.crops, craft.patch_size) for craft in crafts.values()}
    if len(facts) > 1:
        found = " and ".join(
            f"{n} images of class {i} in {crops} crops of {size}" for i, n, crops, size in sorted(facts)
        )
        raise InputError(f"The concepts were fitted to {found}.", "Fit all to the same images and crops.")


def check_first(craft: "Craft", images: Any) -> None:
    """Raise InputError where the first image shows already that there are no concepts at a cut: A is negative."""
    halves = craft.halves_
    layout = halves.layout_of(images)
    try:
        next(craft._checked(halves.activations([np.stack([images[0]])], layout)))
    except InputError as error:
        where = "" if halves.model is None else f"At the cut {halves.model.cut.name}: "
        raise InputError(where + error.problem, error.remedy) from error


def common_grid(crafts: "Sequence[Craft]") -> tuple[int, int] | None:
    """The largest grid of 7 by 7 at most that no cut is coarser than; None where the activations of one have no places.

    On a finer one the same part of a picture is at other places for layers of other receptive fields.
    """
    shapes = [craft.positions_ for craft in crafts]
    if any(len(shape) != 2 for shape in shapes):
        return None
    return min(FINEST, *(shape[0] for shape in shapes)), min(FINEST, *(shape[1] for shape in shapes))


def _all_similarities(crafts: "Mapping[str, Craft]", seen: Mapping[str, Observed]) -> dict[tuple[str, str], Array]:
    return {
        (one, other): similarities(_crops_of(crafts[one], crafts[other]), _maps_of(seen[one], seen[other]))
        for one in crafts
        for other in crafts
        if one != other
    }


def _crops_of(one: "Craft", other: "Craft") -> tuple[Any, Any] | None:
    """Coefficients of the crops of both; None where there were none."""
    return None if one.crops is None else (one.crops_u_, other.crops_u_)


def _maps_of(one: Observed, other: Observed) -> tuple[Any, Any] | None:
    return None if one.maps is None or other.maps is None else (one.maps, other.maps)


def _models(model: Any, cuts: Sequence[str] | None, device: Any) -> "list[SplitModel]":
    """The model at each cut."""
    from craft_onnx.runtime.model import load_at

    if isinstance(model, str | Path):
        return load_at(model, cuts, providers_of(device))
    split = find_halves(model, None, device).model
    if split is None:
        raise InputError(f"A {type(model).__name__} has no cuts.", "Give a bundle or an ONNX file.")
    if split.bundle.made_from is not None and cuts is not None:
        return load_at(split.bundle.path("model"), cuts, split.provider)
    return [split.at(cut) for cut in (split.cuts if cuts is None else cuts)]

"""Which pixels a concept lies on: any attribution method, with the concept as its target (CRAFT, ingredient 3)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from craft_onnx.attribution.attribute import Attribution, with_defaults
from craft_onnx.attribution.model import Progress, as_inputs
from craft_onnx.attribution.registry import Maps, Method, find_method
from craft_onnx.attribution.targets import Channel, check_range
from craft_onnx.concepts.concept_target import ConceptTarget
from craft_onnx.concepts.factorisation import encode
from craft_onnx.concepts.halves import as_images
from craft_onnx.concepts.shared_passes import CallableModel, LastPass, RememberedMeans
from craft_onnx.errors import InputError
from craft_onnx.runtime.batches import as_array

if TYPE_CHECKING:
    from craft_onnx.concepts.extractor import ConceptExtractor

Array = NDArray[Any]
TICKS = 1000  # of the progress of each run


@dataclass(frozen=True)
class ConceptAttribution:
    """Maps of some concepts of some images, with how they came about.

    Attributes
    ----------
    maps : array (N, K, H, W)
        Attribution of every pixel of the input; (N, K) and the input's shape with ``channels=None``.
    values : array (N, K)
        Of the concepts: the mean of `transform(images)[..., k]` over the positions.
    residual : array (N, K), optional
        Where the method promises that a map adds up to the change of the value from a baseline to the input: by how
        much it misses it, relative to that change.
    concepts : tuple of K ints
        Their numbers.
    names : tuple of K str
        Their names, numbers where they have none.
    method : str
        The method.
    provider : str, optional
        The execution provider that ran the model, where it is known.
    seed : int
        Of everything random.
    options : dict
        Of the method, defaults included.
    """

    maps: Maps
    values: NDArray[np.float64]
    residual: NDArray[np.float64] | None
    concepts: tuple[int, ...]
    names: tuple[str, ...]
    method: str
    provider: str | None
    seed: int
    options: dict[str, Any]

    def of(self, concept: int) -> Attribution:
        """The attribution of one of the concepts, by its number."""
        if concept not in self.concepts:
            raise InputError(f"There is no map of concept {concept}.", f"There are maps of {list(self.concepts)}.")
        j = self.concepts.index(concept)
        residual = None if self.residual is None else self.residual[:, j]
        options = (self.provider, self.seed, self.options)
        return Attribution(self.maps[:, j], self.method, self.values[:, j], residual, *options)

    def to_json(self) -> dict[str, Any]:
        """A dictionary of JSON values: everything but the maps."""
        common = self.of(self.concepts[0]).to_json()
        return {
            **common,
            "concepts": list(self.concepts),
            "names": list(self.names),
            "values": self.values.tolist(),
            "residual": None if self.residual is None else self.residual.tolist(),
        }


def attribute_concepts(
    craft: "ConceptExtractor",
    images: Any,
    concepts: int | Sequence[int] | None = None,
    method: str = "integrated_gradients",
    *,
    seed: int = 0,
    batch_size: int | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> ConceptAttribution:
    """Explain concepts by any method; see `Craft.attribute`."""
    craft.check_if_fitted()
    chosen, numbers, x = find_method(method), _numbers(craft, concepts), as_inputs(_stacked(images))
    model = craft.halves_.model or CallableModel(craft.halves_, craft.layout_)
    size = craft.halves_.batch(craft.batch_size) if batch_size is None else batch_size
    target, common = concept_target(craft, 0), {"seed": seed, "batch_size": size}
    maps, residual = _explained(chosen, model, x, target, numbers, progress, {**options, **common})
    return ConceptAttribution(
        maps=maps,
        values=RememberedMeans(model, target.means).g(x, size)[:, numbers],
        residual=residual,
        concepts=tuple(numbers),
        names=tuple(craft.labels()[i] for i in numbers),
        method=method,
        provider=model.provider,
        seed=seed,
        options=with_defaults(chosen, options),
    )


def concept_target(craft: "ConceptExtractor", concepts: int | Sequence[int]) -> ConceptTarget:
    """A concept of a fitted Craft, one for all inputs or one for each, as the target of any attribution of its model.

    Parameters
    ----------
    craft : Craft
        Fitted.
    concepts : int or (n,) ints
        Numbers of concepts.

    Returns
    -------
    ConceptTarget
        Its value is the mean of `transform(x)[..., k]` over the positions. The ridge is the one in the encoder:
        scikit-learn's has alpha_W p, Xplique's penalty; the exact one has none.
    """
    w, model = craft.concept_bank_, craft.halves_.model
    axis = model.cut.channel_axis if model else -1
    if craft.encoder == "nnls":
        return ConceptTarget(w, concepts, axis, prefix=craft.tokens_.prefix)
    as_fitted = partial(encode, w=w, encoder=craft.encoder, alpha=craft.alpha_W)
    return ConceptTarget(w, concepts, axis, craft.alpha_W * w.shape[1], as_fitted, craft.tokens_.prefix)


def _explained(
    chosen: Method,
    model: Any,
    x: Array,
    target: ConceptTarget,
    numbers: Sequence[int],
    progress: Progress | None,
    options: dict[str, Any],
) -> tuple[Maps, NDArray[np.float64] | None]:
    """Maps (N, K, H, W) and residuals (N, K); all concepts on the same forward passes where the method allows that."""
    if chosen.needs == "predictions":
        shared: Any = RememberedMeans(model, target.means)
        targets: list[Any] = [Channel(k) for k in numbers]
    else:
        shared, targets = LastPass(model), [replace(target, concepts=k) for k in numbers]
    groups = _groups(chosen, x, options)
    meters = _meters(progress, len(groups) * len(targets))
    found = [[chosen.run(shared, group, one, **options, progress=next(meters)) for one in targets] for group in groups]
    maps = np.concatenate([np.stack([maps for maps, _ in group], axis=1) for group in found])
    residuals = [[np.zeros(0) if residual is None else residual for _, residual in group] for group in found]
    return maps, np.concatenate([np.stack(group, axis=1) for group in residuals]) if chosen.complete else None


def _groups(chosen: Method, x: Array, options: dict[str, Any]) -> list[Array]:
    """Inputs in groups of which a run of a gradient method makes one forward pass, if possible.

    What is random goes by the number of an input, and arrays among the options have a row for each: then all inputs
    stay together.
    """
    if chosen.needs == "predictions" or "seed" in chosen.options:
        return [x]
    if any(isinstance(value, np.ndarray) for value in options.values()):
        return [x]
    copies = {**chosen.options, **options}.get("steps", 1)
    size = max(1, options["batch_size"] // max(1, copies))
    return [x[start : start + size] for start in range(0, len(x), size)]


def _meters(progress: Progress | None, count: int) -> Iterator[Progress | None]:
    """For each of several runs, what tells the progress of all of them."""
    for number in range(count):
        yield None if progress is None else partial(_told, progress, number, count)


def _told(progress: Progress, number: int, count: int, done: int, total: int) -> None:
    progress(number * TICKS + TICKS * done // total, count * TICKS)


def _numbers(craft: "ConceptExtractor", concepts: int | Sequence[int] | None) -> list[int]:
    """The concepts that a user asks for, all of them by default."""
    count = len(craft.concept_bank_)
    asked = np.atleast_1d(np.arange(count) if concepts is None else np.asarray(concepts))
    if asked.ndim != 1 or not asked.size or asked.dtype.kind not in "iu":
        raise InputError(f"{concepts!r} are no concepts.", f"Give numbers from 0 to {count - 1}.")
    check_range(asked, count, "concept")
    return [int(one) for one in asked]


def _stacked(images: Any) -> Array:
    images = as_images(images)
    return images if isinstance(images, np.ndarray) else np.stack([as_array(images[i]) for i in range(len(images))])

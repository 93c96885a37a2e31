"""Recursion (Fel et al., CVPR 2023, section 3.2): concepts of an earlier layer that make up a concept of a later one.

Late layers bring distinct things together in one concept. The crops in which the concept is strongest are factorised
again at an earlier layer: what is found there are its sub-concepts.
"""

import dataclasses
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from craft_onnx.concepts.factorisation import Factoriser, encode, pool
from craft_onnx.concepts.halves import LAYOUTS, as_images
from craft_onnx.concepts.head import ConceptHead, callable_head
from craft_onnx.concepts.importance import Importance, refined
from craft_onnx.concepts.nnls import kkt_residual, nnls
from craft_onnx.concepts.pictures import StoredCrops
from craft_onnx.errors import CraftWarning, InputError
from craft_onnx.runtime.batches import as_array
from craft_onnx.runtime.crops import Crops, ResizedCrops
from craft_onnx.runtime.segment import Segment, segment_between

if TYPE_CHECKING:
    from craft_onnx.concepts.craft import Craft
    from craft_onnx.runtime.model import SplitModel

Floats = NDArray[np.floating]
# Of activations in float32: what a support may be off from optimal and still count as the one.
SUPPORT_TOLERANCE = 1e-5
AGAIN = "Give images, such as those of the fit."


@dataclass(frozen=True)
class Parent:
    """What was decomposed.

    Attributes
    ----------
    craft : Craft
        Has the concept.
    concept : int
        Its number there.
    quantile : float
        Crops whose coefficients are at or above this quantile were taken.
    """

    craft: "Craft"
    concept: int
    quantile: float


def decompose(
    craft: "Craft",
    concept: int,
    at: Any,
    number_of_concepts: int,
    quantile: float,
    images: Any,
    segment: Any,
    factoriser: Factoriser | None = None,
) -> "Craft":
    """Find the sub-concepts of a concept; see `Craft.decompose`."""
    craft.check_if_fitted()
    check_concept(concept, craft.crops_u_.shape[1])
    if craft.crops is None:
        raise InputError("Concepts of single positions have no crops to decompose.", "Fit with crops='grid'.")
    model, h, between = _earlier(craft, at, segment)
    crops, u = crops_of(craft, images)
    crops = crops.select(strongest(u[:, concept], quantile, concept))
    sub = type(craft)(model, h, **_settings(craft, number_of_concepts, factoriser))
    resized = ResizedCrops(crops, sub.input_size(crops, craft.layout_), craft.interpolation)
    sub._fit_crops(resized, craft.class_id_, craft.layout_, crops)
    sub.parent_, sub.segment_ = Parent(craft, int(concept), float(quantile)), between
    craft.children_ = [*(child for child in craft.children if _place(child) != _place(sub)), sub]
    return sub


def estimate_parent_importance(sub: "Craft", inputs: Any, nb_design: int | None, tol: float | None) -> Importance:
    """Importances of sub-concepts for their parent, see `Craft.estimate_parent_importance`."""
    head = sub.parent_head_
    images = sub.images_ if inputs is None else as_images(inputs)
    if images is None:
        raise InputError("The crops of the fit are not stored with the concepts.", AGAIN)
    u = sub._coefficients(images)
    return refined(lambda n: sub._importance_by(head, u, sub._sampling(n)), nb_design or sub.nb_design, tol)[0]


def children_of(craft: "Craft") -> "list[Craft]":
    """What concepts were decomposed into; of loaded concepts it is read when it is asked for."""
    if craft.children_ is None:
        from craft_onnx.concepts.store import load_children

        craft.children_ = load_children(craft)
    return craft.children_


def check_concept(concept: int, count: int) -> None:
    """Raise InputError where there is no such concept."""
    if not 0 <= concept < count:
        raise InputError(f"There is no concept {concept}.", f"Concepts go from 0 to {count - 1}.")


def strongest(u: Floats, quantile: float, concept: int = 0) -> NDArray[np.intp]:
    """Indices of the crops whose coefficients are at or above a quantile of all.

    Parameters
    ----------
    u : array (n,)
        Coefficients of one concept.
    quantile : float
        From 0 to 1, as `numpy.quantile` has it by default: linear between the two nearest.
    concept : int
        Number of the concept, for messages.

    Raises
    ------
    InputError
        If there is no such quantile, or the concept is in none of the crops.
    """
    if not 0 <= quantile <= 1:
        raise InputError(f"There is no quantile {quantile}.", "Give a number from 0 to 1.")
    present = int(np.count_nonzero(u))
    if not present:
        raise InputError(f"Concept {concept} is in none of the {len(u)} crops.", "Take another concept.")
    least = np.quantile(u, quantile)
    if least == 0 and quantile > 0:
        warnings.warn(
            f"Concept {concept} is in {present} of {len(u)} crops: the quantile {quantile:g} is 0, all are taken.\n"
            f"Take a larger quantile than {1 - present / len(u):.3f}.",
            CraftWarning,
            stacklevel=2,
        )
    return np.flatnonzero(u >= least)


def crops_of(craft: "Craft", images: Any = None) -> tuple[Crops, Floats]:
    """The crops of a fit and their coefficients (n, k); or of other images, chosen as those of the fit were.

    Raises
    ------
    InputError
        Without images, where the concepts were loaded: their crops are not stored with them.
    """
    if images is None:
        if isinstance(craft.crops_, StoredCrops):
            raise InputError("The crops of the fit are not stored with the concepts.", AGAIN)
        return craft.crops_, craft.crops_u_
    parent = craft.parent_
    if parent is None:
        crops = craft._cut(as_images(images), craft.layout_)
    else:
        crops, u = crops_of(parent.craft, images)
        crops = crops.select(strongest(u[:, parent.concept], parent.quantile, parent.concept))
    activations, _ = craft._pooled_activations(crops, craft.layout_)
    return crops, craft._encode(activations)


def segment_of(sub: "Craft") -> Segment:
    """From the activations of sub-concepts to those of their parent; InputError where it is not known."""
    parent = _parent(sub)
    earlier, later = sub.halves_.model, parent.craft.halves_.model
    if earlier is None or later is None:
        raise InputError("What lies between the layers is not known.", "Give decompose a segment= of the model.")
    return segment_between(earlier, later)


def parent_head(sub: "Craft") -> ConceptHead:
    """The parent's coefficient as a function of those of sub-concepts: u' -> nnls(pool(segment(u' W')))[concept].

    Where the segment is affine and one support of the least squares is optimal whatever the coefficients, that is a
    linear function.
    """
    parent, segment = _parent(sub), sub.segment_
    above = parent.craft

    def activations(a: Floats) -> Floats:
        return pool(above.tokens_.placed(above.halves_.channels_last(as_array(segment.run(a)), sub.layout_)))

    def coefficients(a: Floats) -> Floats:
        return encode(activations(a), above.concept_bank_, above.encoder, above.alpha_W)

    # The parent's concepts stand where the classes do: the rest is that of any function of activations.
    halves = dataclasses.replace(sub.halves_, h=coefficients, head=None)
    head = callable_head(halves, sub.concept_bank_, parent.concept, sub.layout_, sub.batch_size)
    if segment.affine and above.encoder == "nnls":
        effects = _effects(dataclasses.replace(halves, h=activations), sub)
        head.linear = has_one_support(effects, above.concept_bank_)
    return head


def has_one_support(rows: Floats, w: Floats) -> bool:
    """Whether the same concepts are in all non-negative combinations of rows, as least squares find them.

    The rows for which a support is optimal are a convex cone: what holds for the rows holds for their combinations, on
    which least squares are then a linear function.

    Parameters
    ----------
    rows : array (m, p)
        Activations.
    w : array (k, p)
        Concept bank.
    """
    support = (nnls(rows, w) > 0).any(axis=0)
    u = np.zeros((len(rows), len(w)))
    u[:, support] = np.linalg.lstsq(np.asarray(w[support].T, np.float64), rows.T, rcond=None)[0].T
    sizes = np.abs(u).max(axis=1, keepdims=True)
    if (u < -SUPPORT_TOLERANCE * sizes).any():
        return False
    return bool((kkt_residual(rows, w, np.maximum(u, 0)) <= SUPPORT_TOLERANCE).all())


def _effects(halves: Any, sub: "Craft") -> Floats:
    """Pooled activations of the parent (m, p) without any sub-concept, and what one unit of each adds, everywhere."""
    k = len(sub.concept_bank_)
    count = int(np.prod(sub.positions_)) * k
    units = np.eye(count + 1, count, -1, dtype=np.float32).reshape(count + 1, *sub.positions_, k)
    step = halves.batch(sub.batch_size)
    starts = range(0, len(units), step)
    rows = np.concatenate([halves.logits(units[i : i + step] @ sub.concept_bank_, sub.layout_) for i in starts])
    rows = rows.astype(np.float64)
    return np.concatenate([rows[:1], rows[1:] - rows[:1]])


def _place(sub: "Craft") -> tuple[int, Any]:
    """The concept that was decomposed, and where."""
    model = sub.halves_.model
    return _parent(sub).concept, model.cut.name if model else sub.input_to_latent_model


def _parent(sub: "Craft") -> Parent:
    if sub.parent_ is None:
        raise InputError("These concepts are those of a class, no concept was decomposed.", "Call decompose() first.")
    return sub.parent_


def _settings(craft: "Craft", number_of_concepts: int, factoriser: Factoriser | None) -> dict[str, Any]:
    """The settings of a Craft for its sub-concepts; crops and axes are what was found for the parent."""
    settings = craft.get_params() | {"number_of_concepts": number_of_concepts}
    settings["factoriser"] = factoriser or craft.factoriser
    settings["data_format"] = LAYOUTS[craft.layout_]
    return {name: value for name, value in settings.items() if not name.endswith("_model")}


def _earlier(craft: "Craft", at: Any, segment: Any) -> tuple[Any, Any, Segment]:
    """The model at an earlier layer, its second half where it is not part of that, and what lies between."""
    model = craft.halves_.model
    if callable(at):
        return at, *_composed(craft, segment)
    if model is None:
        raise InputError(
            f"The halves of the model were given apart, which have no layer {at!r}.",
            "Give at= a function from images to activations, and segment= what lies between.",
        )
    earlier = _at(model, str(at))
    return earlier, None, segment_between(earlier, model)


def _composed(craft: "Craft", segment: Any) -> tuple[Any, Segment]:
    """h behind a segment, and the segment; without one, what they would do is to say what is missing."""
    if segment is None:

        def unknown(_: Any) -> Any:
            raise InputError("What lies between the layers is not known.", "Give decompose a segment= of the model.")

        return unknown, Segment(unknown)
    second = craft.halves_.h
    return None if second is None else (lambda a: second(segment(a))), Segment(segment)


def _at(model: "SplitModel", name: str) -> "SplitModel":
    """The model at another cut: of its bundle, or at any layer of an ONNX file."""
    if model.bundle.made_from is not None and name not in model.cuts:
        from craft_onnx.runtime.model import load

        return load(model.bundle.path("model"), model.provider, cut=name)
    found = model.manifest.cut(name)
    if found.name == model.cut.name:
        others = ", ".join(cut for cut in model.cuts if cut != found.name) or "none"
        raise InputError(f"The concepts are at {name!r} themselves.", f"Other cuts of the bundle: {others}.")
    return model.at(found.name)

"""Steps that several commands take: class and labels, pictures of a class, fitting."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from craft_onnx.cli.messages import say
from craft_onnx.errors import InputError
from craft_onnx.runtime.pictures import Pictures
from craft_onnx.runtime.predictions import (
    Predictions,
    PreparedPictures,
    describe_trials,
    predict_pictures,
    try_presets,
    unknown_preprocessing,
)

if TYPE_CHECKING:
    from craft_onnx.concepts.craft import Craft
    from craft_onnx.runtime.model import SplitModel

# Fewer pictures of the class than both of these are taken for a mistake in preprocessing or class.
FEW, FEW_SHARE = 10, 0.1
# Xplique's patch of 64 pixels on pictures of 224.
PATCH_SHARE = 64 / 224


def read_labels(path: Path | None) -> list[str] | None:
    """Names of the classes: a JSON list or dictionary {"0": name}, or a text file with one name a line."""
    if path is None:
        return None
    try:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text) if path.suffix == ".json" else text.splitlines()
        return [str(values[str(i)]) for i in range(len(values))] if isinstance(values, dict) else list(map(str, values))
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}).", "Give a file with one class name a line."
        ) from error
    except (ValueError, KeyError) as error:
        raise InputError(f"{path} holds no labels ({error}).", "Give a JSON list or one name a line.") from error


def class_of(name: str, labels: Sequence[str] | None) -> int:
    """The class of a name; synonyms separated by commas count ("English springer, English springer spaniel")."""
    if labels is None:
        raise InputError(f"The class {name!r} has no number: the model has no labels.", "Give --labels or --class-id.")
    known = [{part.strip().lower() for part in label.split(",")} | {label.lower()} for label in labels]
    matches = [i for i, names in enumerate(known) if name.lower() in names]
    if len(matches) != 1:
        import difflib

        near = difflib.get_close_matches(name, labels, 3, 0.4)
        what = f"{len(matches)} classes are" if matches else "No class is"
        raise InputError(
            f"{what} called {name!r}.", f"Give --class-id{', or one of: ' + '; '.join(near) if near else ''}."
        )
    return matches[0]


def check_class(class_id: int, classes: int) -> None:
    """InputError unless the model has this class."""
    if not 0 <= class_id < classes:
        raise InputError(f"There is no class {class_id}.", f"The model's classes are 0 to {classes - 1}.")


def pictures_of_class(
    model: "SplitModel", pictures: Pictures, class_id: int | None, keep_all: bool, batch_size: int
) -> tuple[int, Predictions, list[int]]:
    """The class (the most often predicted one by default), what is predicted, and the pictures to fit on.

    Raises
    ------
    InputError
        If almost no picture is predicted as the class, with what is predicted instead and what presets would do.
    """
    if model.preprocessing is None:
        raise _with_trials(unknown_preprocessing(), model, pictures, class_id, batch_size)
    predictions = predict_pictures(model, pictures, batch_size=batch_size)
    chosen = predictions.counts()[0][0] if class_id is None else class_id
    kept = predictions.of(chosen)
    readable = len(predictions.classes)
    say(f"{len(kept)} of {readable} pictures are predicted as class {chosen}{label(model, chosen)}.")
    if keep_all:
        return chosen, predictions, predictions.indices.tolist()
    if not kept or len(kept) < min(FEW, FEW_SHARE * readable):
        raise _with_trials(_never_predicted(model, predictions, chosen), model, pictures, chosen, batch_size)
    return chosen, predictions, kept


def label(model: "SplitModel", class_id: int) -> str:
    """The class's name in brackets, where there is one."""
    return f" ({model.class_names[class_id]})" if model.class_names else ""


def _never_predicted(model: "SplitModel", predictions: Predictions, class_id: int) -> InputError:
    counts = ", ".join(f"class {i}{label(model, i)}: {count}" for i, count in predictions.counts()[:5])
    found, readable = len(predictions.of(class_id)), len(predictions.classes)
    return InputError(
        f"Only {found} of {readable} pictures are predicted as class {class_id}{label(model, class_id)}; "
        f"predicted are {counts}.",
        "Check the class and the preprocessing, or take all pictures with --keep-all.",
    )


def _with_trials(
    error: InputError, model: "SplitModel", pictures: Pictures, class_id: int | None, batch_size: int
) -> InputError:
    """The error, with what the presets make of the pictures."""
    trials = try_presets(model, pictures, class_id, batch_size)
    best = trials[0]
    advice = (
        f"--preset {best.preset} makes sense of the pictures: convert with it."
        if best.predicted > best.pictures / 2
        else "None of the presets makes sense of the pictures: look up how the model was trained."
    )
    return InputError(error.problem, "\n".join([error.remedy, *describe_trials(trials), advice]))


def default_patch(model: "SplitModel") -> int:
    """Patch size in the proportion of Xplique's default to a picture of 224 pixels."""
    if model.preprocessing is None:
        raise unknown_preprocessing()
    return max(2, round(min(model.preprocessing.size) * PATCH_SHARE))


def fit(
    model: "SplitModel", pictures: Pictures, indices: Sequence[int], class_id: int, options: dict[str, Any]
) -> "Craft":
    """Fit on some of the pictures and estimate importance; `options` are those of `options.fitting`."""
    from craft_onnx.concepts.craft import Craft

    if model.preprocessing is None:
        raise unknown_preprocessing()
    patch_size = options["patch_size"] or default_patch(model)
    craft = Craft(
        model,
        number_of_concepts=options["number_of_concepts"],
        patch_size=patch_size,
        batch_size=options["batch_size"],
        random_state=options["seed"],
    )
    crops, _, _ = craft.fit(PreparedPictures(pictures, model.preprocessing, indices), class_id=class_id)
    craft.estimate_importance(nb_design=options["nb_design"])
    say(f"Found {options['number_of_concepts']} concepts in {len(crops)} crops of {len(indices)} pictures.")
    return craft

"""Steps that several commands take: the pictures of a class, fitting, the page."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from craft_onnx.cli.messages import counted, progress, say, timed
from craft_onnx.cli.watching import WatchedImages
from craft_onnx.errors import CraftError, InputError
from craft_onnx.runtime.pictures import Pictures
from craft_onnx.runtime.predictions import Predictions, PreparedPictures, predict_pictures, unknown_preprocessing
from craft_onnx.runtime.trials import OWN, Trial, try_rules

if TYPE_CHECKING:
    from craft_onnx.concepts.craft import Craft
    from craft_onnx.runtime.model import SplitModel

# Fewer pictures of the class than both of these are taken for a mistake in preprocessing or class.
FEW, FEW_SHARE = 10, 0.1
# Xplique's patch of 64 pixels on pictures of 224.
PATCH_SHARE = 64 / 224


def check_writable(bundle: Path) -> None:
    """InputError where the result could not be stored in a bundle; known before any work is done."""
    if bundle.is_file():
        remedy = f"Make a bundle from a model with: craft-onnx split {bundle} -o BUNDLE"
        raise InputError(f"{bundle} is a file, not a bundle.", remedy)
    if bundle.is_dir() and not os.access(bundle, os.W_OK):
        raise InputError(f"The bundle {bundle} cannot be written.", "Copy it to a folder that can be written.")


def pictures_of_class(
    model: "SplitModel", pictures: Pictures, class_id: int | None, keep_all: bool, batch_size: int
) -> tuple[int, list[int]]:
    """The class (the most often predicted one by default), and the pictures to fit on.

    Raises
    ------
    InputError
        If almost no picture is predicted as the class, with what is predicted instead and what presets would do.
    """
    if model.preprocessing is None:
        raise _with_trials(unknown_preprocessing(), model, pictures, class_id, batch_size)
    predictions = _predict(model, pictures, batch_size)
    chosen = predictions.counts()[0][0] if class_id is None else class_id
    kept, readable = predictions.of(chosen), len(predictions.classes)
    say(f"Predicted as class {chosen}{label(model, chosen)}: {len(kept)} of {counted(readable, 'picture')}.")
    say(f"Predicted in all: {_counts(model, predictions)}.", level=1)
    if keep_all:
        return chosen, predictions.indices.tolist()
    if not kept or len(kept) < min(FEW, FEW_SHARE * readable):
        raise _with_trials(_never_predicted(model, predictions, chosen), model, pictures, chosen, batch_size)
    return chosen, kept


def _predict(model: "SplitModel", pictures: Pictures, batch_size: int) -> Predictions:
    what = f"Predicted {counted(len(pictures), 'picture')} on {model.provider}"
    with timed(what), progress(pictures.readable(), "Predicting", len(pictures)) as readable:
        return predict_pictures(model, pictures, batch_size, readable)


def label(model: "SplitModel", class_id: int) -> str:
    """The class's name in brackets, where there is one."""
    return f" ({model.class_names[class_id]})" if model.class_names else ""


def _counts(model: "SplitModel", predictions: Predictions) -> str:
    return ", ".join(f"class {i}{label(model, i)}: {count}" for i, count in predictions.counts()[:5])


def _never_predicted(model: "SplitModel", predictions: Predictions, class_id: int) -> InputError:
    found, readable = len(predictions.of(class_id)), len(predictions.classes)
    return InputError(
        f"{'Only ' if found else ''}{found or 'None'} of {counted(readable, 'picture')} "
        f"{'are' if found > 1 else 'is'} predicted as class {class_id}{label(model, class_id)}; "
        f"predicted are {_counts(model, predictions)}.",
        "Check the class and the preprocessing, or take all pictures with --keep-all.",
    )


def _with_trials(
    error: InputError, model: "SplitModel", pictures: Pictures, class_id: int | None, batch_size: int
) -> InputError:
    """The error, with what the presets make of the pictures."""
    say("Trying the preprocessing presets.")
    try:
        trials = try_rules(model, pictures, batch_size)
    except CraftError:  # what is wrong with the pictures comes after what is wrong with the model
        return error
    lines = [_described(model, trial, class_id) for trial in trials]
    return InputError(
        error.problem, "\n".join([error.remedy, *lines, *([_advice(model, trials, class_id)] * bool(trials))])
    )


def _described(model: "SplitModel", trial: Trial, class_id: int | None) -> str:
    common, pictures = trial.most_common, counted(len(trial.pictures.classes), "picture")
    seen = [] if class_id in (None, common) else [f"{trial.count(class_id or 0)} as class {class_id}"]
    if common >= 0:
        seen.append(f"{trial.count(common)} as class {common}{label(model, common)}, the most common")
    return (
        f"  {_called(trial)}: of {pictures}, {', '.join(seen) or 'none with a finite output'}; "
        f"mean confidence {trial.confidence:.2f}, scrambled {trial.scrambled.confidences.mean():.2f}"
    )


def _called(trial: Trial) -> str:
    return "its own preprocessing" if trial.name == OWN else f"--preset {trial.name}"


def _advice(model: "SplitModel", trials: Sequence[Trial], class_id: int | None) -> str:
    """What the trials say: a preset that shows the class, or one that makes sense of the pictures, or nothing."""
    if class_id is not None:
        best = max(trials, key=lambda trial: trial.agreement(class_id))
        if best.makes(class_id, model.classes) and best.name != OWN:
            return f"{_called(best)} makes sense of the pictures as class {class_id}: give it to convert or run."
    best = trials[0]
    if not best.makes_sense(model.classes):
        return "None of these makes clear sense of the pictures: look up how the model was trained."
    steps = [] if best.name == OWN else ["give it to convert or run"]
    if class_id not in (None, best.most_common):
        steps.append(f"take --class-id {best.most_common}{label(model, best.most_common)}, or other pictures")
    which = f"{_called(best)} makes most sense of the pictures"
    return f"{which}: {', and '.join(steps)}." if steps else f"{which}."


def default_patch(model: "SplitModel") -> int:
    """Patch size in the proportion of Xplique's default to a picture of 224 pixels."""
    if model.preprocessing is None:
        raise unknown_preprocessing()
    return max(2, round(min(model.preprocessing.size) * PATCH_SHARE))


def fit(
    model: "SplitModel", pictures: Pictures, indices: Sequence[int], class_id: int, options: dict[str, Any]
) -> "Craft":
    """Fit on some of the pictures and estimate importance; `options` are those of `options.fitting`."""
    craft = new_craft(model, options)
    assert model.preprocessing is not None
    numbers, patch_size = options["number_of_concepts"], craft.patch_size
    images = WatchedImages(PreparedPictures(pictures, model.preprocessing, indices))
    wanted = counted(numbers[0], "concept") if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]} concepts"
    say(f"Looking for {wanted} in crops of {patch_size} x {patch_size} pixels.")
    with timed("Crops, activations and factorisation"), images.watched("Cutting crops"):
        crops, _, _ = craft.fit(images, class_id=class_id)
    if len(numbers) > 1:
        with timed("Choice of the number of concepts"):
            _choose(craft, numbers, options)
    if not craft.head_.pooled and not craft.head_.linear:
        count = options["nb_design"] * (craft.number_of_concepts + 1)
        say(f"Importances run the layers behind {model.cut.name} {count} times a picture; --nb-design says how often.")
    with timed("Importances"), images.watched("Importances"):
        craft.estimate_importance(nb_design=options["nb_design"])
    error = craft.factorisation_.relative_error
    found = counted(craft.number_of_concepts, "concept")
    say(
        f"Found {found} in {counted(len(crops), 'crop')} of {counted(len(indices), 'picture')}, "
        f"relative error {error:.2f}."
    )
    return craft


def new_craft(model: "SplitModel", options: dict[str, Any]) -> "Craft":
    """A Craft as `options.fitting` ask for; InputError where pictures cannot become images."""
    from craft_onnx.concepts.craft import Craft

    if model.preprocessing is None:
        raise unknown_preprocessing()
    return Craft(
        model,
        number_of_concepts=options["number_of_concepts"][0],
        patch_size=options["patch_size"] or default_patch(model),
        batch_size=options["batch_size"],
        random_state=options["seed"],
        factoriser=options["factoriser"],
    )


def _choose(craft: "Craft", numbers: range, options: dict[str, Any]) -> None:
    """Fit again with the number of concepts that most speaks for; the table goes to stderr and into the evidence."""
    from craft_onnx.files import new_file

    choice = craft.choose_number_of_concepts(numbers=numbers, seed=options["seed"])
    for line in choice.table():
        say(line)
    say(f"Taking {choice.best}. {choice.reason}")
    if options.get("plot") and len(options.get("at") or ()) < 2:
        with new_file(options["plot"], force=True) as path:
            craft.plot_choice(choice).savefig(path, format="png")
    craft.refit(choice.best)
    craft.evidence_["choice"] = choice.to_json()

"""``python -m craft_onnx_models.watermark MODEL.onnx PICTURES -o DIR``."""

import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from craft_onnx.errors import CheckFailed, CraftError
from craft_onnx.extras import require
from craft_onnx.files import check_new_folder, new_file, new_folder
from craft_onnx.show.overlay import write_png
from craft_onnx_models.birds.document import replaced
from craft_onnx_models.watermark.experiment import Material, Settings, Trial, run
from craft_onnx_models.watermark.findings import failures, sheet, tables, verdicts

DEFAULTS = Settings()


@click.command()
@click.argument("model", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("pictures", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder for models and tables.")
@click.option("--force", is_flag=True, help="Replace the output if it exists.")
@click.option("--seeds", type=click.IntRange(1), default=2, show_default=True, help="Of places of the mark, per class.")
@click.option("--most", type=click.IntRange(10), default=200, show_default=True, help="Pictures of a class, at most.")
@click.option("--strays", type=click.FloatRange(0, 1), default=DEFAULTS.strays, show_default=True)
@click.option("--audited", type=click.IntRange(2), default=DEFAULTS.pictures, show_default=True, help="Pictures.")
@click.option("-k", "--concepts", type=click.IntRange(2), default=DEFAULTS.concepts, show_default=True)
@click.option("--document", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Page to write into.")
def main(model: Path, pictures: Path, output: Path, force: bool, document: Path | None, **options: Any) -> None:
    """Plant a mark on each class of PICTURES in turn, train heads of MODEL, and audit them.

    MODEL is an ONNX file that craft-onnx convert has written, PICTURES a folder with one folder for each class. Exits
    with 1 unless the mark is ranked first where it is the shortcut, and not found in the control.
    """
    try:
        require("sklearn", "build")
        check_new_folder(output, force)
        with new_folder(output, force) as folder:
            trials, names = _trials(model, pictures, folder, options)
            _write(folder, trials, names)
        if document is not None:
            _document(document, trials, names)
        _judge(trials, names)
    except CraftError as error:
        raise click.ClickException(str(error)) from error


def _trials(model: Path, pictures: Path, folder: Path, options: dict[str, Any]) -> tuple[list[Trial], Sequence[str]]:
    """All trials, with a line on stderr for each."""
    start = time.perf_counter()
    material = Material.of(model, pictures, options["most"])
    names, trials = material.photographs.names, []
    settings = Settings(options["strays"], options["audited"], options["concepts"])
    for trial in run(material, folder, range(options["seeds"]), settings):
        trials.append(trial)
        for line in verdicts([trial], names):
            click.echo(f"{time.perf_counter() - start:4.0f} s  {line}", err=True)
    return trials, names


def _write(folder: Path, trials: Sequence[Trial], names: Sequence[str]) -> None:
    """Tables, the picture, and all numbers as JSON."""
    (folder / "tables.md").write_text(tables(trials, names) + "\n", encoding="utf-8")
    (folder / "trials.json").write_text(json.dumps([to_json(trial, names) for trial in trials], indent=1))
    write_png(folder / "maps.png", sheet(trials))


def to_json(trial: Trial, names: Sequence[str]) -> dict[str, Any]:
    """A trial as JSON values."""
    return {
        "class": names[trial.class_id],
        "seed": trial.seed,
        "knowledge": {what: dataclasses.asdict(known) for what, known in trial.knowledge.items()},
        "findings": [
            {"head": what, "pictures": kind, "settings": name, **dataclasses.asdict(found), "found": found.found}
            for ((what, kind), name), found in trial.findings.items()
        ],
    }


def _document(document: Path, trials: Sequence[Trial], names: Sequence[str]) -> None:
    """Write the tables between the markers of a page, and the picture beside it."""
    images = document.parent / "images"
    images.mkdir(exist_ok=True)
    text = replaced(document.read_text(encoding="utf-8"), "watermark", tables(trials, names))
    write_png(images / "watermark.png", sheet(trials))
    with new_file(document, force=True) as staged:
        staged.write_text(text, encoding="utf-8")


def _judge(trials: Sequence[Trial], names: Sequence[str]) -> None:
    wrong = failures(trials, names)
    if wrong:
        raise CheckFailed(
            f"The mark was not ranked first, or found in the control, with: {', '.join(wrong)}.",
            "Look at tables.md for how far it was off.",
        )
    click.echo("The mark was ranked first in every shortcut, and found in no control.", err=True)


if __name__ == "__main__":
    main()

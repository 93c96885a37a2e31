"""`craft-onnx demo`: a model with a known shortcut is explained, and the shortcut must be found."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from craft_onnx.cli import options
from craft_onnx.cli.messages import result, say
from craft_onnx.errors import CheckFailed
from craft_onnx.extras import require

if TYPE_CHECKING:
    from craft_onnx.report.content import PictureCard, Table
    from craft_onnx_models.birds.audit import Audit, Examination
    from craft_onnx_models.birds.draw import Bird

EXAMPLES = 12
HEADINGS = {
    "shortcut": "The model trained with the shortcut",
    "control": "The control, trained without it",
}
INTRO = (
    "Two classes of drawn birds, the coast tern and the island tern, differ in nothing but a leg tag that almost every "
    "coast tern wore in the training pictures: the shortcut an audit must find. In the control's world they differ in "
    "a proper part instead, and the tag says nothing. Every part of every picture is known, and can be left out."
)


@click.command()
@options.output("Folder for the page, the bundles and the pictures.")
@options.seed
@options.verbosity
def command(output: Path, force: bool, seed: int, **_: object) -> None:
    """Draw birds, explain a model that was trained with a shortcut, and check that its concepts show the shortcut.

    The same audit of a control model, trained without the shortcut, must not report it. Exits with 1 if either fails.
    """
    require("sklearn", "build")
    from craft_onnx.files import new_folder, refuse_existing

    refuse_existing(output, force)
    start = time.perf_counter()
    with new_folder(output, force) as folder:
        examined = {world: examine(folder, world, seed) for world in HEADINGS}
        write(folder, examined)
    for world, one in examined.items():
        say(f"\n{HEADINGS[world]}\n{text_table(table(one.audit))}\n{one.audit.verdict()}")
    result({world: to_json(one.audit) for world, one in examined.items()})
    say(f"\nOpen {output / 'index.html'} with a browser ({time.perf_counter() - start:.0f} s).")
    verify(examined["shortcut"].audit, examined["control"].audit)
    say("The tag was found in the model and not in the control.")


def examine(folder: Path, world: str, seed: int) -> "Examination":
    """Cut the model of a world, fit concepts on drawn pictures of its tag-wearing class, and audit them."""
    from craft_onnx_models.birds import audit

    bundle = folder / ("bundle" if world == "shortcut" else f"bundle-{world}")
    examined = audit.examine(audit.prepare(world, bundle), world, seed)
    for finding in examined.audit.findings:
        examined.craft.names_[finding.concept] = finding.part
    examined.craft.save(bundle)
    return examined


def verify(shortcut: "Audit", control: "Audit") -> None:
    """Raise CheckFailed unless the tag was found in the model with the shortcut and not in the control."""
    if shortcut.found("tag") is None:
        raise CheckFailed("The tag was not found in the model with the shortcut.", "Try another --seed, and report it.")
    if control.found("tag") is not None:
        raise CheckFailed("The tag was found in the control.", "Try another --seed, and report it.")


def write(folder: Path, examined: "dict[str, Examination]") -> None:
    """The page, and the pictures it shows as files to try `craft-onnx explain` on."""
    from craft_onnx.report.compose import concept_cards, facts
    from craft_onnx.report.page import Page, Section, write_page
    from craft_onnx.show.overlay import write_png

    main = examined["shortcut"]
    birds = main.birds[:EXAMPLES]
    (folder / "pictures").mkdir()
    for i, bird in enumerate(birds):
        write_png(folder / "pictures" / f"bird-{i:02d}.png", bird.picture)
    sections = [
        Section(
            HEADINGS[world],
            [one.audit.verdict()],
            [table(one.audit)],
            tone="warning" if one.audit.found("tag") else "good",
        )
        for world, one in examined.items()
    ]
    cards = [_card(main, f"bird-{i:02d}.png", bird) for i, bird in enumerate(birds)]
    page = Page("A shortcut, found", INTRO, facts(main.craft), concept_cards(main.craft), cards, sections)
    write_page(folder, page)


def _card(examined: "Examination", name: str, bird: "Bird") -> "PictureCard":
    """The card of a bird, with what the model says when the same bird is drawn without its tag."""
    import dataclasses

    from craft_onnx.report.compose import picture_card, prediction_text

    explanation = examined.craft.explain(bird.picture)[0]
    card = picture_card(examined.craft, name, bird.picture, explanation)
    if not bird.shows("tag"):
        return card
    bare = examined.craft.explain(bird.without("tag").picture)[0]
    return dataclasses.replace(
        card, prediction=f"{card.prediction}; without the tag {prediction_text(bare.prediction, 1)}"
    )


def table(audit: "Audit") -> "Table":
    """Concepts, their importance, the part each lies on, and what the part is worth in truth."""
    from craft_onnx.report.content import Table

    return Table(
        "Concepts, the parts they lie on, and the true effect of leaving that part out of the pictures",
        ["concept", "importance", "part", "lift", "true effect on the logit"],
        [[f"{one.concept}", round(one.importance, 3), one.part, one.lift, -one.effect] for one in audit.findings],
    )


def text_table(table: "Table") -> str:
    """A table as aligned text."""
    cells = [
        list(table.columns),
        *([f"{v:.2f}" if isinstance(v, float) else str(v) for v in row] for row in table.rows),
    ]
    widths = [max(len(row[i]) for row in cells) for i in range(len(table.columns))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)


def to_json(audit: "Audit") -> dict[str, Any]:
    """The audit as JSON values."""
    import dataclasses

    return {
        "verdict": audit.verdict(),
        "tag_found": audit.found("tag") is not None,
        "findings": [dataclasses.asdict(finding) for finding in audit.findings],
        "effects": audit.effects,
    }

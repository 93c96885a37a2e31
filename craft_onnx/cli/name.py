"""`craft-onnx name`: give a concept a name that shows everywhere."""

from pathlib import Path

import click

from craft_onnx.cli import options
from craft_onnx.cli.messages import result, say


@click.command()
@click.argument("bundle", type=options.PathType)
@click.argument("concept", type=click.IntRange(0))
@click.argument("name")
@click.option("--class-id", type=click.IntRange(0), help="Class of the concept, where the bundle has several.")
@click.option("--cut", help="Cut of the concept, where the bundle has several.")
@options.verbosity
def command(bundle: Path, concept: int, name: str, class_id: int | None, cut: str | None, **_: object) -> None:
    """Give CONCEPT (its number) of BUNDLE the NAME that explanations and pages show, such as: name bundle/ 3 "ears".

    An empty NAME takes the name away.
    """
    from craft_onnx.concepts.store import name_concept
    from craft_onnx.runtime.bundle import Bundle

    named = name_concept(Bundle.open(bundle), concept, name, class_id=class_id, cut=cut)
    known = named.names.get(str(concept), "")
    now = f"is called {known!r}" if known else "has no name"
    say(f"Concept {concept} of class {named.class_id} at {named.cut} {now}.")
    result({"class_id": named.class_id, "cut": named.cut, "concept": concept, "name": known})

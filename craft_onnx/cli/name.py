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
    """Name CONCEPT (its number) of BUNDLE, for example: craft-onnx name bundle/ 3 "ears"."""
    from craft_onnx.concepts.store import name_concept
    from craft_onnx.runtime.bundle import Bundle

    named = name_concept(Bundle.open(bundle), concept, name, class_id=class_id, cut=cut)
    say(f"Concept {concept} of class {named.class_id} is called {name!r}.")
    result({"class_id": named.class_id, "cut": named.cut, "concept": concept, "name": name})

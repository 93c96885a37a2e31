"""`craft-onnx name`: give a concept a name that shows everywhere."""

from pathlib import Path
from typing import Any

import click

from craft_onnx.cli import options
from craft_onnx.cli.messages import result, say


@click.command()
@click.argument("bundle", type=options.PathType)
@click.argument("concept", type=click.IntRange(0))
@click.argument("name")
@click.option("--class-id", type=click.IntRange(0), help="Class of the concept, where the bundle has several.")
@click.option("--cut", help="Cut of the concept, where the bundle has several.")
@options.sub_concepts
@options.verbosity
def command(bundle: Path, concept: int, name: str, **given: Any) -> None:
    """Give CONCEPT (its number) of BUNDLE the NAME that explanations and pages show, such as: name bundle/ 3 "ears".

    An empty NAME takes the name away.
    """
    from craft_onnx.concepts.banks import in_words, parent_of
    from craft_onnx.concepts.store import name_concept
    from craft_onnx.runtime.bundle import Bundle

    opened = Bundle.open(bundle)
    named = name_concept(opened, concept, name, given["class_id"], given["cut"], given["parent"])
    known = named.names.get(str(concept), "")
    now = f"is called {known!r}" if known else "has no name"
    say(f"Concept {concept} of {in_words(opened.manifest, named)} {now}.")
    found = {"class_id": named.class_id, "cut": named.cut, "parent": parent_of(opened.manifest, named)}
    result({**found, "concept": concept, "name": known})

"""One class at several cuts: what `fit` and `run` do when --at is given more than once."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from craft_onnx.cli.messages import say, timed

if TYPE_CHECKING:
    from craft_onnx.concepts.cut_comparison import CutComparison
    from craft_onnx.runtime.model import SplitModel
    from craft_onnx.runtime.pictures import Pictures


def compare(
    models: "Sequence[SplitModel]", pictures: "Pictures", kept: Sequence[int], class_id: int, given: dict[str, Any]
) -> "CutComparison":
    """Fit at every cut and compare: the table goes to stderr, each cut's line into the evidence of its concepts."""
    from craft_onnx.cli import steps
    from craft_onnx.concepts.cuts import check_first, compare_crafts
    from craft_onnx.runtime.predictions import PreparedPictures

    for model in models:
        assert model.preprocessing is not None
        check_first(steps.new_craft(model, given), PreparedPictures(pictures, model.preprocessing, kept[:1]))
    crafts = {}
    for model in models:
        say(f"At {model.cut.name}:")
        crafts[model.cut.name] = steps.fit(model, pictures, kept, class_id, given)
    with timed("Comparison of the cuts"):
        comparison = compare_crafts(crafts, seed=given["seed"])
    for line in comparison.table():
        say(line)
    say(f"Best: {comparison.reason}")
    for cut, craft in crafts.items():
        craft.evidence_["cut_measures"] = comparison.measures[cut].to_json()
    return comparison


def described(comparison: "CutComparison") -> dict[str, Any]:
    """The comparison and the concepts of every cut: JSON values."""
    return {**comparison.to_json(), "fits": {cut: craft.summary() for cut, craft in comparison.crafts.items()}}


def draw(comparison: "CutComparison", path: Path) -> None:
    """The figure as a PNG file, in place of one there."""
    from craft_onnx.files import new_file

    with new_file(path, force=True) as staged:
        comparison.plot().savefig(staged, format="png")

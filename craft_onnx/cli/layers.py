"""`craft-onnx layers`: where a model can be cut."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import click

from craft_onnx.cli import options
from craft_onnx.cli.messages import result, say
from craft_onnx.extras import require

if TYPE_CHECKING:
    from craft_onnx.graph.cuts import Cut


@click.command()
@click.argument("model", type=options.PathType)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@options.verbosity
def command(model: Path, as_json: bool, **_: object) -> None:
    """List the tensors of MODEL (.onnx) through which every path from picture to logits goes."""
    require("onnx_ir", "build")
    from craft_onnx.graph.cuts import find_cuts
    from craft_onnx.graph.load import load
    from craft_onnx.runtime.proof import normalize_proven

    cuts = find_cuts(normalize_proven(load(model))[0])
    if as_json:
        result([dataclasses.asdict(cut) for cut in cuts])
        return
    click.echo(table(cuts))
    say("* recommended: the last non-negative feature map before global pooling. Cut with: craft-onnx split --at LAYER")


def table(cuts: "list[Cut]") -> str:
    """The cuts as aligned text, one a line."""
    rows: list[tuple[str, ...]] = [("", "index", "layer", "operator", "shape", "channels", "non-negative", "tensor")]
    rows += [_row(cut) for cut in cuts]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _row(cut: "Cut") -> tuple[str, ...]:
    shape = "x".join(str(length) for length in cut.shape[1:])
    nonnegative = "yes" if cut.nonnegative else "-"
    mark = "*" if cut.recommended else ""
    return mark, str(cut.index), cut.layer, cut.op_type, shape, str(cut.channels or "?"), nonnegative, cut.tensor

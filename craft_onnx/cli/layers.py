"""`craft-onnx layers`: where a model can be cut."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import click

from craft_onnx.cli import options
from craft_onnx.cli.messages import result, say

if TYPE_CHECKING:
    from craft_onnx.graph.cuts import Cut


@click.command()
@click.argument("model", type=options.PathType)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@options.verbosity
def command(model: Path, as_json: bool, **_: object) -> None:
    """List the tensors of MODEL (.onnx) through which every path from picture to logits goes.

    Any of them is a place to cut, by its index, layer or tensor. NMF needs one that is never negative; the best place,
    the last such feature map before global pooling, has an asterisk. Semi-NMF finds concepts at the others.
    """
    from craft_onnx.cli.graphs import normalized
    from craft_onnx.graph.cuts import find_cuts, signed_cut

    graph = normalized(model)
    cuts = find_cuts(graph)
    if as_json:
        result([dataclasses.asdict(cut) for cut in cuts])
    else:
        click.echo(table(cuts))
    say(_advice(model, cuts, signed_cut(graph, cuts)))


def table(cuts: "list[Cut]") -> str:
    """The cuts as aligned text, one a line."""
    rows: list[tuple[str, ...]] = [("", "index", "layer", "operator", "shape", "channels", "non-negative", "tensor")]
    rows += [_row(cut) for cut in cuts]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _row(cut: "Cut") -> tuple[str, ...]:
    shape = "x".join("?" if length is None else str(length) for length in cut.shape[1:])
    nonnegative = "yes" if cut.nonnegative else "-"
    mark = "*" if cut.recommended else ""
    return mark, str(cut.index), cut.layer, cut.op_type, shape, str(cut.channels or "?"), nonnegative, cut.tensor


def _advice(model: Path, cuts: "list[Cut]", signed: "Cut | None") -> str:
    best = next((cut for cut in cuts if cut.recommended), None)
    if best:
        return f"* recommended. Cut there with: craft-onnx split {model} -o BUNDLE, elsewhere with --at LAYER."
    if not cuts:
        return "The model cannot be cut: no single tensor lies on every path from picture to logits."
    where = f": cut with --at {signed.tensor}, fit with --factoriser semi_nmf" if signed else ""
    return f"None is recommended: no feature map is provably non-negative, which NMF needs. Semi-NMF does not{where}."

"""Markdown whose tables are generated: a section between two markers is replaced."""

import re
from collections.abc import Sequence

import numpy as np


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def spread(values: Sequence[float], digits: int = 2) -> str:
    """The median of several numbers and in brackets their range, where they differ as they are written; - for NaN."""
    if np.isnan(values).any():
        return "-"
    three = np.median(values), min(values), max(values)
    middle, low, high = (f"{round(float(x), digits) + 0.0:.{digits}f}" for x in three)  # not -0.00
    return middle if low == high else f"{middle} ({low} to {high})"


def replaced(text: str, section: str, generated: str) -> str:
    """The document with what stands between the markers of a section replaced.

    Raises
    ------
    ValueError
        If the document does not have the markers exactly once.
    """
    start, end = f"<!-- {section}: generated -->", f"<!-- end of {section} -->"
    whole = re.compile(f"{re.escape(start)}.*?{re.escape(end)}", flags=re.DOTALL)
    changed, count = whole.subn(lambda _: f"{start}\n{generated}\n{end}", text)
    if count != 1:
        raise ValueError(f"The document has {count} sections between {start} and {end}.")
    return changed

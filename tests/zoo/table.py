"""The page of results, ``docs/coverage.md``, from the records."""

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any

from zoo.agreement import COSINE, RATIO, near, ratio

Record = Mapping[str, Any]
TITLES = {
    "keras": "keras.applications",
    "torchvision": "torchvision.models",
    "timm": "timm",
    "trained": "Trained weights",
}
STAGES = ("build", "conversion", "cut", "gradient", "halves")
COLUMNS = (
    "Family",
    "Network",
    "Weights",
    "Input",
    "Converted",
    "Cut",
    "Gradient",
    "Through the cut",
    "onnx2torch",
    "s",
)
INTRODUCTION = """\
# Coverage

Which networks work: all classifiers of `keras.applications` and of `torchvision.models`, and one network each of many
families of timm. Made by `python -m zoo` in the folder `tests`, which builds every network in a process of its own,
converts it, finds a cut, and differentiates the model, and its halves at the cut, with onnxruntime on the CPU.

* **Weights** are random: as the framework draws them, with random numbers for those that it sets to 0 or 1, and with
  BatchNormalization's statistics from random pictures, so that every part of the network matters. Inputs are
  such pictures, noise of several scales, as small as the network allows, twelve at once (five where large); the
  cotangent is standard normal over all logits.
* **Converted**: the largest deviation of the logits from the framework's, relative to the largest logit.
* **Cut**: the recommended one, a feature map that is provably non-negative; or, marked *signed*, the last feature map
  that separates the network. Concepts need the former, gradients work at both.
* **Gradient**: the error of the gradient graph, relative to the framework's gradient in float64, as a multiple of the
  error of the framework's own gradient in float32; medians over the inputs. At most {ratio:g} passes, if the cosine
  with the float64 gradient is {cosine} or more. Errors below 1e-6 count as rounding. An error above 1e-4 means that a
  unit has fallen on the other side of its kink, by chance in either implementation: such inputs stay out of medians and
  cosine and are counted, ours : the framework's, in parentheses; ours may be at most three more than twice as many.
* **Through the cut**: the same for the gradient of h, then that of g.
* **onnx2torch** is the other way to gradients of an ONNX file: by way of PyTorch. It is given the same file; a tick
  where its gradient has that cosine.
"""


def passed(record: Record) -> bool:
    """Whether a network converts, has a cut, and has the right gradient in one graph and in two."""
    return not _failure(record)


def render(records: Mapping[str, Record]) -> str:
    """The page."""
    ordered = sorted(records.values(), key=lambda one: (list(TITLES).index(one["library"]), one["family"], one["name"]))
    libraries = [(library, list(some)) for library, some in groupby(ordered, lambda one: one["library"])]
    parts = [INTRODUCTION.format(ratio=RATIO, cosine=COSINE), _totals(libraries), _failures(ordered)]
    parts += [f"## {TITLES[library]}\n\n{_table(COLUMNS, map(_row, some))}" for library, some in libraries]
    return "\n".join(parts)


def _failure(record: Record) -> str:
    """What went wrong, in one line; empty where all went well."""
    for stage in STAGES:
        found = record.get(stage, {"ok": False, "reason": "not reached"})
        if not found["ok"]:
            return f"{stage}: {found['reason']}"
        if "cosine" in found and not near(found):
            kinks = f"kinks in {found['kinked']:.0f} inputs against {found['own_kinked']:.0f}"
            return f"{stage}: cosine {found['cosine']:.6f}, {ratio(found):.1f} times the framework's own error, {kinks}"
    return ""


def _totals(libraries: Iterable[tuple[str, list[Record]]]) -> str:
    rows = [_total(TITLES[library], some) for library, some in libraries]
    everything = [record for _, some in libraries for record in some]
    head = (
        "",
        "Networks",
        "Converted",
        "With a cut",
        "non-negative",
        "Gradient",
        "Passed",
        "onnx2torch converts",
        "right",
    )
    return _table(head, [*rows, _total("**all**", everything)])


def _total(title: str, records: list[Record]) -> list[str]:
    count = Counter[str]()
    for record in records:
        count["converted"] += _ok(record, "conversion")
        count["cut"] += _ok(record, "cut")
        count["nonnegative"] += _ok(record, "cut") and not record["cut"]["signed"]
        count["gradient"] += _ok(record, "gradient") and near(record["gradient"])
        count["passed"] += passed(record)
        count["rival"] += "cosine" in record.get("rival", {})
        count["right"] += _ok(record, "rival")
    names = ("converted", "cut", "nonnegative", "gradient", "passed", "rival", "right")
    share = 100 * count["passed"] / len(records)
    cells = [f"{count[name]} ({share:.0f} %)" if name == "passed" else str(count[name]) for name in names]
    return [title, str(len(records)), *cells]


def _failures(records: Iterable[Record]) -> str:
    lines = [f"* {TITLES[one['library']]} {one['name']}: {_failure(one)}" for one in records if not passed(one)]
    return "## What fails\n\n" + "\n".join(lines or ["Nothing."]) + "\n"


def _row(record: Record) -> list[str]:
    size = record.get("build", {}).get("parameters")
    return [
        record["family"],
        f"{record['name']}{'' if passed(record) else ' ✗'}",
        f"{size / 1e6:.1f} M" if size else "",
        "×".join(map(str, record["shape"])),
        f"{record['conversion']['error']:.0e}" if _ok(record, "conversion") else "✗",
        _cut(record),
        _gradient(record, "gradient"),
        _gradient(record, "halves"),
        _rival(record),
        f"{record['seconds']:.0f}",
    ]


def _cut(record: Record) -> str:
    if not _ok(record, "cut"):
        return "✗"
    cut = record["cut"]
    return f"`{cut['layer']}` {'×'.join(map(str, cut['shape']))}{' *signed*' if cut['signed'] else ''}"


def _gradient(record: Record, stage: str) -> str:
    if not _ok(record, stage):
        return "✗"
    found = record[stage]
    kinks = f" ({found['kinked']:.0f} : {found['own_kinked']:.0f})" if found["kinked"] + found["own_kinked"] else ""
    return f"{ratio(found):.2f}{kinks}{'' if near(found) else ' ✗'}"


def _rival(record: Record) -> str:
    if "rival" not in record:
        return ""
    if record["rival"]["ok"]:
        return "✓"
    reason = record["rival"].get("reason", "")
    missing = reason.partition("operation_type='")[2].split("'")[0]
    return f"✗ {missing or reason.partition(':')[0] or 'wrong'}"


def _ok(record: Record, stage: str) -> bool:
    return bool(record.get(stage, {}).get("ok", False))


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *map(list, rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)

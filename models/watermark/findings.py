"""Tables and pictures of the experiment."""

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from craft_onnx.show.overlay import contact_sheet
from craft_onnx_models.birds.document import spread, table
from craft_onnx_models.watermark.audit import Finding
from craft_onnx_models.watermark.experiment import (
    AUDITS,
    BARE,
    CONTROL,
    HEADS,
    OURS,
    PEERS,
    SHORTCUT,
    WITH_STRAYS,
    Trial,
)
from craft_onnx_models.watermark.mark import stamped
from craft_onnx_models.watermark.planting import Knowledge

Pixels = NDArray[np.uint8]
SIDE = 192
GREY = 150

_TRUTH: dict[str, Callable[[Knowledge], float]] = {
    "the mark is worth": lambda one: one.mark,
    "what else is there": lambda one: one.content,
}
_SHARES: dict[str, Callable[[Knowledge], float]] = {
    "accuracy": lambda one: one.accuracy,
    "own pictures, unmarked, recognised": lambda one: one.recognised,
    "others, marked, taken for it": lambda one: one.swayed,
}
_FINDINGS: dict[str, tuple[Callable[[Finding], float], int]] = {
    "rank": (lambda one: one.rank, 0),
    "importance": (lambda one: one.importance, 2),
    "contribution": (lambda one: one.contribution, 2),
    "true effect": (lambda one: one.effect, 2),
    "share of its map": (lambda one: one.share, 2),
    "lift": (lambda one: one.lift, 1),
    "without the mark": (lambda one: one.bare, 1),
}


def tables(trials: Sequence[Trial], names: Sequence[str]) -> str:
    """Markdown: what is true of the heads, what the audits find, and each trial by itself."""
    classes, seeds = len({trial.class_id for trial in trials}), len({trial.seed for trial in trials})
    heading = f"{len(trials)} trials: {classes} classes, the mark placed anew {seeds} times: median (range)."
    return "\n\n".join([heading, _truths(trials), _audits(trials), _each(trials, names)])


def _truths(trials: Sequence[Trial]) -> str:
    rows = []
    for what in HEADS:
        known = [trial.knowledge[what] for trial in trials]
        shares = [f"{spread([100 * read(one) for one in known], 0)} %" for read in _SHARES.values()]
        rows.append([what, *shares, *(spread([read(one) for one in known]) for read in _TRUTH.values())])
    return table(["head", *_SHARES, *_TRUTH], rows)


def _audits(trials: Sequence[Trial]) -> str:
    rows = []
    for audit in AUDITS:
        for setting in dict.fromkeys(name for _, name in trials[0].findings):
            several = [trial.findings[audit, setting] for trial in trials]
            counts = [f"{sum(found)}" for found in zip(*((one.found, one.first) for one in several), strict=True)]
            cells = [spread([read(one) for one in several], digits) for read, digits in _FINDINGS.values()]
            rows.append([audit[0], audit[1], setting, *counts, *cells])
    return table(["head", "pictures", "settings", "found", "first", *_FINDINGS], rows)


def _each(trials: Sequence[Trial], names: Sequence[str]) -> str:
    audit = SHORTCUT, WITH_STRAYS
    rows = []
    for trial in trials:
        ours, peers = trial.findings[audit, OURS], trial.findings[audit, PEERS]
        cells = [f"{ours.effect:.2f}"]
        for one in (ours, peers):
            cells += [f"{one.rank}", f"{one.importance:.2f}", f"{one.lift:.1f}"]
        rows.append([names[trial.class_id].replace("_", " "), f"{trial.seed}", *cells])
    columns = [f"{what}, {whose}" for whose in ("ours", "Xplique's") for what in ("rank", "importance", "lift")]
    return table(["class with the mark (shortcut)", "seed", "true effect", *columns], rows)


def verdicts(trials: Sequence[Trial], names: Sequence[str]) -> list[str]:
    """One line for every trial and head, with our settings."""
    return [
        f"{names[trial.class_id]}, seed {trial.seed}, {what} ({kind}): {trial.findings[(what, kind), OURS].verdict()}"
        for trial in trials
        for what, kind in AUDITS
    ]


def failures(trials: Sequence[Trial], names: Sequence[str]) -> list[str]:
    """Trials in which our settings do not rank the mark first in the shortcut, or find it in the control."""
    wrong = []
    for trial in trials:
        ours = {audit: trial.findings[audit, OURS] for audit in AUDITS}
        found = any(one.found for (what, _), one in ours.items() if what == CONTROL)
        if found or not ours[SHORTCUT, WITH_STRAYS].first:
            wrong.append(f"{names[trial.class_id]} (seed {trial.seed})")
    return wrong


def sheet(trials: Sequence[Trial]) -> Pixels:
    """The mark on grey, and the mean map of the concept that lies most on it, over all trials: an audit a row."""
    grey = np.full((224, 224, 3), GREY, np.uint8)
    settings = dict.fromkeys(name for _, name in trials[0].maps)
    rows = []
    for audit in AUDITS:
        means = [np.mean([trial.maps[audit, name] for trial in trials], axis=0) for name in settings]
        shown = grey if audit[1] == BARE else stamped(grey, 0, 0)[0]
        tiles = [shown, *(_coloured(mean) for mean in means)]
        rows.append(_captioned(contact_sheet(tiles, len(tiles), (SIDE, SIDE)), [", ".join(audit), *settings]))
    return np.vstack(rows)


def _coloured(heat: NDArray[np.floating]) -> Pixels:
    grey = np.rint(255 * cv2.resize(heat.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_NEAREST))
    return np.asarray(cv2.applyColorMap(grey.astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1])


def _captioned(picture: Pixels, texts: Sequence[str]) -> Pixels:
    strip = np.full((24, picture.shape[1], 3), 255, np.uint8)
    for i, text in enumerate(texts):
        origin = (6 + i * picture.shape[1] // len(texts), 18)
        cv2.putText(strip, text, origin, cv2.FONT_HERSHEY_SIMPLEX, 0.42, (40, 40, 40), 1, cv2.LINE_AA)
    return np.vstack([strip, picture])

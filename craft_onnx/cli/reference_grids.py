"""The grids that `craft-onnx references` draws: one channel a row, the pictures that speak for it."""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from craft_onnx.errors import InputError

if TYPE_CHECKING:
    from craft_onnx.relevance.visualization import FeatureVisualization

Written = dict[str, Any]
BLUR = 19  # pixels, at least


def asked_channels(given: Sequence[str], layers: Sequence[str]) -> dict[str, list[int]]:
    """The channels to draw, by layer.

    Raises
    ------
    InputError
        If one is not [LAYER:]N,N, or its layer is not among those that are looked at.
    """
    asked: dict[str, list[int]] = {}
    for text in given:
        name, colon, numbers = text.rpartition(":")
        layer = name if colon else layers[0]
        channels = [each.strip() for each in numbers.split(",")]
        if not all(each.isdecimal() for each in channels) or (not colon and len(set(layers)) > 1):
            raise InputError(f"--channel {text!r} is not LAYER:N,N.", f"Give it such as {layers[0]}:7,12.")
        if layer not in layers:
            raise InputError(f"--channel {text!r} is of another layer than {', '.join(layers)}.", "Add --layer.")
        asked.setdefault(layer, []).extend(int(each) for each in channels)
    return {layer: list(dict.fromkeys(channels)) for layer, channels in asked.items()}


def draw_into(
    folder: Path, found: "FeatureVisualization", asked: dict[str, list[int]], given: dict[str, Any]
) -> Written:
    """Write the grids and the page; what was found, as JSON values."""
    shown = {layer: _shown(found, layer, channels, given) for layer, channels in asked.items()}
    layers = {
        layer: {
            "channels": int(found.best(layer).data.shape[1]),
            "grid": _grid(folder, layer, shown[layer]) if layer in shown else None,
            "references": [_reference(found, layer, channel, given) for channel in shown.get(layer, ())],
        }
        for layer in dict.fromkeys(given["layers"])
    }
    written = {
        "folder": str(folder),
        "pictures": len(found.samples),
        "seen": found.seen,
        "mode": given["mode"],
        "composite": given["composite"],
        "provider": found.attribution.model.provider,
        "layers": layers,
    }
    _write_page(folder, written, shown)
    return written


def _shown(found: "FeatureVisualization", layer: str, channels: list[int], given: dict[str, Any]) -> dict[int, Any]:
    """The pictures of each channel, dimmed, or with their heatmaps."""
    from craft_onnx.show.references import vis_img_heatmap, vis_opaque_img

    dimmed = partial(vis_opaque_img, kernel_size=_blur(found, layer))
    return found.get_max_reference(
        channels,
        layer,
        given["mode"],
        (0, given["columns"]),
        given["rules"],
        given["crop"],
        dimmed if given["style"] == "opaque" else vis_img_heatmap,
        given["batch_size"],
    )


def _blur(found: "FeatureVisualization", layer: str) -> int:
    """Pixels over which relevance is smoothed: twice the steps of the layer.

    Where convolutions skip positions (ResNet's first 1 x 1 in a stage), relevance reaches one pixel of each step only.
    """
    attribution = found.attribution
    sides = [size for size in attribution.layers[layer].positions if isinstance(size, int)]
    image = [size for size in attribution.model.input_shape[1:] if size is not None]
    return max(BLUR, 2 * (max(image) // max(sides)) + 1) if sides and image else BLUR


def _grid(folder: Path, layer: str, shown: dict[int, Any]) -> str:
    """The name of the picture with one channel a row."""
    from craft_onnx.files import new_file
    from craft_onnx.show.relevance import plot_grid

    name = f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', layer).strip('-.')}.png"
    with new_file(folder / name, force=True) as staged:
        plot_grid(shown).savefig(staged, format="png")
    return name


def _reference(found: "FeatureVisualization", layer: str, channel: int, given: dict[str, Any]) -> Written:
    """The best pictures of a channel, and the classes that it speaks for."""
    data, values, _ = found.best(layer, given["mode"]).of_concept(channel, 0, given["columns"])
    targets, means = found.compute_stats(channel, layer, given["mode"])
    names = found.samples.dataset.names
    return {
        "channel": channel,
        "pictures": [
            {"picture": names[index], "value": float(value)} for index, value in zip(data, values, strict=True)
        ],
        "classes": [
            {"class_id": int(target), "name": _class_name(found, int(target)), "value": float(mean)}
            for target, mean in zip(targets, means, strict=True)
        ],
    }


def _class_name(found: "FeatureVisualization", target: int) -> str | None:
    names = found.attribution.model.class_names
    return names[target] if names and target < len(names) else None


def _write_page(folder: Path, written: Written, shown: dict[str, dict[int, Any]]) -> None:
    """A page with the pictures of every channel."""
    from craft_onnx.report.content import Page, Section
    from craft_onnx.report.page import write_page

    facts = {name: written[name] for name in ("pictures", "seen", "mode", "composite", "provider")}
    sections = [
        Section(f"{layer}, channel {one['channel']}", [_classes(one)], illustrations=_illustrations(pictures, one))
        for layer, channels in shown.items()
        for one, pictures in zip(written["layers"][layer]["references"], channels.values(), strict=True)
    ]
    write_page(folder, Page("References", facts=facts, sections=sections))


def _illustrations(pictures: Any, one: Written) -> list[Any]:
    """Each picture, above its heatmap where there is one, with its name and value."""
    import numpy as np

    from craft_onnx.report.content import Illustration

    tiles = [np.vstack(pair) for pair in zip(*pictures, strict=True)] if isinstance(pictures, tuple) else pictures
    captions = [f"{each['picture']}, {each['value']:.3g}" for each in one["pictures"]]
    return [Illustration(tile, caption) for tile, caption in zip(tiles, captions, strict=True)]


def _classes(one: Written) -> str:
    named = ", ".join(f"{each['name'] or each['class_id']} ({each['value']:.3g})" for each in one["classes"])
    return f"It speaks for the classes {named}: the mean over the best ten pictures of each."

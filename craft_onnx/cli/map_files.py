"""Files and pages of maps over pictures."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from craft_onnx.cli.explain import file_names

if TYPE_CHECKING:
    from craft_onnx.runtime.model import SplitModel
    from craft_onnx.runtime.pictures import Pictures

Written = dict[str, Any]
SIDE = 256  # of a tile on a sheet, pixels
PAGE_SIDE = 512


def named_batches(pictures: "Pictures", batch_size: int) -> Iterator[list[tuple[str, Any]]]:
    """The pictures that can be read, some at a time, each with a name for its files."""
    names, stream = file_names(pictures.names), pictures.readable()
    while some := list(itertools.islice(stream, batch_size)):
        yield [(names[i], picture) for i, picture in some]


def described(model: "SplitModel", name: str, logits: Any, class_id: int | None) -> Written:
    """What is explained of a picture, as JSON values; its maps are to be added."""
    names = model.class_names
    label = names[class_id] if names and class_id is not None and class_id < len(names) else None
    return {
        "picture": name,
        "predicted": int(logits.argmax()),
        "explained": None if class_id is None else int(class_id),
        "name": label,
        "maps": [],
        "sheet": None,
    }


def write_map(folder: Path, model: "SplitModel", name: str, picture: Any, values: Any, shown: Any = None) -> list[str]:
    """NAME.png, the map (H, W) over the picture, and NAME.npy; their names. `shown` is drawn in place of the values."""
    from craft_onnx.show.overlay import write_png

    files = [f"{name}.png", f"{name}.npy"]
    write_png(folder / files[0], overlay(model, picture, values if shown is None else shown))
    np.save(folder / files[1], values)
    return files


def overlay(model: "SplitModel", picture: Any, values: Any) -> Any:
    """A map (H, W) in the pixels of the model's input, drawn over the picture."""
    from craft_onnx.show.attributions import attribution_overlay, smoothed

    return attribution_overlay(picture, model.to_picture(smoothed(values)[None], [picture.shape[:2]])[0], smooth=0)


def tile(picture: Any) -> Any:
    """A picture as large as on a sheet."""
    from craft_onnx.report.images import shrunk

    return shrunk(picture, SIDE)


def write_sheet(folder: Path, name: str, picture: Any, overlays: list[Any], labels: list[str]) -> str:
    """NAME.png, the picture and maps over it side by side; its name."""
    from craft_onnx.show.attributions import attribution_sheet
    from craft_onnx.show.overlay import write_png

    write_png(folder / f"{name}.png", attribution_sheet(picture, overlays, ["picture", *labels], side=SIDE))
    return f"{name}.png"


def write_maps_page(
    folder: Path,
    title: str,
    facts: dict[str, Any],
    written: Sequence[Written],
    sentence: Callable[[Written], str],
    caption: Callable[[Written], str],
    tables: Callable[[Written], Sequence[Any]] = lambda one: (),
) -> None:
    """A page with the maps of every picture: a sentence of each, a caption of each map, and tables."""
    from craft_onnx.report.content import Page, Section
    from craft_onnx.report.page import write_page

    sections = [
        Section(one["picture"], [sentence(one)], tables=tables(one), illustrations=_Shown(folder, one, caption))
        for one in written
    ]
    write_page(folder, Page(title, facts=facts, sections=sections))


def placed(one: Written, output: Path) -> Written:
    """What was written of a picture, with the paths of the files as a user has them."""
    maps = [{**each, "files": [str(output / name) for name in each["files"]]} for each in one["maps"]]
    return {**one, "maps": maps, "sheet": one["sheet"] and str(output / one["sheet"])}


class _Shown(Sequence[Any]):
    """The maps of a picture as illustrations of a page, read when they are asked for."""

    def __init__(self, folder: Path, one: Written, caption: Callable[[Written], str]) -> None:
        self._folder, self._maps, self._caption = folder, one["maps"], caption

    def __len__(self) -> int:
        return len(self._maps)

    def __getitem__(self, index: Any) -> Any:
        from craft_onnx.report.content import Illustration
        from craft_onnx.report.images import shrunk
        from craft_onnx.runtime.pictures import open_pictures

        one = self._maps[index]
        picture = shrunk(open_pictures(self._folder / one["files"][0])[0], PAGE_SIDE)
        return Illustration(picture, self._caption(one))

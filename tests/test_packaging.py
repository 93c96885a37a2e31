"""What pyproject.toml installs is what the source tree has."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]


def _packages():
    for name, folder in SETUPTOOLS["package-dir"].items():
        for path in (ROOT / folder).rglob("__init__.py"):
            yield ".".join([name, *path.parent.relative_to(ROOT / folder).parts])


def test_every_package_is_installed():
    assert sorted(SETUPTOOLS["packages"]) == sorted(_packages())


def _files():
    for folder in SETUPTOOLS["package-dir"].values():
        for path in (ROOT / folder).rglob("*.*"):
            parts = path.relative_to(ROOT / folder).parts
            if path.is_file() and not any(part.startswith((".", "__pycache__")) for part in parts):
                yield path


def test_every_data_file_is_installed():
    patterns = ["*.py", *SETUPTOOLS["package-data"]["*"]]
    files = list(_files())
    assert [path for path in files if not any(map(path.match, patterns))] == []
    assert {path.suffix for path in files} >= {".onnx", ".json", ".css", ".typed"}

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


def test_every_data_file_is_installed():
    data = SETUPTOOLS["package-data"]["*"]
    files = [path for folder in SETUPTOOLS["package-dir"].values() for path in (ROOT / folder).rglob("*.*")]
    others = [path for path in files if path.suffix not in (".py", ".pyc") and not any(map(path.match, data))]
    assert others == []
    assert {path.suffix for path in files} >= {".onnx", ".json", ".css"}

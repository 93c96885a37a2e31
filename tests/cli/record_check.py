"""Record the numbers of `craft-onnx check` after the demo model was trained again."""

import json
from importlib.resources import files

from craft_onnx.cli.check import STORED, numbers


def main() -> None:
    """Write what the CPU provider gives on one thread, the reference."""
    _, values = numbers("cpu", threads=1)
    text = json.dumps({name: value.tolist() for name, value in values.items()}, indent=1) + "\n"
    files("craft_onnx_models.birds").joinpath(STORED).write_text(text)


if __name__ == "__main__":
    main()
